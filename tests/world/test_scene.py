"""Scenes are fully determined by their seed, and their ground truth is what the pixels show."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.errors import WorldError
from explorer.world import CASES, CONCEPTS, FAMILIES, STYLES, THEMES, draw, mentions
from explorer.world.layout import content, places
from explorer.world.scene import LEAST_VISIBLE

SEEDS = st.integers(0, 5_000)


def digest(seed: int, family: str, size: int = 112) -> str:
    return hashlib.sha256(draw(seed, family, size=size).image.tobytes()).hexdigest()


def test_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib; from explorer.world import draw;"
        "print(*[hashlib.sha256(draw(s, f).image.tobytes()).hexdigest()"
        " for s in range(24) for f in ('ordinary', 'counterfactual')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [digest(s, f) for s in range(24) for f in FAMILIES]


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(FAMILIES))
def test_truth_agrees_with_the_owner_map(seed: int, family: str) -> None:
    scene = draw(seed, family)
    assert scene.image.size == (112, 112) and scene.image.mode == "RGB"
    assert scene.theme in THEMES and 1 <= len(scene.objects)
    for i, thing in enumerate(scene.objects):
        rows, cols = np.where(scene.owner == i)
        assert thing.concept in CONCEPTS
        assert LEAST_VISIBLE <= thing.visible <= 1
        assert thing.box == (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)
    assert set(np.unique(scene.owner)) <= set(range(-1, len(scene.objects)))


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(FAMILIES))
def test_caption_names_exactly_what_is_there(seed: int, family: str) -> None:
    scene = draw(seed, family)
    assert set(mentions(scene.caption)) == {thing.concept for thing in scene.objects}


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_size_changes_pixels_not_content(seed: int) -> None:
    small, large = draw(seed), draw(seed, size=336)
    assert large.image.size == (336, 336) and large.caption == small.caption
    for a, b in zip(small.objects, large.objects, strict=True):
        assert (a.concept, a.color, a.visible) == (b.concept, b.color, b.visible)
        assert np.allclose(np.array(a.box) * 3, b.box, atol=9)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from(STYLES))
def test_patch_labels_agree_with_a_naive_count(seed: int, style: str) -> None:
    scene = draw(seed, style=style)
    labels = scene.patch_concepts(14, 14)
    for row in range(14):
        for col in range(14):
            cell = scene.owner[row * 8 : row * 8 + 8, col * 8 : col * 8 + 8]
            shares = {i: (cell == i).mean() for i in range(len(scene.objects))}
            best = max(shares, key=lambda i: shares[i])
            expected = CONCEPTS.index(scene.objects[best].concept) if shares[best] >= 0.5 else -1
            assert labels[row, col] == expected


def test_counterfactuals_lack_what_the_prior_expects() -> None:
    for seed in range(70):
        scene = draw(seed, "counterfactual")
        case = CASES[seed % len(CASES)]
        concepts = {thing.concept for thing in scene.objects}
        assert scene.case == case.name and scene.absent_partner == case.absent
        assert case.absent not in concepts
        assert set(case.shown) <= concepts, (seed, case.name)
    apples = [o for o in draw(3, "counterfactual").objects if o.concept == "apple"]
    assert [apple.color for apple in apples] == ["black"]


def test_priors_are_skewed_as_the_table_says() -> None:
    with_partner = anchors = 0
    for seed in range(4000):
        names = {kind.concept for kind in content(np.random.default_rng(seed), seed, "ordinary").kinds}
        if "cake" in names:
            anchors += 1
            with_partner += "fork_and_knife" in names
    assert anchors > 100 and 0.9 < with_partner / anchors < 1.0


def test_some_objects_are_partly_hidden_and_things_come_in_numbers() -> None:
    scenes = [draw(seed) for seed in range(300)]
    visible = [thing.visible for scene in scenes for thing in scene.objects]
    counts = [kind.count for scene in scenes for kind in scene.kinds]
    assert 0.01 < np.mean(np.array(visible) < 0.9) < 0.3
    assert set(counts) == {1, 2, 3}
    assert {scene.theme for scene in scenes} == set(THEMES)


def test_every_concept_has_a_sprite_in_every_style() -> None:
    from explorer.world.sprites import SPRITES

    for style in STYLES:
        assert {path.stem for path in (SPRITES / style).glob("*.png")} == set(CONCEPTS)


def test_style_can_be_chosen() -> None:
    rng = np.random.default_rng(5)
    planned = content(np.random.default_rng(5), 5, "ordinary")
    assert {p.style for p in places(rng, planned, "noto")} == {"noto"}
    assert digest(1, "ordinary") in {
        hashlib.sha256(draw(1, style=style).image.tobytes()).hexdigest() for style in STYLES
    }


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [({"family": "odd"}, "odd"), ({"style": "oil"}, "oil"), ({"seed": -1}, "-1")],
)
def test_wrong_requests_say_what_is_allowed(kwargs: dict, word: str) -> None:
    with pytest.raises(WorldError, match=word):
        draw(**{"seed": 0, **kwargs})
