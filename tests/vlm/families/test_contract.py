"""What every family must do: looked at, edited, answered, measured; on small models of random weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from explorer.errors import ModelError
from explorer.records import Edit
from explorer.sae import SAE, ActivationRule
from explorer.session import Session
from explorer.steer import Contrast, Decoding
from explorer.vlm.adapter import Adapter
from explorer.vlm.base import Asked, Prepared
from explorer.vlm.hooks import edited
from explorer.vlm.memory import Memory
from tests.vlm.families.made import Made, made, names

PROMPT = "What is it?"
SIZES = ((64, 64), (150, 70), (60, 130))


@pytest.fixture(scope="module", params=names())
def one(request: pytest.FixtureRequest) -> Made:
    return made(request.param)


def picture(seed: int = 0, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A picture of large soft blots."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def seen(lvlm: Adapter, image: Image.Image, block: int) -> tuple[Prepared, torch.Tensor]:
    """The picture prepared, and the output [tokens, d] of a block."""
    prepared = lvlm.preprocess(image)
    return prepared, lvlm.tower(prepared.pixel_values, block, prepared)[0]


def blocks(lvlm: Adapter) -> list[int]:
    """The first, one in the middle, and the last that matters."""
    return sorted({0, lvlm.read_block // 2, lvlm.read_block})


@contextmanager
def counted(lvlm: Adapter) -> Iterator[list[int]]:
    """The numbers of the tower's blocks that run meanwhile."""
    ran: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, block in enumerate(lvlm.vision_blocks)
    ]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def last_text(lvlm: Adapter, asked: list[Asked], memory: Memory | None = None, longest: int = 8) -> str:
    *_, step = lvlm.decode(asked, longest, None, memory)
    return step.text


# ---- looking ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_the_tower_gives_what_is_announced(one: Made, size: tuple[int, int]) -> None:
    lvlm = one.lvlm
    for block in blocks(lvlm):
        prepared, hidden = seen(lvlm, picture(1, size), block)
        assert hidden.shape == (prepared.tokens, lvlm.width(block)) and torch.isfinite(hidden).all()
        grid = prepared.grid
        assert prepared.patches(hidden).shape == (grid.rows * grid.cols, lvlm.width(block))
        assert (grid.width, grid.height) == size
        for scale in prepared.scales:
            assert scale.places.shape == (scale.grid.rows * scale.grid.cols,)
            assert 0 <= int(scale.places.min()) and int(scale.places.max()) < prepared.tokens


def embeddings(lvlm: Adapter, image: Image.Image) -> tuple[Prepared, torch.Tensor]:
    """The picture prepared, and what the first block is given, [tokens, d]: nothing is mixed yet."""
    prepared, kept = lvlm.preprocess(image), []

    def keep(module: object, args: tuple, kwargs: dict) -> None:
        kept.append(args[0] if args else kwargs["hidden_states"])

    handle = lvlm.vision_blocks[0].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        lvlm.tower(prepared.pixel_values, 0, prepared)
    finally:
        handle.remove()
    return prepared, lvlm._from_block(kept[0], prepared)[0]


