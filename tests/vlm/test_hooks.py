"""Hooks: in front, effective, and gone afterwards. The first test says why they go in front."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from explorer.vlm import open_lvlm
from explorer.vlm.families.llava import Llava
from explorer.vlm.hooks import capture, edited, last_rows_only, resumed


@pytest.fixture
def fresh(tiny_lvlm_folder: Path) -> Llava:
    """A model of this test's own: hooks of other tests cannot linger on it."""
    return open_lvlm(tiny_lvlm_folder)


def hooks_of(model: nn.Module) -> dict[str, list[int]]:
    return {name: list(module._forward_hooks) for name, module in model.named_modules()}


def projected(lvlm: Llava, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), capture(lvlm.projector) as seen:
        lvlm.model.get_image_features(pixel_values=pixels)
    return seen.output.clone()


def test_a_hook_at_the_back_is_a_silent_no_op(fresh: Llava) -> None:
    pixels = torch.randn(1, 3, 32, 32)
    block = fresh.vision_blocks[fresh.read_block]
    plain = projected(fresh, pixels)  # the first forward installs transformers' own collecting hooks

    handle = block.register_forward_hook(lambda _m, _a, output: output + 1.0)
    behind = projected(fresh, pixels)
    handle.remove()
    assert torch.equal(behind, plain), "transformers has changed: a hook at the back has an effect now"

    with edited(block, lambda output: output + 1.0):
        in_front = projected(fresh, pixels)
    assert (in_front - plain).abs().max() > 1e-3
    assert torch.equal(projected(fresh, pixels), plain)


def test_an_edit_by_hook_equals_the_resumed_tower(fresh: Llava) -> None:
    pixels, push = torch.randn(1, 3, 32, 32), torch.randn(17, 32)
    for block in range(fresh.read_block + 1):
        with edited(fresh.vision_blocks[block], lambda output: output + push):
            by_hook = projected(fresh, pixels)[0]
        resumed = fresh.features(fresh.tower(pixels, block)[0] + push, block)
        assert torch.allclose(by_hook, resumed, atol=1e-5)


def test_an_edit_changes_the_projectors_input(fresh: Llava) -> None:
    pixels, push = torch.randn(1, 3, 32, 32), torch.randn(17, 32)
    heard: list[torch.Tensor] = []
    handle = fresh.projector.register_forward_pre_hook(lambda _m, args: heard.append(args[0]))
    hidden = fresh.tower(pixels, fresh.read_block)[0]
    fresh.features(hidden, fresh.read_block)
    fresh.features(hidden + push, fresh.read_block)
    fresh.model.get_image_features(pixel_values=pixels)
    handle.remove()
    untouched, changed, whole = heard
    assert torch.equal(untouched, whole)
    assert torch.allclose(changed - untouched, push[None, 1:], atol=1e-5)


def test_hooks_are_gone_after_success_and_error(fresh: Llava) -> None:
    pixels = torch.randn(1, 3, 32, 32)
    projected(fresh, pixels)
    before = hooks_of(fresh.model)

    def fails(_output: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("in the edit")

    with pytest.raises(RuntimeError, match="in the edit"), edited(fresh.vision_blocks[0], fails):
        projected(fresh, pixels)
    assert hooks_of(fresh.model) == before
    with pytest.raises(ValueError), capture(fresh.vision_blocks[1], stop=True):
        raise ValueError
    assert hooks_of(fresh.model) == before
    fresh.tower(pixels, 1)
    assert hooks_of(fresh.model) == before


def test_stop_ends_the_pass_and_tuples_pass_through() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, str]:
            return x + 1, "rest"

    class Never(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("ran after the stop")

    pair, x = Pair(), torch.zeros(2)
    with capture(pair, stop=True) as seen:
        Never()(pair(x)[0])
    assert torch.equal(seen.output, x + 1)
    with edited(pair, lambda output: output * 10):
        changed, rest = pair(x)
    assert torch.equal(changed, torch.full((2,), 10.0)) and rest == "rest"
    with capture(pair) as unused:
        pass
    assert unused.output is None


class Adds(nn.Module):
    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states + self.amount


@pytest.mark.parametrize("named", [False, True])
def test_a_stack_goes_on_behind_a_block_and_up_to_the_last(named: bool) -> None:
    stack = [Adds(amount) for amount in (1, 10, 100, 1000)]
    stack[1].forward = stack[0].forward  # a module may have been given another already

    def run() -> float:
        state = torch.zeros(())
        for module in stack:
            state = module(hidden_states=state) if named else module(state)
        return float(state)

    five = torch.tensor(5.0)
    for block, last, expected in ((1, None, 1105), (1, 2, 105), (0, 1, 6), (0, 0, 5), (3, None, 5)):
        with resumed(stack, block, five, last):
            assert run() == expected
        assert run() == 1102
    with pytest.raises(RuntimeError, match="broken"), resumed(stack, 2, five):
        raise RuntimeError("broken")
    assert run() == 1102 and [list(module.__dict__).count("forward") for module in stack] == [0, 1, 0, 0]


@pytest.mark.parametrize("paired", [False, True])
def test_a_module_works_on_the_last_rows_only(paired: bool) -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor | tuple:
            seen.append(x.shape[-2])
            return (2 * x, "more") if paired else 2 * x

    seen: list[int] = []
    module, x = Twice(), torch.randn(1, 7, 3)
    with last_rows_only(module, 2):
        output = module(x)
    rows = output[0] if paired else output
    assert torch.equal(rows[:, -2:], 2 * x[:, -2:]) and not rows[:, :-2].any() and rows.shape == x.shape
    assert not paired or output[1] == "more"
    with last_rows_only(module, 9):
        module(x)
    module(x)
    assert seen == [2, 7, 7]
    with pytest.raises(RuntimeError, match="broken"), last_rows_only(module, 2):
        raise RuntimeError("broken")
    assert not module._forward_hooks and not module._forward_pre_hooks
