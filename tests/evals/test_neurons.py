"""The figures of the neurons on a pretended session whose every answer is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from explorer.errors import ExplorerError
from explorer.evals import neurons
from explorer.evals.neurons import (
    NeuronsConfig,
    always_on,
    caption_all,
    free_block,
    inserted,
    insertion,
    meaning,
    silenced,
    suppressing,
    suppression,
)
from explorer.records import Edit, Found
from explorer.world import CONCEPTS, phrase

ROWS, COLS = 14, 16


class FakeView(tuple):
    """The concepts that are in a picture."""

    grid = SimpleNamespace(rows=ROWS, cols=COLS)
    fvu = 0.0


VIEWS = tuple(map(FakeView, (("cake", "fork_and_knife", "apple"), ("cat",), ("apple", "cat"))))
STEP = 100
"""Neuron c + STEP * i is the i-th neuron of concept c."""


class FakeSession:
    """A view is a tuple of concepts; negative edits silence a concept's mention, positive ones insert it.

    obeys: whether an edit of a concept works in a view; drags: a concept that goes when another goes;
    unseen: concepts that `where` cannot tell.
    """

    def __init__(
        self,
        obeys: Callable[[tuple[str, ...], str], bool] = lambda view, concept: True,
        drags: dict[str, str] | None = None,
        precision: dict[str, list[float]] | None = None,
        unseen: Sequence[str] = (),
    ) -> None:
        self.unseen = unseen
        self.obeys, self.drags, self.precision = obeys, drags or {}, precision
        self.batches: list[list[tuple[tuple[str, ...], tuple[Edit, ...]]]] = []
        self.shares: list[float] = []
        self.store = SimpleNamespace(
            always_on=self._always_on,
            concepts=lambda: list(CONCEPTS),
            probe=lambda: SimpleNamespace(concepts=CONCEPTS),
        )

    def _always_on(self, share: float) -> list[int]:
        self.shares.append(share)
        return [5] if share < 1 else []

    def find(self, concept: str, k: int = 3) -> list[Found]:
        found = self.precision.get(concept, []) if self.precision is not None else [1.0] * 4
        return [
            Found(CONCEPTS.index(concept) + STEP * i, concept, 1.0 - i / 50, share)
            for i, share in enumerate(found[:k])
        ]

    def where(self, view: tuple[str, ...], concept: str) -> np.ndarray:
        """Concept c of a view lies at patch (0, c); one that `unseen` names is not seen."""
        place = np.zeros((ROWS, COLS), dtype=bool)
        if concept not in self.unseen:
            place[0, view.index(concept)] = True
        return place

    def answers(self, asked: Sequence[tuple[tuple[str, ...], tuple[Edit, ...]]]) -> list[str]:
        self.batches.append(list(asked))
        return [self._caption(*one) for one in asked]

    def _caption(self, view: tuple[str, ...], edits: Sequence[Edit]) -> str:
        said = dict.fromkeys(view)
        for edit in edits:
            concept = CONCEPTS[edit.neuron % STEP]
            if not self.obeys(view, concept):
                continue
            if edit.value > 0:
                said[concept] = None
            else:
                said.pop(concept, None)
                said.pop(self.drags.get(concept, ""), None)
        return "A room with " + ", ".join(f"a {phrase(concept)}" for concept in said) + "."

    def look(self, image: object) -> SimpleNamespace:
        raise NotImplementedError


def scenes_of(views: Sequence[tuple[str, ...]]) -> list[SimpleNamespace]:
    """What the measurements ask of a scene; its objects fill two rows at the top and a column at the left."""
    taken = np.full((ROWS, COLS), -1)
    taken[:2], taken[:, 0] = 0, 1
    return [
        SimpleNamespace(
            seed=i,
            objects=[SimpleNamespace(concept=concept) for concept in view],
            patch_objects=lambda rows, cols, least: taken[:rows, :cols],
        )
        for i, view in enumerate(views)
    ]


SCENES = scenes_of(VIEWS)


def test_suppression_counts_what_is_gone_and_what_stays() -> None:
    session = FakeSession(lambda view, concept: view != ("cat",), drags={"cake": "fork_and_knife"})
    found = suppression(silenced(session, VIEWS, NeuronsConfig(batch=4)))
    # Six mentions; the cat that is alone stays. Others: 2 + 2 + 2 + 0 + 1 + 1, and the cake takes the fork.
    assert found["mentions"] == 6
    assert found["removed"] == pytest.approx(5 / 6)
    assert found["others_kept"] == pytest.approx(7 / 8)
    assert found["stubborn"] == {"cat": 0.5}
    assert [len(batch) for batch in session.batches] == [3, 4, 2]


def test_a_concept_that_survives_a_fifth_of_the_time_is_not_called_stubborn() -> None:
    views = [FakeView(("apple", f)) for f in ("cake", "cat", "dog", "tree", "car")]
    session = FakeSession(lambda view, concept: concept != "apple" or "cake" not in view)
    found = suppression(silenced(session, views, NeuronsConfig()))
    assert found["stubborn"] == {} and found["removed"] == pytest.approx(9 / 10) and found["others_kept"] == 1


@pytest.mark.parametrize(("region", "patches"), [("active", "active"), ("all", None)])
def test_suppression_edits_the_neurons_that_the_product_finds(region: str, patches: str | None) -> None:
    session = FakeSession()
    silenced(session, VIEWS[1:2], NeuronsConfig(neurons=2, suppress=-7.0, region=region))
    (_, before), (_, edits) = [one for batch in session.batches for one in batch]
    cat = CONCEPTS.index("cat")
    assert before == () and [edit.neuron for edit in edits] == [cat, cat + STEP]
    assert all((edit.value, edit.mode, edit.patches) == (-7.0, "set", patches) for edit in edits)


def test_suppression_acts_where_the_object_is_seen_or_else_where_its_neurons_fire() -> None:
    session, view = FakeSession(unseen=["apple"]), VIEWS[0]
    edits = suppressing(session, view, "fork_and_knife", NeuronsConfig(neurons=2))
    assert [edit.neuron for edit in edits] == [CONCEPTS.index("fork_and_knife") + STEP * i for i in range(2)]
    for edit in edits:
        assert (edit.value, edit.mode) == (NeuronsConfig().suppress, "set")
        assert np.argwhere(edit.patches).tolist() == [[0, 1]] and edit.patches.shape == (ROWS, COLS)
    assert {e.patches for e in suppressing(session, view, "apple", NeuronsConfig())} == {"active"}
    assert {e.patches for e in suppressing(session, view, "cake", NeuronsConfig(region="all"))} == {None}


def test_the_free_block_is_where_least_is() -> None:
    block = free_block(SCENES[0], ROWS, COLS)
    assert np.argwhere(block)[[0, -1]].tolist() == [[2, 1], [10, 10]] and block.sum() == 9 * 10
    full = SimpleNamespace(patch_objects=lambda rows, cols, least: np.zeros((rows, cols), dtype=int))
    assert np.argwhere(free_block(full, ROWS, COLS))[0].tolist() == [0, 0]
    sides = [free_block(full, rows, cols) for rows, cols in ((14, 14), (4, 4), (24, 24), (1, 1), (8, 32))]
    assert [(int(b.any(1).sum()), int(b.any(0).sum())) for b in sides] == [
        (9, 9),
        (3, 3),
        (15, 15),
        (1, 1),
        (5, 21),
    ]


def test_only_known_concepts_are_measured() -> None:
    session = FakeSession()
    found = silenced(session, VIEWS, NeuronsConfig(), known={"apple", "cat"})
    assert [one.concept for one in found] == ["apple", "cat", "apple", "cat"]
    assert suppression(found)["mentions"] == 4
    raised = inserted(session, SCENES, VIEWS, NeuronsConfig(), known={"apple", "cat"})
    assert [one.concept for one in raised] == ["cat", "apple"]
    assert insertion([]) == {"scenes": 0, "inserted": 0.0, "missed": []}


def test_suppression_without_neurons_or_without_mentions() -> None:
    found = suppression(silenced(FakeSession(precision={}), VIEWS, NeuronsConfig()))
    assert (found["mentions"], found["removed"], found["others_kept"]) == (6, 0.0, 1.0)
    for views in ([FakeView()], [FakeView(("cat",))]):  # nothing named, and nothing beside what was named
        found = suppression(silenced(FakeSession(), views, NeuronsConfig()))
        assert found["mentions"] == found["removed"] == len(views[0]) and found["others_kept"] == 0


def test_insertion_counts_absent_concepts_that_are_then_named() -> None:
    session = FakeSession()
    found = insertion(inserted(session, SCENES, VIEWS, NeuronsConfig(neurons=2, insert=12.5)))
    assert found == {"scenes": 6, "inserted": 1.0, "missed": []}
    asked = [one for batch in session.batches for one in batch]
    chosen = [CONCEPTS[edits[0].neuron] for _, edits in asked]
    assert [view for view, _ in asked] == [view for view in VIEWS for _ in range(2)]
    for (view, edits), concept in zip(asked, chosen, strict=True):
        assert concept not in view
        assert [edit.neuron for edit in edits] == [CONCEPTS.index(concept) + STEP * i for i in range(2)]
        assert all((edit.value, edit.mode) == (12.5, "set") for edit in edits)
        assert all(np.array_equal(edit.patches, free_block(SCENES[0], ROWS, COLS)) for edit in edits)
    assert all(one != two for one, two in zip(chosen[::2], chosen[1::2], strict=True))

    deaf = set(chosen[:2])
    found = insertion(inserted(FakeSession(lambda _, c: c not in deaf), SCENES, VIEWS, NeuronsConfig()))
    assert found["inserted"] == pytest.approx(sum(c not in deaf for c in chosen) / 6)
    assert found["missed"] == sorted(map(phrase, deaf))


def test_captions_keep_their_order_whatever_the_batch() -> None:
    trials = [neurons.Trial(i % 3, "", ()) for i in range(7)]
    whole = caption_all(FakeSession(), VIEWS, trials, 64)
    assert whole[:3] == whole[3:6] and len(set(whole)) == 3
    for batch in (1, 3, 7):
        assert caption_all(FakeSession(), VIEWS, trials, batch) == whole
    assert caption_all(FakeSession(), VIEWS, [], 3) == []


def test_meaning_wants_fourteen_of_sixteen_exemplars_of_one_neuron() -> None:
    shares = {concept: [0.0] for concept in CONCEPTS}
    shares |= {"apple": [0.2, 14 / 16], "cat": [13 / 16, 0.5], "dog": [1.0]}
    shares["cake"] = [0.0] * 32 + [1.0]  # too far down to be looked at
    del shares["tree"]
    found = meaning(FakeSession(precision=shares))
    assert found["concepts_with_a_neuron"] == pytest.approx(2 / len(CONCEPTS))
    assert found["without"]["cat"] == 0.812 and found["without"]["cake"] == found["without"]["tree"] == 0
    assert set(found["without"]) == set(CONCEPTS) - {"apple", "dog"}


def test_always_on_asks_the_store_for_each_share() -> None:
    session = FakeSession()
    assert always_on(session) == {"1.0": [], "0.99": [5], "0.9": [5], "0.5": [5]}
    assert session.shares == [1.0, 0.99, 0.9, 0.5]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"region": "everywhere"}, "unknown region 'everywhere'"),
        ({"suppress": 1.0}, r"suppress must lie in \[-100, 0\], not 1.0"),
        ({"suppress": -101.0}, "suppress must lie in"),
        ({"insert": float("nan")}, r"insert must lie in \[0, 1e.06\], not nan"),
        ({"batch": 0}, "batch must be 1 or more, not 0"),
        ({"first_seed": -3}, "first_seed must be 0 or more, not -3"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ExplorerError, match=words):
        NeuronsConfig(**wrong)


def test_the_command_writes_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[NeuronsConfig] = []
    looked = iter([0.1, 0.3])

    class Looking(FakeSession):
        @classmethod
        def chosen(cls, *parts: NeuronsConfig) -> Looking:
            opened.extend(parts)
            return cls()

        def look(self, image: object) -> FakeView:
            assert image.size == (112, 112)
            view = FakeView(("cake", "apple"))
            view.fvu = next(looked)
            return view

    monkeypatch.setattr(neurons, "Session", Looking)
    out = tmp_path / "report.json"
    line = f"neurons --scenes 2 --first-seed 50 --region all --suppress -20 --store s --out {out}"
    monkeypatch.setattr("sys.argv", line.split())
    neurons.main()
    report = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert [(choice.model, choice.sae, choice.store) for choice in opened] == [(None, None, "s")]
    assert report["config"]["suppress"] == "-20.0" and report["config"]["first_seed"] == "50"
    assert report["variance_explained"] == pytest.approx(0.8)
    assert (report["suppression"]["mentions"], report["suppression"]["removed"]) == (4, 1.0)
    assert report["insertion"]["scenes"] == 4 and report["always_on"]["0.5"] == [5]