@pytest.mark.parametrize("size", SIZES)
def test_painting_a_patch_moves_that_patch(one: Made, size: tuple[int, int]) -> None:
    """Paint where a patch is said to be: it must change more than any other, at every scale."""
    plain = Image.new("RGB", size, (120, 120, 120))
    prepared, before = embeddings(one.lvlm, plain)
    whole = [(prepared.grid, None), *((scale.grid, scale.places) for scale in prepared.scales)]
    for grid, places in whole:
        cells = {(0, 0), (grid.rows - 1, 0), (grid.rows // 2, grid.cols // 3), (0, grid.cols - 1)}
        tried = 0
        for row, col in sorted(cells):
            left, top, right, bottom = grid.box_of(row, col)
            if left < 0 or top < 0 or right > size[0] or bottom > size[1]:
                continue  # it lies in a margin that the processor adds
            painted = np.asarray(plain).copy()
            painted[round(top) : max(round(bottom), round(top) + 1), round(left) : round(right)] = (
                250,
                30,
                60,
            )
            _, after = embeddings(one.lvlm, Image.fromarray(painted))
            apart = (after - before).norm(dim=-1)
            moved = prepared.patches(apart[:, None])[:, 0] if places is None else apart[places]
            assert int(moved.argmax()) == row * grid.cols + col, f"{size} {grid.rows}x{grid.cols} {row},{col}"
            tried += 1
        assert tried or size != SIZES[0]


def test_pictures_of_the_fixed_form_are_alike(one: Made) -> None:
    lvlm = one.lvlm
    ready = [lvlm.preprocess(picture(2, size), fixed=True) for size in SIZES]
    assert all(other.alike(ready[0]) for other in ready)
    pixels = torch.cat([single.pixel_values for single in ready])
    together = lvlm.tower(pixels, lvlm.read_block, ready[0].form())
    for single, hidden in zip(ready, together, strict=True):
        alone = lvlm.tower(single.pixel_values, lvlm.read_block, single)[0]
        torch.testing.assert_close(hidden, alone, atol=2e-4, rtol=2e-4)


def test_blocks_that_cannot_matter_are_refused(one: Made) -> None:
    lvlm = one.lvlm
    for block in (-1, lvlm.block_count, *range(lvlm.read_block + 1, lvlm.block_count)):
        with pytest.raises(ModelError, match=f"block {block}"):
            lvlm.width(block)


def test_later_blocks_do_not_run_for_the_tower_nor_earlier_ones_for_the_features(one: Made) -> None:
    lvlm, block = one.lvlm, one.lvlm.read_block // 2
    prepared, hidden = seen(lvlm, picture(), block)
    with counted(lvlm) as ran:
        lvlm.tower(prepared.pixel_values, block, prepared)
    assert max(ran) <= block
    with pytest.MonkeyPatch.context() as patched:
        ran = []
        for number, module in enumerate(lvlm.vision_blocks):
            first = next(child for child in module.children() if any(True for _ in child.parameters()))
            forward = first.forward
            patched.setattr(
                first, "forward", lambda *a, _f=forward, _n=number, **k: ran.append(_n) or _f(*a, **k)
            )
        lvlm.features(hidden, block, prepared)
    assert set(ran) <= set(range(block + 1, lvlm.read_block + 1))


# ---- answering -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_without_edits_the_answer_is_the_models_own(one: Made, size: tuple[int, int]) -> None:
    lvlm, texts = one.lvlm, set()
    for seed in (0, 1):
        plain = lvlm.answer_plain(picture(seed, size), PROMPT, 8)
        for block in blocks(lvlm):
            prepared, hidden = seen(lvlm, picture(seed, size), block)
            ready = lvlm.features(hidden, block, prepared)
            assert lvlm.generate(ready, PROMPT, 8, prepared) == plain
        texts.add(plain)
    assert len(texts) == 2, "the text does not depend on the picture, so this shows nothing"


def test_an_edit_does_what_a_hook_in_the_model_does(one: Made) -> None:
    lvlm, changed = one.lvlm, 0
    for block in blocks(lvlm):
        prepared, hidden = seen(lvlm, picture(3), block)
        push = 3 * hidden.std() * torch.randn(hidden.shape[-1], generator=torch.Generator().manual_seed(1))
        moved = prepared.put(hidden, prepared.patches(hidden) + push)
        for scale in prepared.scales:
            moved[scale.places] = hidden[scale.places] + push
        ready = lvlm.features(moved, block, prepared)
        text = lvlm.generate(ready, PROMPT, 8, prepared)

        def instead(output: torch.Tensor) -> torch.Tensor:
            own = lvlm._from_block(output, prepared)  # noqa: B023
            return lvlm._to_block(own - own + moved, prepared)  # noqa: B023

        with edited(lvlm.vision_blocks[block], instead):
            assert lvlm.answer_plain(picture(3), PROMPT, 8) == text
        calm = lvlm.next_words(lvlm.features(hidden, block, prepared)[None], PROMPT, "the cat", prepared)
        pushed = lvlm.next_words(ready[None], PROMPT, "the cat", prepared)
        assert float((calm - pushed).abs().max()) > 1e-3, "the edit does not reach the text"
        changed += text != lvlm.answer_plain(picture(3), PROMPT, 8)
    assert changed, "no edit changes the text"


def test_no_block_of_the_tower_runs_while_it_answers(one: Made) -> None:
    lvlm = one.lvlm
    prepared, hidden = seen(lvlm, picture(), lvlm.read_block)
    ready = lvlm.features(hidden, lvlm.read_block, prepared)
    with counted(lvlm) as ran:
        steps = list(lvlm.decode([Asked(PROMPT, ready, like=prepared)], 6))
    lengths = [len(step.tokens) for step in steps]
    assert not ran and lengths[-1] == 6 and len(lengths) > 1 and lengths == sorted(set(lengths))


def test_an_answer_can_be_left_in_the_middle(one: Made) -> None:
    lvlm = one.lvlm
    prepared, hidden = seen(lvlm, picture(), lvlm.read_block)
    asked, memory = [Asked(PROMPT, lvlm.features(hidden, lvlm.read_block, prepared), like=prepared)], Memory()
    steps = lvlm.decode(asked, 8, None, memory)
    next(steps)
    next(steps)
    steps.close()
    assert last_text(lvlm, asked, memory) == last_text(lvlm, asked)


def test_what_is_remembered_and_drafted_never_changes_an_answer(one: Made) -> None:
    lvlm, memory, block = one.lvlm, Memory(), one.lvlm.read_block
    prepared, hidden = seen(lvlm, picture(4), block)
    draw = torch.Generator().manual_seed(2)
    for move in range(6):
        strength = (0.0, 0.02, 0.5, 0.5, 2.0, 0.0)[move]
        pushed = hidden + strength * hidden.std() * torch.randn(hidden.shape, generator=draw)
        for prompt in (PROMPT, "the red cat"):
            asked = [Asked(prompt, lvlm.features(pushed, block, prepared), like=prepared)]
            *_, quick = lvlm.decode(asked, 8, None, memory)
            *_, slow = lvlm.decode(asked, 8)
            assert quick.tokens == slow.tokens
    assert quick.passes < slow.passes, "nothing of earlier answers was used"


def test_several_branches(one: Made) -> None:
    """Contrast with a noisy picture and with none; equal branches change nothing."""
    lvlm, block = one.lvlm, one.lvlm.read_block
    prepared, hidden = seen(lvlm, picture(5), block)
    ready = lvlm.features(hidden, block, prepared)
    noise = lvlm.features(hidden + hidden.std() * torch.randn(hidden.shape), block, prepared)
    plain = last_text(lvlm, [Asked(PROMPT, ready, like=prepared)])
    for other in (ready, noise, None):
        asked = [Asked(PROMPT, ready, like=prepared), Asked(PROMPT, other, like=prepared)]
        *_, step = lvlm.decode(asked, 8, lambda scores, place: int((2 * scores[0] - scores[1]).argmax()))
        assert len(step.tokens) == 8 and (other is not ready or step.text == plain)


def test_several_pictures_at_once(one: Made) -> None:
    lvlm, block = one.lvlm, one.lvlm.read_block
    prepared, hidden = seen(lvlm, picture(6), block)
    pushed = [hidden, hidden + hidden.std(), -hidden]
    ready = lvlm.features(torch.stack(pushed), block, prepared)
    alone = [lvlm.generate(lvlm.features(h, block, prepared), PROMPT, 6, prepared) for h in pushed]
    assert lvlm.generate_many(ready, PROMPT, 6, prepared) == alone and len(set(alone)) > 1


def test_prompts_that_do_not_fit_are_refused(one: Made) -> None:
    lvlm = one.lvlm
    prepared, hidden = seen(lvlm, picture(), lvlm.read_block)
    ready = lvlm.features(hidden, lvlm.read_block, prepared)
    with pytest.raises(ModelError, match="too long"):
        lvlm.generate(ready, PROMPT, 10_000_000, prepared)
    with pytest.raises(ModelError, match="stands for the picture"):
        lvlm.generate(ready, f"what {lvlm.processor.image_token} ?", 4, prepared)


# ---- measuring -------------------------------------------------------------------------------------------


def test_next_words_are_those_of_the_answer(one: Made) -> None:
    """Read in one pass, the greedy answer is the likeliest at each of its places."""
    lvlm, block = one.lvlm, one.lvlm.read_block
    prepared, hidden = seen(lvlm, picture(7), block)
    ready = lvlm.features(hidden, block, prepared)
    *_, step = lvlm.decode([Asked(PROMPT, ready, like=prepared)], 6)
    if tuple(lvlm.answer_tokens(step.text)) != step.tokens:
        pytest.fail("this random model writes what its tokenizer does not read back; change its seed")
    likely = lvlm.next_words(ready[None], PROMPT, step.text, prepared)[0]
    assert likely.shape[0] == 7 and likely[:-1].argmax(-1).tolist() == list(step.tokens)
    torch.testing.assert_close(likely.exp().sum(-1), torch.ones(7), atol=1e-4, rtol=0)


def test_gradients_are_slopes(one: Made) -> None:
    lvlm, block, answer = one.lvlm, one.lvlm.read_block // 2, "the red cat"
    prepared, hidden = seen(lvlm, picture(8), block)
    words = lvlm.answer_words(answer)
    if "attribution" in one.refuses:
        with pytest.raises(ModelError):
            lvlm.word_gradients(hidden, block, PROMPT, answer, words, prepared)
        return
    found = lvlm.word_gradients(hidden, block, PROMPT, answer, words, prepared)
    assert found.gradients.shape == (3, *hidden.shape) and len(words) == 3
    push = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3))
    push *= 2e-3 * hidden.norm() / push.norm()
    ends = [
        lvlm.word_gradients(hidden + sign * push, block, PROMPT, answer, words, prepared).log_probs
        for sign in (-1, 1)
    ]
    slopes = (found.gradients * push).sum((1, 2))
    torch.testing.assert_close(slopes, (ends[1] - ends[0]) / 2, atol=2e-3, rtol=0.1)
    assert float(slopes.abs().max()) > 1e-4


