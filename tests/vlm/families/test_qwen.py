"""What is special about Qwen2-VL and its successors: grids, blocks, windows, frames, positions, taps."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from explorer.errors import ModelError
from explorer.records import Box
from explorer.steer.noise import noisy_pixels
from explorer.vlm.adapter import Question
from explorer.vlm.attention import changed_attention
from explorer.vlm.base import Asked, AttentionEdit, Prepared
from explorer.vlm.families.qwen import Qwen
from explorer.vlm.families.qwen3 import Qwen3VL
from explorer.vlm.memory import Memory
from explorer.vlm.text import along
from tests.vlm.families.made import made, names
from tests.vlm.families.made_qwen import OLD, qwen2, qwen2_5
from tests.vlm.families.test_contract import PROMPT, picture, seen

NAMES = [name for name in names() if name.startswith("qwen/")]
TAPPED = ["qwen/qwen3", "qwen/qwen3_experts"]


@pytest.fixture(params=NAMES)
def lvlm(request: pytest.FixtureRequest) -> Qwen:
    return made(request.param).lvlm


# ---- grids -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen/qwen2_5", "qwen/qwen3"])
def test_grids_of_many_sizes_are_the_processors(name: str) -> None:
    lvlm = made(name).lvlm
    images, draw = lvlm.processor.image_processor, torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 400, (40, 2), generator=draw).tolist()
    for width, height in [*sizes, (1, 1), (1, 90), (1000, 12), (28, 28), (640, 480), (42, 70)]:
        prepared = lvlm.preprocess(Image.new("RGB", (width, height)))
        grid, step = prepared.grid, images.patch_size * 2
        limits = images.size["shortest_edge"], images.size["longest_edge"]
        tall, wide = smart_resize(height, width, step, *limits)
        assert (grid.rows, grid.cols) == (tall // images.patch_size, wide // images.patch_size)
        assert (grid.width, grid.height, grid.covered) == (width, height, Box(0, 0, width, height))
        assert prepared.pixel_values.shape[1] == grid.rows * grid.cols
        assert sorted(prepared.places.tolist()) == list(range(grid.rows * grid.cols))
        assert prepared.inputs["image_grid_thw"].tolist() == [[1, grid.rows, grid.cols]]


def in_order(rows: int, cols: int, window: int | None) -> list[tuple[int, int]]:
    """Row and column of each of the tower's tokens: 2 x 2 patches at a time, windows of so many patches."""
    length = window or max(rows, cols)
    return [
        (row + y, col + x)
        for top in range(0, rows, length)
        for left in range(0, cols, length)
        for row in range(top, min(top + length, rows), 2)
        for col in range(left, min(left + length, cols), 2)
        for y in (0, 1)
        for x in (0, 1)
    ]


@pytest.mark.parametrize("size", [(56, 56), (448, 448), (500, 130), (90, 777)])
def test_tokens_stand_in_blocks_and_windows(lvlm: Qwen, size: tuple[int, int]) -> None:
    prepared = lvlm.preprocess(Image.new("RGB", size))
    rows, cols = prepared.grid.rows, prepared.grid.cols
    tokens = in_order(rows, cols, 8 if lvlm.family == "qwen2_5_vl" else None)
    assert [tokens[place] for place in prepared.places.tolist()] == [
        (row, col) for row in range(rows) for col in range(cols)
    ]


def test_settings_of_the_processor_limit_the_free_form_and_the_fixed_one() -> None:
    small = {**OLD, "min_pixels": 40 * 28 * 28, "max_pixels": 90 * 28 * 28}
    lvlm = qwen2(small)
    for size in ((4000, 3000), (3000, 700), (20, 30), (250, 250)):
        grid = lvlm.preprocess(Image.new("RGB", size)).grid
        assert 40 * 4 <= grid.rows * grid.cols <= 90 * 4, size
    assert lvlm.preprocessing == "squash to 252 x 252; Qwen2VLImageProcessorPil"
    grid = lvlm.preprocess(Image.new("RGB", (300, 100)), fixed=True).grid
    assert (grid.rows, grid.cols, grid.covered) == (18, 18, Box(0, 0, 300, 100))
    least = qwen2({**OLD, "min_pixels": 500 * 500})
    assert least.preprocess(Image.new("RGB", (300, 100)), fixed=True).grid.rows == 36


