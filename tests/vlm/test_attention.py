"""Attention changed and watched: against eager attention written out, in pieces, and without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from copy import copy
from itertools import pairwise

import pytest
import torch
import transformers
from torch import nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from explorer.errors import ModelError
from explorer.vlm.attention import IMPLEMENTATION, changed_attention, self_attentions, watched_attention
from explorer.vlm.base import AttentionEdit

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, dict[str, object]] = {
    "Llama": {},
    "Qwen2": {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2},
    "Qwen3": {},
    "Mistral": {"sliding_window": 7},
    "Gemma": {},
    "Gemma2": {"sliding_window": 6, "attn_logit_softcapping": 2.0},
    "Gemma3": {"sliding_window": 6},
    "Phi3": {"sliding_window": 9},
}
LENGTH, IMAGE, LAST = 20, slice(3, 9), 12
EDITS = [
    AttentionEdit((1, 3), "answer", image_gain=0.7),
    AttentionEdit((0, 4), "text", image_factor=1.3, system_factor=0.8),
    AttentionEdit((2, 4), "text", image_gain=-0.5, image_factor=1.2, system_factor=0.5),
]


def make(family: str, attention: str = "sdpa") -> nn.Module:
    """A tiny language model of random weights whose logits, up to about 10, depend on its attention."""
    torch.manual_seed(3)
    sort = "Gemma3Text" if family == "Gemma3" else family
    config = getattr(transformers, f"{sort}Config")(**SIZES, **FAMILIES[family])
    config._attn_implementation = "eager" if family == "Gemma2" else attention
    return getattr(transformers, f"{family}ForCausalLM")(config).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return make(request.param)


@pytest.fixture(scope="module")
def llama() -> nn.Module:
    return make("Llama")


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(3, 50, (2, LENGTH), generator=torch.Generator().manual_seed(1))


def read(model: nn.Module, ids: torch.Tensor, cuts: list[int]) -> torch.Tensor:
    """Logits of passes over ids[cut:next cut], one after the other, through one cache."""
    past, logits = None, []
    for start, stop in pairwise(cuts):
        output = model(ids[:, start:stop], past_key_values=past, use_cache=True)
        past = output.past_key_values
        logits.append(output.logits)
    return torch.cat(logits, dim=1)


def traces(model: nn.Module) -> list[tuple[object, ...]]:
    """What could be left behind in any module."""
    return [
        (
            id(module.__dict__.get("config")),
            *(len(hooks) for name, hooks in sorted(vars(module).items()) if name.endswith("_hooks")),
        )
        for module in model.modules()
    ] + [(model.config._attn_implementation, sorted(vars(model.config)))]


# ---- what changes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", EDITS)
def test_one_pass_several_and_single_steps_agree(
    model: nn.Module, ids: torch.Tensor, edit: AttentionEdit
) -> None:
    plain = model(ids).logits
    with changed_attention(model.model, edit, IMAGE, LAST):
        whole = model(ids).logits
        for cuts in ([0, 14, 20], [0, 2, 5, 11, 17, 20], [0, LAST, 20], list(range(21))):
            assert torch.allclose(read(model, ids, cuts), whole, atol=1e-4)
    first = LAST if edit.rows == "answer" else IMAGE.stop
    assert torch.equal(whole[:, :first], plain[:, :first])
    changed = (whole - plain).abs().amax(dim=-1) > 1e-3
    assert changed[:, first].all()  # later on a sliding window may hide the picture
    assert changed[:, first:].all() or FAMILIES[type(model).__name__.removesuffix("ForCausalLM")]


def eager(model: nn.Module, ids: torch.Tensor, edit: AttentionEdit | None) -> torch.Tensor:
    """A llama written out, score by score."""
    base = model.model
    state = base.embed_tokens(ids[:1])
    length, size = ids.shape[1], base.config.head_dim
    cos, sin = base.rotary_emb(state, torch.arange(length)[None])
    for number, layer in enumerate(base.layers):
        normed, at = layer.input_layernorm(state), layer.self_attn
        query, key, value = (
            project(normed).view(1, length, -1, size).transpose(1, 2)
            for project in (at.q_proj, at.k_proj, at.v_proj)
        )
        query, key = (turned[0] for turned in apply_rotary_pos_emb(query, key, cos, sin))
        mixed = torch.zeros(length, query.shape[0], size)
        for head in range(query.shape[0]):
            group = head // 2
            for row in range(length):
                scores = [float(query[head, row] @ key[group, col]) / size**0.5 for col in range(row + 1)]
                asks = edit is not None and edit.layers[0] <= number < edit.layers[1]
                if asks and row >= (LAST if edit.rows == "answer" else IMAGE.stop):
                    for col, score in enumerate(scores):
                        if col < IMAGE.start:
                            scores[col] = score * edit.system_factor
                        elif col < IMAGE.stop:
                            scores[col] = (score + edit.image_gain * abs(score)) * edit.image_factor
                weights = torch.tensor(scores).softmax(0)
                mixed[row, head] = weights @ value[0, group, : row + 1]
        state = state + at.o_proj(mixed.view(1, length, -1))
        state = state + layer.mlp(layer.post_attention_layernorm(state))
    return model.lm_head(base.norm(state))


@pytest.mark.parametrize("edit", [None, *EDITS])
def test_against_attention_written_out(
    llama: nn.Module, ids: torch.Tensor, edit: AttentionEdit | None
) -> None:
    with changed_attention(llama.model, edit, IMAGE, LAST):
        assert torch.allclose(llama(ids[:1]).logits, eager(llama, ids, edit), atol=1e-4)


def test_an_edit_without_effect_changes_nothing(model: nn.Module, ids: torch.Tensor) -> None:
    plain = model(ids).logits
    for edit in (None, AttentionEdit((0, 4)), AttentionEdit((1, 2), "text")):
        with changed_attention(model.model, edit, IMAGE, LAST):
            assert torch.equal(model(ids).logits, plain)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", ["answer", "text"])
def test_rows_written_out_are_those_of_the_model(family: str, rows: str, ids: torch.Tensor) -> None:
    # A gain too small to count goes the whole way, and must come out as if nobody had been there.
    idle = AttentionEdit((0, 4), rows, image_gain=1e-30)
    padding = torch.ones_like(ids)
    padding[1, :2] = 0
    for attention, tolerance in (("eager", 0.0), ("sdpa", 2e-6)):
        model = make(family, attention)
        for mask in (None, padding):
            plain = model(ids, attention_mask=mask).logits
            with changed_attention(model.model, idle, IMAGE, LAST):
                found = model(ids, attention_mask=mask).logits
            assert float((found - plain).abs().max()) <= tolerance * float(plain.abs().max())


def test_rows_written_out_are_no_coarser_in_half_precision(ids: torch.Tensor) -> None:
    model = make("Llama")
    exact = model(ids).logits
    for kind in (torch.bfloat16, torch.float16):
        model = make("Llama").to(kind)
        plain = model(ids).logits
        with changed_attention(model.model, AttentionEdit((0, 4), "text", 1e-30), IMAGE, LAST):
            found = model(ids).logits
        assert found.dtype == kind
        assert float((found - exact).abs().mean()) < 1.2 * float((plain - exact).abs().mean())


def test_eager_and_sdpa_are_changed_alike(ids: torch.Tensor) -> None:
    for edit in EDITS:
        found = []
        for attention in ("eager", "sdpa"):
            model = make("Llama", attention)
            with changed_attention(model.model, edit, IMAGE, LAST):
                found.append(model(ids).logits)
        assert torch.allclose(*found, atol=1e-5)


def test_layers_before_the_first_are_untouched(model: nn.Module, ids: torch.Tensor) -> None:
    plain = model(ids, output_hidden_states=True).hidden_states
    for first in range(4):
        edit = AttentionEdit((first, first + 1), "text", image_gain=0.5)
        with changed_attention(model.model, edit, IMAGE, LAST):
            found = model(ids, output_hidden_states=True).hidden_states
        same = [torch.equal(a, b) for a, b in zip(plain, found, strict=True)]
        assert same == [True] * (first + 1) + [False] * (4 - first)


def test_the_layers_after_the_last_do_as_always(llama: nn.Module, ids: torch.Tensor) -> None:
    with changed_attention(llama.model, AttentionEdit((0, 2), "text", 0.5), IMAGE, LAST):
        states = llama(ids, output_hidden_states=True).hidden_states
    places = torch.arange(LENGTH)[None]
    rotary = llama.model.rotary_emb(states[2], places)
    after = llama.model.layers[2](states[2], position_embeddings=rotary, position_ids=places)
    assert torch.equal(after, states[3])


def test_a_gain_turns_every_head_to_the_picture(model: nn.Module, ids: torch.Tensor) -> None:
    def shares() -> list[torch.Tensor]:
        found: list[torch.Tensor] = []

        def seen(weights: torch.Tensor, origin: int) -> None:
            start, stop = max(0, IMAGE.start - origin), max(0, IMAGE.stop - origin)
            found.append(weights[..., start:stop].sum(-1))

        with watched_attention(model.model, (0, 1), LAST, seen):
            model(ids)
        return found

    before = shares()[0]
    with changed_attention(model.model, AttentionEdit((0, 1), image_gain=0.4), IMAGE, LAST):
        after = shares()[0]
    assert before.shape == (2, 4, LENGTH - LAST)
    here = before > 1e-6  # a sliding window may hide the picture
    assert here.any() and (after[here] > before[here]).all()


def test_edits_within_edits_come_one_after_the_other(llama: nn.Module, ids: torch.Tensor) -> None:
    with changed_attention(llama.model, AttentionEdit((1, 3), "text", image_factor=1.8), IMAGE, LAST):
        once = llama(ids).logits
    outer, inner = (AttentionEdit((1, 3), "text", image_factor=f) for f in (1.2, 1.5))
    with changed_attention(llama.model, outer, IMAGE, LAST):
        alone = llama(ids).logits
        with changed_attention(llama.model, inner, IMAGE, LAST):
            assert torch.allclose(llama(ids).logits, once, atol=1e-4)
        assert torch.equal(llama(ids).logits, alone)
    assert not torch.allclose(alone, once, atol=1e-2)


def test_edits_of_other_rows_and_layers_within_one_another(llama: nn.Module, ids: torch.Tensor) -> None:
    answer, text = AttentionEdit((0, 3), "answer", 0.6), AttentionEdit((2, 4), "text", image_factor=1.4)
    found = []
    for pair in ((answer, text), (text, answer)):
        with ExitStack() as stack:
            for edit in pair:
                stack.enter_context(changed_attention(llama.model, edit, IMAGE, LAST))
            found.append(llama(ids).logits)
    assert torch.allclose(*found, atol=1e-4)
    with changed_attention(llama.model, text, IMAGE, LAST):
        assert torch.equal(found[0][:, :LAST], llama(ids).logits[:, :LAST])


# ---- weights watched -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_heard_are_those_of_eager_attention(family: str, ids: torch.Tensor) -> None:
    model = make(family)
    plain = model(ids).logits
    theirs = make(family, "eager")(ids, output_attentions=True).attentions
    for first in (0, 7):
        heard: list[torch.Tensor] = []
        with watched_attention(model.model, (1, 4), first, lambda weights, origin: heard.append(weights)):  # noqa: B023
            assert torch.equal(model(ids).logits, plain), "watching changes nothing"
        assert len(heard) == 3
        for mine, full in zip(heard, theirs[1:], strict=True):
            assert torch.allclose(mine, full[:, :, first:], atol=1e-5)


def test_weights_of_changed_attention_are_given_back_by_eager_models(ids: torch.Tensor) -> None:
    model, heard = make("Llama", "eager"), []
    edit = AttentionEdit((0, 4), "text", 0.5)
    with (
        changed_attention(model.model, edit, IMAGE, LAST),
        watched_attention(model.model, None, 0, lambda weights, origin: heard.append(weights)),
    ):
        given = model(ids, output_attentions=True).attentions
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(heard, given, strict=True))


# ---- no trace --------------------------------------------------------------------------------------------


def errors_within(model: nn.Module, ids: torch.Tensor) -> Iterator[None]:
    """Everything that may go wrong inside of the `with`, one after the other."""
    edit = EDITS[2]
    with pytest.raises(ZeroDivisionError), changed_attention(model.model, edit, IMAGE, LAST):
        raise ZeroDivisionError
    yield
    with pytest.raises(IndexError), changed_attention(model.model, edit, IMAGE, LAST):
        model(ids + 1000)
    yield
    handle = model.model.layers[3].mlp.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), changed_attention(model.model, edit, IMAGE, LAST):
        model(ids)
    handle.remove()
    yield

    def seen(weights: torch.Tensor, origin: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watched_attention(model.model, None, 0, seen):
        model(ids)
    yield


def test_nothing_is_left_behind(model: nn.Module, ids: torch.Tensor) -> None:
    model(ids)
    before, plain = traces(model), model(ids).logits
    for edit in EDITS:
        with changed_attention(model.model, edit, IMAGE, LAST):
            assert model.config._attn_implementation != IMPLEMENTATION
            assert traces(model) != before
            model(ids)
        assert traces(model) == before
    for _ in errors_within(model, ids):
        assert traces(model) == before
    with changed_attention(model.model, EDITS[0], IMAGE, LAST):
        with pytest.raises(ZeroDivisionError), changed_attention(model.model, EDITS[1], IMAGE, LAST):
            raise ZeroDivisionError
        model(ids)
    assert traces(model) == before and torch.equal(model(ids).logits, plain)


def test_the_order_of_leaving_does_not_matter(llama: nn.Module, ids: torch.Tensor) -> None:
    llama(ids)
    before = traces(llama)
    outer = changed_attention(llama.model, EDITS[0], IMAGE, LAST)
    inner = changed_attention(llama.model, EDITS[1], IMAGE, LAST)
    outer.__enter__(), inner.__enter__()
    outer.__exit__(None, None, None)
    with_inner = llama(ids).logits
    inner.__exit__(None, None, None)
    assert traces(llama) == before
    with changed_attention(llama.model, EDITS[1], IMAGE, LAST):
        assert torch.equal(llama(ids).logits, with_inner)


# ---- what is refused -------------------------------------------------------------------------------------


def test_layers_that_the_model_has_not_are_refused(llama: nn.Module) -> None:
    before = traces(llama)
    for layers in ((2, 5), (4, 6), (0, 32)):
        with (
            pytest.raises(ModelError, match=f"layers {layers[0]} to {layers[1]} .* has 4: .* at most 4"),
            changed_attention(llama.model, AttentionEdit(layers), IMAGE, LAST),
        ):
            pass
        with pytest.raises(ModelError, match="the language model has 4"):
            self_attentions(llama, layers)
    for layers in ((-1, 2), (2, 2)):
        with pytest.raises(ModelError, match="the language model has 4"):
            self_attentions(llama, layers)
    assert traces(llama) == before


def test_edits_without_a_picture_are_refused(llama: nn.Module) -> None:
    for image, last in ((slice(0, 0), 5), (slice(3, 9), 8), (slice(-2, 4), 8)):
        with (
            pytest.raises(ModelError, match="needs a picture"),
            changed_attention(llama.model, EDITS[0], image, last),
        ):
            pass


def test_models_of_another_make_are_refused(llama: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="Linear can be neither changed nor watched"):
        self_attentions(nn.Linear(2, 2), None)
    with monkeypatch.context() as patch:
        patch.setattr(llama.model.layers[2].self_attn, "sinks", torch.zeros(4), raising=False)
        with pytest.raises(ModelError, match="LlamaModel can be neither changed nor watched"):
            self_attentions(llama.model, None)
    other = copy(llama.config)
    other._attn_implementation_internal = "flash_attention_2"
    monkeypatch.setattr(llama.model.layers[0].self_attn, "config", other)
    with pytest.raises(ModelError, match=r"with 'flash_attention_2' .* one of sdpa, eager"):
        self_attentions(llama, None)