def test_attention_lies_over_the_patches(one: Made) -> None:
    lvlm, block, answer = one.lvlm, one.lvlm.read_block, "the red cat"
    prepared, hidden = seen(lvlm, picture(9), block)
    ready, words = lvlm.features(hidden, block, prepared), lvlm.answer_words(answer)
    assert lvlm.has_places == ("attention" not in one.refuses)
    if "attention" in one.refuses:
        with pytest.raises(ModelError):
            lvlm.word_attention(ready, PROMPT, answer, words, None, prepared)
        return
    looked = lvlm.word_attention(ready, PROMPT, answer, words, None, prepared)
    assert looked.shape == (3, prepared.grid.rows * prepared.grid.cols)
    assert (
        float(looked.min()) >= 0 and bool((looked.sum(1) <= 1.001).all()) and bool((looked.sum(1) > 0).all())
    )


def test_words_and_the_unembedding(one: Made) -> None:
    lvlm, vocabulary = one.lvlm, one.lvlm.model.get_output_embeddings().weight.shape[0]
    words = lvlm.words()
    assert len(words) == vocabulary and any(words)
    vectors = torch.randn(3, int(lvlm.model.config.get_text_config().hidden_size))
    assert lvlm.unembed(vectors).shape == (3, vocabulary)
    if "alone" in one.refuses:
        with pytest.raises(ModelError):
            lvlm.alone(torch.randn(2, lvlm.width(0)), lvlm.read_block)
        return
    assert lvlm.alone(torch.randn(2, lvlm.width(0)), lvlm.read_block).shape == (2, vectors.shape[1])


