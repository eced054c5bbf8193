"""The benchmark at a tiny size: both sides must say the same, and the sums must be right. No times."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from explorer.errors import ExplorerError
from explorer.evals import speed
from explorer.evals.hooked import Hooked, Timed, slide
from explorer.evals.sliding import Move, changed_words, drag, random_moves, summary
from explorer.evals.speed import PARTS, SHAPES, SpeedConfig, by_outcome, by_region, random_sae
from explorer.records import Edit
from explorer.session import Session
from explorer.steer import Intervention, intervene
from explorer.vlm.synthetic import SPECIAL, Shape, random_llava
from explorer.vlm.synthetic_qwen import PATCH, QwenShape, random_qwen
from explorer.world import draw


@pytest.fixture(scope="module")
def session() -> Session:
    lvlm = random_llava(SHAPES["tiny"], seed=1)
    hidden = lvlm.tower(lvlm.preprocess(draw(1).image).pixel_values, lvlm.read_block)[0]
    return Session(lvlm, random_sae(hidden[1:], 256, 8))


@pytest.fixture(scope="module")
def hooked(session: Session) -> Hooked:
    return Hooked(session.lvlm, session.sae, session.block, 12)


def test_a_random_llava_repeats_and_answers_about_the_picture(session: Session) -> None:
    state = torch.random.get_rng_state()
    again = random_llava(SHAPES["tiny"], seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    images = [draw(seed).image for seed in range(4)]
    texts = [again.answer_plain(image, "What?", 12) for image in images]
    assert texts == [session.lvlm.answer_plain(image, "What?", 12) for image in images]
    assert len(set(texts)) > 1 and all(len(text.split()) == 12 for text in texts)
    assert not any(word in text for text in texts for word in SPECIAL)
    assert texts != [random_llava(SHAPES["tiny"]).answer_plain(image, "What?", 12) for image in images]


def test_the_large_shapes_are_those_of_llava_1_5_and_qwen2_5_vl() -> None:
    usual, qwen = Shape(), QwenShape()
    assert (usual.blocks, usual.width, usual.mlp, (usual.image // usual.patch) ** 2) == (24, 1024, 4096, 576)
    assert (qwen.blocks, qwen.width, qwen.mlp, qwen.heads) == (32, 1280, 3420, 16)
    assert qwen.image // PATCH == 32


def test_a_random_qwen_repeats_and_looks_in_windows() -> None:
    state, shape = torch.random.get_rng_state(), SHAPES["tiny-qwen"]
    first, again = random_qwen(shape, seed=1), random_qwen(shape, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    images = [draw(seed).image for seed in range(3)]
    texts = [again.answer_plain(image, "What?", 12) for image in images]
    assert texts == [first.answer_plain(image, "What?", 12) for image in images]
    assert len(set(texts)) > 1 and all(len(text.split()) == 12 for text in texts)
    config = again.model.config.vision_config
    assert (config.window_size, config.fullatt_block_indexes) == (112, [1])
    assert QwenShape(blocks=32).whole == 8


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({}, PARTS),
        ({"model": "mine"}, ("moves", "drag", "cns")),
        ({"model": "mine", "parts": ("large",)}, ("large",)),
    ],
)
def test_the_random_model_is_left_out_for_a_chosen_one(given: dict, parts: tuple[str, ...]) -> None:
    assert SpeedConfig(**given).measured == parts


def test_about_as_many_random_neurons_fire_as_asked() -> None:
    patches = 3 + torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    sae = random_sae(patches, 256, 8)
    assert 7 <= len(sae.encode_sparse(patches).values) / 200 <= 9
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(256))


def test_the_hook_changes_what_the_session_changes(session: Session, hooked: Hooked) -> None:
    view = session.look(draw(3).image)
    strong = [found.neuron for found in view.top(4, "max")]
    mask = np.zeros((view.grid.rows, view.grid.cols), dtype=bool)
    mask[0, 1] = True
    edits = [
        Edit(strong[0], -4.0),
        Edit(strong[1], 3.0, "add", "active"),
        Edit(strong[2], 2.0, "scale"),
        Edit(strong[3], 5.0, "set", mask),
        Edit(strong[0], 1.5, "scale", mask),
    ]
    place = slice(int(session.lvlm.has_cls), None)
    expected = view.hidden.clone()
    asked = Intervention(tuple(edits))
    expected[place] = intervene(view.hidden[place], view.codes, session.sae, view.grid, asked).patches
    found = hooked.changed(view.hidden[None], view.prepared, edits)[0]
    assert torch.allclose(found, expected, atol=1e-4) and not torch.equal(found, view.hidden)
    assert torch.equal(hooked.changed(view.hidden[None], view.prepared, [])[0], view.hidden)
    for some in ([], edits[:1], edits):
        timed = hooked.answer(hooked.ready(view.image), some)
        assert timed.tokens == slide(session, view, some, 12).tokens
        assert len(timed.times) == len(timed.tokens) == timed.passes == 12
        assert (
            list(timed.times) == sorted(timed.times)
            and 0 < timed.times[0]
            and timed.times[-1] <= timed.seconds
        )
        assert hooked.text(timed.tokens) == session.answer(view, edits=some, max_new_tokens=12)


def test_random_moves_and_drags_give_the_same_tokens_on_both_sides(session: Session, hooked: Hooked) -> None:
    rng, image = np.random.default_rng(0), draw(4).image
    moves = random_moves(session, hooked, image, 6, (-30.0, 60.0), rng, nudges=2)
    dragged = drag(session, hooked, image, 5, (-30.0, 60.0))
    assert len(moves) == 8 and len(dragged) == 5
    assert [(move.words, move.region) for move in moves[6:]] == [(0, "active")] * 2
    assert all(move.ours.tokens == move.baseline.tokens for move in [*moves, *dragged])
    assert any(move.words for move in moves)
    assert {move.region for move in moves} == {"everywhere", "active"}
    assert {move.region for move in dragged} == {"everywhere"}
    assert all(move.before == moves[0].before for move in moves)
    assert [move.before for move in dragged[1:]] == [move.ours.tokens for move in dragged[:-1]]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("a cake and a fork", "a cake and a fork", 0),
        ("a cake and a fork", "a cake and a cup", 1),
        ("a cake and a fork", "a cake", 3),
        ("a cake", "a red cake", 1),
        ("a cake", "two dogs run", 3),
        ("", "yes", 1),
    ],
)
def test_changed_words_are_counted(before: str, after: str, words: int) -> None:
    assert changed_words(before, after) == words


def made(words: int, ours: float, baseline: float, agree: bool = True) -> Move:
    """A move whose second token changes, at half the time."""
    tokens = (1, 9) if words else (1, 2)
    mine = Timed(tokens, (ours / 4, ours / 2), ours, 1)
    theirs = Timed(tokens if agree else (7,), (baseline / 4, baseline / 2), baseline, 2)
    return Move("seen" if words else "active", words, (1, 2), theirs, mine)


def test_the_summary_is_of_medians() -> None:
    moves = [made(0, 0.001, 0.01), made(2, 0.002, 0.02), made(3, 0.009, 0.03, agree=False)]
    found = by_outcome(moves)
    assert [found[name]["moves"] for name in ("all", "nothing", "a word or two", "more")] == [3, 1, 1, 1]
    regions = by_region(moves)
    assert set(regions) == {"active", "seen"} and regions["active"] == {"all": found["nothing"]} | {
        "nothing": found["nothing"]
    }
    everything = found["all"]
    assert (everything["agree"], everything["ratio"], everything["ours_ms"]) == (2, 0.1, 2.0)
    assert (everything["ours_passes"], everything["baseline_passes"]) == (1.0, 2.0)
    assert everything["ratio_p90"] == pytest.approx(0.1 + 0.8 * 0.2)
    assert "first_change_ratio" not in found["nothing"]
    two = summary([moves[1]])
    assert (two["first_change_ours_ms"], two["first_change_baseline_ms"]) == (1.0, 10.0)
    assert by_outcome([]) == {}


def test_the_first_change_is_the_first_token_that_differs() -> None:
    timed = Timed((1, 2, 3), (0.1, 0.2, 0.3), 0.4, 3)
    assert timed.first_change((1, 5, 3)) == 0.2 and timed.first_change((1, 2)) == 0.3
    assert timed.first_change((1, 2, 3)) is None and timed.first_change((1, 2, 3, 4)) is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scenes": 0}, "scenes must be 1 or more"),
        ({"first_seed": -1}, "first_seed must be 0 or more"),
        ({"lowest": 3.0, "highest": 2.0}, "lowest 3 and highest 2 are no such range"),
        ({"lowest": float("nan")}, "lowest nan and highest 60 are no such range"),
        ({"highest": 1e9}, "lowest -30 and highest 1e.09 are no such range"),
    ],
)
def test_numbers_that_leave_nothing_to_time_are_refused(wrong: dict, words: str) -> None:
    with pytest.raises(ExplorerError, match=words):
        SpeedConfig(**wrong)


def test_the_command_at_a_tiny_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "speed.json"
    line = (
        "--scenes 2 --moves 2 --series 3 --max-new-tokens 16 --shape tiny-qwen --neurons 128 --active 6 "
        f"--large-scenes 1 --large-moves 2 --large-nudges 1 --large-series 3 --large-tokens 8 --out {out}"
    )
    assert speed.main(line.split()) == 0
    report = json.loads(out.read_text())
    for found, moves, dragged in ((report["opened"], 4, 3), (report["large"], 3, 3)):
        assert found["moves"]["all"]["moves"] == found["moves"]["all"]["agree"] == moves
        assert found["drag"]["all"]["moves"] == found["drag"]["all"]["agree"] == dragged
    cns = report["opened"]["cns"]
    assert cns["all"]["pictures"] == 2 >= cns["same_length"]["pictures"]
    assert {"opened_adds", "raw_adds", "raw_apart_adds", "batched_over_two_passes"} <= set(cns["all"])
    assert (report["large"]["family"], report["large"]["shape"]["blocks"]) == ("qwen2_5_vl", 3)
    assert report["large"]["patches"] == 64 and report["machine"]["threads"] >= 1
    assert json.loads(capsys.readouterr().out) == report