def test_the_fixed_form_is_one_square(lvlm: Qwen) -> None:
    patch = lvlm.processor.image_processor.patch_size
    for size in ((640, 480), (30, 200)):
        grid = lvlm.preprocess(Image.new("RGB", size), fixed=True).grid
        assert (grid.rows, grid.cols, grid.covered) == (448 // patch, 448 // patch, Box(0, 0, *size))
    assert lvlm.preprocessing == "squash to 448 x 448; Qwen2VLImageProcessorPil"


def test_a_picture_of_the_fixed_size_is_read_alike_either_way(lvlm: Qwen) -> None:
    """What the model itself does to such a picture is what the fixed form does."""
    image = picture(1, (448, 448))
    free, fixed = lvlm.preprocess(image), lvlm.preprocess(image, fixed=True)
    assert free.alike(fixed) and torch.equal(free.pixel_values, fixed.pixel_values)


def test_pictures_that_will_not_do_are_refused(lvlm: Qwen) -> None:
    with pytest.raises(ModelError, match=r"3 x 700 will not do.*aspect ratio"):
        lvlm.preprocess(Image.new("RGB", (3, 700)))
    prepared, hidden = seen(lvlm, picture(), 0)
    for ask in (
        lambda: lvlm.tower(prepared.pixel_values, 0),
        lambda: lvlm.features(hidden, 0),
        lambda: lvlm.generate(lvlm.features(hidden, 0, prepared), PROMPT, 2),
    ):
        with pytest.raises(ModelError, match="how the picture was prepared"):
            ask()


def test_an_image_processor_of_another_model_is_refused() -> None:
    with pytest.raises(ModelError, match=r"patches of 14 pixels.*makes \(16, 2, 2\)"):
        qwen2_5({**OLD, "patch_size": 16})


# ---- pixels ----------------------------------------------------------------------------------------------


def test_both_frames_get_the_same_noise(lvlm: Qwen) -> None:
    prepared = lvlm.preprocess(picture(2))
    clean = prepared.pixel_values
    assert torch.equal(lvlm.tied(clean), clean), "a picture is alike in both frames"
    noisy = noisy_pixels(clean, 999, 5, lvlm.tied)
    assert torch.equal(lvlm.tied(noisy), noisy) and abs(float(noisy.std()) - 1) < 0.05
    other = noisy_pixels(clean, 999, 5)
    assert not torch.equal(lvlm.tied(other), other)


def test_the_features_of_every_block_are_the_models_own(lvlm: Qwen) -> None:
    """Resumed behind whichever block, windows and taps included, to the bit."""
    prepared = lvlm.preprocess(picture(3, (300, 150)))
    inputs = prepared.pixel_values[0], prepared.inputs["image_grid_thw"]
    with torch.no_grad():
        found = lvlm.model.model.get_image_features(*inputs, return_dict=True)
    parts = [found.pooler_output[0], *(part[0] for part in getattr(found, "deepstack_features", []))]
    for block in range(lvlm.block_count):
        hidden = lvlm.tower(prepared.pixel_values, block, prepared)
        assert torch.equal(lvlm.features(hidden, block, prepared)[0], torch.cat(parts, dim=-1)), block


def test_pixels_are_not_embedded_again_when_a_block_is_changed(
    lvlm: Qwen, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, hidden = seen(lvlm, picture(), 2)
    calm = lvlm.features(hidden, 2, prepared)

    def fail(*_: object) -> None:
        pytest.fail("the pixels were embedded")

    with monkeypatch.context() as patched:
        patched.setattr(lvlm.model.model.visual.patch_embed.proj, "forward", fail)
        assert torch.equal(lvlm.features(hidden, 2, prepared), calm)
    assert torch.equal(lvlm.tower(prepared.pixel_values, 2, prepared)[0], hidden), "nothing was left behind"


def test_attention_to_a_feature_lies_on_its_four_patches(lvlm: Qwen) -> None:
    """A patch is changed; the feature that changes with it must lie on that patch, and on its block."""
    prepared, hidden = seen(lvlm, picture(4, (400, 260)), lvlm.read_block)
    calm = lvlm.features(hidden, lvlm.read_block, prepared)
    grid = prepared.grid
    for row, col in ((0, 0), (3, grid.cols - 2), (grid.rows - 1, 5), (grid.rows - 2, grid.cols - 1)):
        moved = hidden.clone()
        moved[prepared.places[row * grid.cols + col]] += 1.0
        changed = (lvlm.features(moved, lvlm.read_block, prepared) - calm).norm(dim=1) > 0
        assert int(changed.sum()) == 1
        laid = lvlm._over_patches(changed[None].float(), prepared)[0].reshape(grid.rows, grid.cols)
        top, left = row // 2 * 2, col // 2 * 2
        assert float(laid[top : top + 2, left : left + 2].sum()) == float(laid.sum()) == 1.0
        assert float(laid[row, col]) == 0.25


# ---- the language side -----------------------------------------------------------------------------------


def test_positions_have_three_axes(lvlm: Qwen) -> None:
    """Counted by hand: text one by one, a picture's time stands still, all go on from the highest."""
    prepared = lvlm.preprocess(picture(5, (448, 128)))
    rows, cols = prepared.grid.rows // 2, prepared.grid.cols // 2
    ids = lvlm._ids(Question(PROMPT), rows * cols, 4, prepared)
    start = int((ids == lvlm.model.config.image_token_id).nonzero()[0])
    expected = [(place,) * 3 for place in range(start)]
    expected += [(start, start + row, start + col) for row in range(rows) for col in range(cols)]
    first = start + max(rows, cols)
    expected += [(first + i,) * 3 for i in range(len(ids) - len(expected))]
    found = lvlm._positions(ids, prepared)
    assert [tuple(place) for place in found.T.tolist()] == expected
    assert lvlm._positions(lvlm._ids(Question(PROMPT, "", False), 0, 4, None), None) is None


def test_no_positions_are_left_in_the_model(lvlm: Qwen) -> None:
    """One picture's would count for the next question."""
    prepared, hidden = seen(lvlm, picture(6), lvlm.read_block)
    lvlm.generate(lvlm.features(hidden, lvlm.read_block, prepared), PROMPT, 3, prepared)
    assert lvlm.model.model.rope_deltas is None
    lvlm.answer_plain(picture(6), PROMPT, 3)
    assert lvlm.model.model.rope_deltas is None


def test_ids_are_those_of_the_processor(lvlm: Qwen) -> None:
    image = picture(7, (200, 90))
    grid = lvlm.preprocess(image).grid
    theirs = lvlm._plain_inputs(image, Question(PROMPT))["input_ids"]
    assert torch.equal(lvlm._ids(Question(PROMPT), grid.rows * grid.cols // 4, 4, None)[None], theirs)
    text = lvlm.prompt_text(PROMPT, "the red cat")
    assert text.startswith("<|im_start|>system\nthe red cat<|im_end|>") and text.count("<|image_pad|>") == 1


def test_a_new_question_does_not_read_the_picture_again(lvlm: Qwen, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared, hidden = seen(lvlm, picture(8, (300, 200)), lvlm.read_block)
    ready, memory, read = lvlm.features(hidden, lvlm.read_block, prepared), Memory(), []
    run = lvlm._side.run
    monkeypatch.setattr(lvlm._side, "run", lambda rows, *a: read.append(rows.shape[1]) or run(rows, *a))
    answers = {}
    for prompt in (PROMPT, "the red cat with a dog"):
        read.clear()
        *_, step = lvlm.decode([Asked(prompt, ready, like=prepared)], 4, None, memory)
        answers[prompt], first = step.tokens, read[0]
    assert first < 20 < len(ready), "words only"
    for prompt, tokens in answers.items():
        *_, step = lvlm.decode([Asked(prompt, ready, like=prepared)], 4)
        assert step.tokens == tokens


def test_pictures_of_two_shapes_share_no_reading(lvlm: Qwen) -> None:
    """The same features in another grid stand elsewhere, so nothing that was read of them may be used."""
    wide, tall = (lvlm.preprocess(picture(9, size)) for size in ((448, 112), (112, 448)))
    assert wide.grid.rows == tall.grid.cols < wide.grid.cols == tall.grid.rows
    hidden = lvlm.tower(wide.pixel_values, lvlm.read_block, wide)[0]
    ready, memory = lvlm.features(hidden, lvlm.read_block, wide), Memory()
    for like in (wide, tall, wide):
        *_, quick = lvlm.decode([Asked(PROMPT, ready, like=like)], 6, None, memory)
        *_, slow = lvlm.decode([Asked(PROMPT, ready, like=like)], 6)
        assert quick.tokens == slow.tokens


def test_the_published_settings_of_generation_are_honoured(
    lvlm: Qwen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of Qwen2.5-VL: all that was read, the picture's tokens too, counts as said before."""
    settings = lvlm.model.generation_config
    published = {"do_sample": True, "repetition_penalty": 1.05, "temperature": 1e-6, "eos_token_id": [2, 0]}
    texts = {lvlm.answer_plain(picture(14), PROMPT, 12)}
    for name, value in published.items():
        monkeypatch.setattr(settings, name, value)
    for penalty in (1.05, 3.0):
        monkeypatch.setattr(settings, "repetition_penalty", penalty)
        prepared, hidden = seen(lvlm, picture(14), 2)
        ready = lvlm.features(hidden, 2, prepared)
        text = lvlm.answer_plain(picture(14), PROMPT, 12)
        assert lvlm.generate(ready, PROMPT, 12, prepared) == text
        assert lvlm.generate_many(ready[None], PROMPT, 12, prepared) == [text]
        texts.add(text)
    assert len(texts) > 1, "the penalty does nothing"


@pytest.mark.parametrize("rows", ["answer", "text"])
def test_changed_attention_agrees_with_whole_passes(lvlm: Qwen, rows: str) -> None:
    """Read again from the beginning for each token, with no cache and no memory."""
    prepared, hidden = seen(lvlm, picture(13, (200, 120)), lvlm.read_block)
    ready, edit = lvlm.features(hidden, lvlm.read_block, prepared), AttentionEdit((0, 3), rows, 3.0, 1.5, 0.5)
    question, memory = Question(PROMPT), Memory()
    ids = lvlm._ids(question, len(ready), 6, prepared)
    places, positions, said = lvlm._places(ids), lvlm._positions(ids, prepared), []
    image = slice(int(places[0]), int(places[-1]) + 1)
    for _ in range(6):
        read = lvlm._rows(question, ids, ready[None], prepared)
        more = lvlm._side.embed(torch.tensor(said, dtype=torch.int64))[None]
        read = torch.cat([read, more], dim=1)
        where = along(positions, 0, read.shape[1])
        with torch.no_grad():
            calm = lvlm._side.score(lvlm._side.run(read, where, None, len(ids))[0, -1])
            with changed_attention(lvlm._side.stack, edit, image, len(ids) - 1):
                scores = lvlm._side.score(lvlm._side.run(read, where, None, len(ids))[0, -1])
        assert float((scores - calm).abs().max()) > 1e-2, "the edit does nothing"
        said.append(int(scores.argmax()))
    asked = [Asked(PROMPT, ready, attention=edit, like=prepared)]
    for _ in range(2):
        *_, step = lvlm.decode(asked, 6, None, memory)
        assert list(step.tokens) == said


# ---- taps ------------------------------------------------------------------------------------------------


@pytest.fixture(params=TAPPED)
def tapped(request: pytest.FixtureRequest) -> Qwen3VL:
    return made(request.param).lvlm


def parts(lvlm: Qwen3VL, prepared: Prepared, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Output [tokens, d] of a block: of its patches, and of each of the three taps."""
    return hidden.split(prepared.grid.rows * prepared.grid.cols)


def test_earlier_taps_go_along_and_later_ones_follow(tapped: Qwen3VL) -> None:
    prepared = tapped.preprocess(picture(10))
    at = {tap: parts(tapped, prepared, seen(tapped, picture(10), tap)[1])[0] for tap in (1, 2, 4)}
    for block in range(6):
        _, *taps = parts(tapped, prepared, seen(tapped, picture(10), block)[1])
        assert len(taps) == 3
        for kept, tap in zip(taps, (1, 2, 4), strict=True):
            assert torch.equal(kept, at[tap]) if tap < block else not kept.any()


@pytest.mark.parametrize("block", range(6))
def test_an_edit_reaches_the_taps_of_its_block_and_those_behind_it(tapped: Qwen3VL, block: int) -> None:
    prepared, hidden = seen(tapped, picture(11), block)
    moved = prepared.put(hidden, prepared.patches(hidden) + 1)
    width = tapped.model.config.text_config.hidden_size
    calm, pushed = (tapped.features(one, block, prepared).split(width, dim=1) for one in (hidden, moved))
    assert not torch.equal(calm[0], pushed[0])
    for before, after, tap in zip(calm[1:], pushed[1:], (1, 2, 4), strict=True):
        assert torch.equal(before, after) == (tap < block)


def test_gradients_reach_earlier_taps_too(tapped: Qwen3VL) -> None:
    prepared, hidden = seen(tapped, picture(12), 5)
    words = tapped.answer_words("the red cat")
    found = tapped.word_gradients(hidden, 5, PROMPT, "the red cat", words, prepared)
    for gradients in found.gradients[0].split(prepared.grid.rows * prepared.grid.cols):
        assert float(gradients.abs().max()) > 0


def test_a_picture_that_is_made_up_has_no_earlier_taps(tapped: Qwen3VL) -> None:
    like, width = tapped.canvas(10), tapped.model.config.text_config.hidden_size
    assert (like.grid.rows, like.grid.cols, like.tokens) == (2, 6, 12)
    hidden = torch.randn(12, 32, generator=torch.Generator().manual_seed(0))
    for block in (0, 2, 5):
        first, *added = tapped.features(hidden, block, like).split(width, dim=1)
        assert first.any() and [bool(it.any()) for it in added] == [tap >= block for tap in (1, 2, 4)]


def test_text_has_nothing_added(tapped: Qwen3VL) -> None:
    rows = tapped._side.embed(torch.tensor([9, 10]))
    width = tapped.model.config.text_config.hidden_size
    assert rows.shape == (2, 4 * width) and rows[:, :width].any() and not rows[:, width:].any()