def test_the_smallest_picture_can_be_made_up(one: Made) -> None:
    """As the index asks about neurons: a picture of one patch vector everywhere, described and read again."""
    lvlm, block = one.lvlm, one.lvlm.read_block
    like = lvlm.canvas(16)
    hidden = torch.randn(lvlm.width(block)).repeat(2, like.tokens, 1)
    ready = lvlm.features(like.put(hidden, like.patches(hidden) + 1), block, like)
    assert torch.isfinite(ready).all()
    text = lvlm.generate(ready[0], PROMPT, 4, like)
    assert torch.isfinite(lvlm.next_words(ready, PROMPT, text, like)).all()


# ---- the session above -----------------------------------------------------------------------------------


def test_a_session_looks_steers_and_contrasts(one: Made) -> None:
    lvlm, block = one.lvlm, one.lvlm.read_block
    width = lvlm.width(block)
    draw = torch.Generator().manual_seed(4)
    rows = torch.nn.functional.normalize(torch.randn(4 * width, width, generator=draw), dim=1)
    sae = SAE(rows.T.clone(), torch.zeros(4 * width), rows, torch.zeros(width), ActivationRule("topk", k=8))
    session = Session(lvlm, sae.eval().requires_grad_(False))
    view = session.look(picture(10, (150, 70)))
    plain = session.answer(view, PROMPT, max_new_tokens=8)
    assert plain == lvlm.answer_plain(picture(10, (150, 70)), PROMPT, 8)
    assert session.answer(view, PROMPT, [Edit(0, 1.0, "scale")], max_new_tokens=8) == plain
    neuron = view.top(1)[0].neuron
    strong = [Edit(neuron, 60.0 * float(view.hidden.std()))]
    moved = session.steered(view, strong).hidden
    assert bool((view.prepared.patches(moved - view.hidden).norm(dim=1) > 0).all())
    for scale in view.prepared.scales:
        assert bool(((moved - view.hidden)[scale.places].norm(dim=1) > 0).all()), "a scale was left out"
    mask = np.zeros((view.grid.rows, view.grid.cols), bool)
    mask[0, 0] = True
    there = session.steered(view, [Edit(neuron, 9.0, "add", mask)]).hidden - view.hidden
    assert int((view.prepared.patches(there).norm(dim=1) > 0).sum()) == 1
    calm = Contrast(step=500, seed=1, suppress_always_on=False)
    assert session.answer(view, PROMPT, contrast=calm, max_new_tokens=4)
    assert session.answer(view, PROMPT, strong, decoding=Decoding("vcd"), max_new_tokens=4)
    assert session.answer(view, PROMPT, strong, max_new_tokens=8) != plain
