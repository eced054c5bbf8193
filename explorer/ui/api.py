"""What programs may ask of the page by `gradio_client`: named endpoints, each call complete in itself.

Nothing is kept between calls, every input is checked, and every answer has a bounded size. Annotations
become the documentation of the endpoints, so they are not postponed here.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder

from explorer.analyze import attribute
from explorer.cases import checks, rows, settings
from explorer.errors import ExplorerError
from explorer.images import load_image
from explorer.records import NeuronSummary, Wanted
from explorer.session import Session, View
from explorer.session.machine import running
from explorer.ui.heat import data_uri
from explorer.ui.hub import MOST_ANSWERS, Hub

MOST_NEURONS = 100
MOST_MAPS = 20
MOST_EXEMPLARS = 16
MOST_MEASURED = 30
MODELS_TURNS = 4
"""Calls that may use the model at once; the rest wait in the queue, and people's clicks go in between."""

Json = dict[str, Any]


class Programs:
    """The endpoints. Each method is one, documented by its docstring."""

    def __init__(self, hub: Hub) -> None:
        self.session: Session = hub.session
        self._examples = hub.opening.examples

    def look(
        self,
        picture: gr.FileData | str,
        top: int = 20,
        maps: list[int] | None = None,
        patch: list[int] | None = None,
    ) -> Json:
        """The strongest neurons of a picture, of the whole or of one patch, and where some neurons fire.

        picture: handle_file("cake.png"), or the key of an example, such as "phantom_fork"; top: how many
        neurons, at most 100; maps: neurons whose activation at every patch is wanted, at most 20; patch:
        [row, column], to list the neurons of this patch.
        Gives grid (rows, cols), unexplained (share of the variance that the SAE leaves out), neurons (neuron,
        value, name; strongest first) and maps ({"neuron": [[...], ...]}, rows of patches).
        """
        view = self._view(picture)
        count = _count(top, "top", MOST_NEURONS)
        shown = [checks.whole(neuron, "neuron", view.n_neurons) for neuron in _list(maps, "maps", MOST_MAPS)]
        found = view.top(count)
        if patch is not None:
            found = view.top_at(*_cell(patch, view), count)
        names = self._names([one.neuron for one in found])
        return {
            "grid": {"rows": view.grid.rows, "cols": view.grid.cols},
            "unexplained": _number(view.fvu),
            "neurons": [
                {"neuron": one.neuron, "value": _number(one.value), "name": names[one.neuron]}
                for one in found
            ],
            "maps": {str(neuron): _rows(view.map(neuron)) for neuron in shown},
        }

    def caption(
        self,
        picture: gr.FileData | str,
        question: str = "",
        edits: list[Json] | None = None,
        how: Json | None = None,
    ) -> Json:
        """What the model answers about a picture, untouched and with its neurons edited.

        picture: as for look; question: "" for the model's default; edits: at most 24 of {"neuron": 178,
        "value": -30, "mode": "set" | "add" | "scale", "patches": null | "active" | [[row, column], ...]}:
        null is all patches; without mode and patches it is "set" and "active"; how: settings that differ from
        the default, such as {"cns": true, "step": 300, "strength": 0.5}, {"method": "vcd"},
        {"temperature": 0.7, "seed": 1}, {"replace": true} or {"max_new_tokens": 32}.
        Gives question, baseline and steered (the same when nothing is asked to change).
        """
        view = self._view(picture)
        asked = _question(question, self.session)
        chosen = settings.parse(json.dumps(_object(how, "how")))
        wanted = rows.edits(_bench(edits, view), view.grid, _nowhere)
        plain = chosen.plain().options()
        baseline = self.session.answer(view, asked, visitor=object(), **plain)
        steered = baseline
        if wanted or chosen.changes:
            steered = self.session.answer(view, asked, wanted, visitor=object(), **chosen.options())
        return {"question": asked, "baseline": baseline, "steered": steered}

    def why(self, picture: gr.FileData | str, words: str, question: str = "", measure: int = 10) -> Json:
        """Which neurons make the model say some words of its answer.

        picture, question: as for caption; words: one or some neighbouring words of the untouched answer;
        measure: how many neurons are set to zero for real, at most 30.
        Gives answer and neurons: neuron, name, estimate and measured (the drop of the words' log-probability
        without the neuron, in nats) and others (what the other words lose), the largest measured drop first.
        """
        view = self._view(picture)
        asked = _question(question, self.session)
        count = _count(measure, "measure", MOST_MEASURED)
        sought = checks.text(words, "the words", checks.LONGEST_CONCEPT)
        answer = self.session.answer(view, asked, visitor=object())
        found = attribute(self.session, view, sought, asked, answer, count).ranked
        names = self._names([effect.neuron for effect in found])
        keys = ("estimate", "measured", "others")
        told = [
            {
                "neuron": one.neuron,
                "name": names[one.neuron],
                **{key: _number(getattr(one, key)) for key in keys},
            }
            for one in found
        ]
        return {"answer": answer, "neurons": told}

    def neuron(self, neuron: int) -> Json:
        """What the store knows of a neuron: statistics, label and its evidence, words it raises, partners,
        similar neurons, and what people call it."""
        session, number = self.session, self._neuron(neuron)
        note = session.note(number)
        return {
            **_clean(asdict(session.summary(number))),
            "own_name": note.name if note else "",
            "note": note.note if note else "",
            "labels": [_clean(label._asdict()) for label in session.labels(number)],
            "words": [_clean(word._asdict()) for word in session.words(number)],
            "partners": [_clean(partner._asdict()) for partner in session.partners(number)],
            "similar": [_clean(other._asdict()) for other in session.similar(number)],
        }

    def exemplars(self, neuron: int, count: int = 16) -> list[Json]:
        """The images that activate a neuron most, strongest first, at most 16.

        Gives for each rank, score, image (the source's id), origin, labels, map (activation by patch) and
        thumbnail (a data URI).
        """
        most = _count(count, "count", MOST_EXEMPLARS)
        return [
            {
                "rank": one.rank,
                "score": _number(one.score),
                "image": one.image_id,
                "origin": one.origin,
                "labels": list(one.labels),
                "map": _rows(one.patch_map),
                "thumbnail": data_uri(one.thumbnail),
            }
            for one in self.session.exemplars(self._neuron(neuron))[:most]
        ]

    def find(self, concept: str, k: int = 3) -> list[Json]:
        """The neurons that stand for a concept, such as "fork and knife", best first.

        Gives neuron, concept, score and precision of each; none for a concept that the store does not know.
        """
        wanted = checks.text(concept, "the concept", checks.LONGEST_CONCEPT)
        found = self.session.find(wanted, _count(k, "k", MOST_NEURONS))
        return [_clean(one._asdict()) for one in found]

    def search(self, text: str, k: int = 20) -> list[Json]:
        """The neurons whose name, labels, words or notes hold all words of a text: neuron, name, own (whether
        people wrote it), score; people's own first."""
        wanted = checks.text(text, "the text", checks.LONGEST_CONCEPT)
        found = self.session.search(wanted, _count(k, "k", MOST_NEURONS))
        return [_clean(one._asdict()) for one in found]

    def browse(self, wanted: Json | None = None, offset: int = 0, count: int = 24) -> Json:
        """The neurons of the gallery, filtered and sorted.

        wanted: any of text, classes (list), label, fires, peak, precision, monosemanticity (each [lowest,
        highest]), listed, sort, descending; offset, count: which of them, at most 100 at a time.
        Gives total and neurons (as by neuron, without its lists).
        """
        start = checks.whole(offset, "offset", self.session.sae.n_neurons + 1)
        page = self.session.browse(
            _wanted(_object(wanted, "wanted")), start, _count(count, "count", MOST_NEURONS)
        )
        known = self.session.summaries(page.neurons)
        return {"total": page.total, "neurons": [_clean(asdict(known[one])) for one in page.neurons]}

    # Inputs

    def about(self) -> Json:
        """What the page runs on, and how its model was opened.

        Gives model (name and hash of the weights), block (of the vision tower, whose output the SAE reads),
        neurons, pictures (how many the store has seen; null without a store), device, dtype (of the model's
        weights) and quantized ("8bit", "4bit" or null: the language model's matrices).
        """
        session, store = self.session, self.session.store
        return {
            "model": session.lvlm.model_id,
            "block": session.block,
            "neurons": session.sae.n_neurons,
            "pictures": None if store is None else store.manifest.n_images,
            **running(session.lvlm, session.sae)._asdict(),
        }

    def _view(self, picture: object) -> View:
        """The picture of a call. An uploaded file is removed once it is read."""
        if isinstance(picture, str):
            example = self._examples.get(picture)
            if example is None:
                keys = ", ".join(self._examples)
                raise ExplorerError(
                    f"there is no example {picture[:40]!r}; upload a picture or use one of {keys}"
                )
            return self.session.look(example.image)
        path = _uploaded(picture)
        try:
            return self.session.look(load_image(path))
        finally:
            path.unlink(missing_ok=True)

    def _neuron(self, neuron: object) -> int:
        return checks.whole(neuron, "neuron", self.session.sae.n_neurons)

    def _names(self, neurons: Sequence[int]) -> dict[int, str]:
        """The labels of neurons, "" without a store."""
        if self.session.store is None:
            return dict.fromkeys(neurons, "")
        known: dict[int, NeuronSummary] = self.session.summaries(neurons)
        return {neuron: known[neuron].label for neuron in neurons}


def _uploaded(picture: object) -> Path:
    """The file behind what `handle_file` sent. Anything but a fresh upload is refused."""
    path = picture.get("path") if isinstance(picture, dict) else None
    folder = Path(get_upload_folder()).resolve()
    found = Path(path).resolve() if isinstance(path, str) and "\0" not in path else folder
    if not found.is_relative_to(folder) or not found.is_file():
        raise ExplorerError("no picture arrived; send handle_file(PATH) or the key of an example")
    return found


def _list(value: object, name: str, most: int) -> list[Any]:
    if (value is not None and not isinstance(value, list)) or len(value or ()) > most:
        raise ExplorerError(f"{name} is not a list of at most {most}")
    return value or []


def _object(value: object, name: str) -> Json:
    if value is not None and not isinstance(value, dict):
        raise ExplorerError(f"{name} is not a set of names and values")
    return value or {}


def _count(value: object, name: str, most: int) -> int:
    count = checks.whole(value, name, most + 1)
    if count < 1:
        raise ExplorerError(f"{name} is 0; use 1 to {most}")
    return count


def _question(question: object, session: Session) -> str:
    return checks.text(question, "the question", checks.LONGEST_PROMPT) or session.lvlm.default_prompt


def _cell(patch: object, view: View) -> tuple[int, int]:
    if not isinstance(patch, list) or len(patch) != 2:
        raise ExplorerError("patch is not a pair of row and column")
    return checks.cell(*patch, view.grid)


def _bench(edits: object, view: View) -> list[rows.Row]:
    """The edits as rows of the bench, which checks them."""
    entries = []
    for given in _list(edits, "edits", rows.MOST_ROWS):
        edit = _object(given, "an edit")
        if unknown := sorted(set(map(str, edit)) - {"neuron", "value", "mode", "patches"}):
            raise ExplorerError(f"an edit has no {unknown[0][:40]!r}; it has neuron, value, mode and patches")
        if edit.get("value") is None:
            raise ExplorerError(f"the edit of neuron {edit.get('neuron')!r:.20} has no value")
        place = edit.get("patches", "active")
        if isinstance(place, str) and place != "active":
            raise ExplorerError(
                f'patches {place[:40]!r} are unknown; use null, "active" or [[row, column], ...]'
            )
        region = "active" if place == "active" else "all" if place is None else "marked"
        entries.append({**edit, "region": region, "patches": place if region == "marked" else None})
    return rows.parse(json.dumps(entries), view)


def _nowhere(concept: str) -> np.ndarray:
    raise ExplorerError(f"an edit cannot ask for the place of {concept!r}; name its patches")


def _wanted(wanted: Json) -> Wanted:
    """A filter of the gallery; what is left out keeps its default."""
    ranges = ("fires", "peak", "precision", "monosemanticity")
    known = (*ranges, "text", "classes", "label", "listed", "sort", "descending")
    if unknown := sorted(set(map(str, wanted)) - set(known)):
        raise ExplorerError(f"there is no filter {unknown[0][:40]!r}; use {', '.join(known)}")
    given: Json = {}
    for name, value in wanted.items():
        if name in ranges:
            ends = _list(value, name, 2)
            if len(ends) != 2:
                raise ExplorerError(f"{name} is not a pair of a lowest and a highest value")
            given[name] = tuple(checks.finite(end, name) for end in ends)
        elif name == "classes":
            classes = _list(value, name, MOST_NEURONS)
            given[name] = tuple(checks.text(one, "a class", checks.LONGEST_CONCEPT) for one in classes)
        elif name == "descending":
            given[name] = checks.one_of(str(value).lower(), "descending", ("true", "false")) == "true"
        else:
            given[name] = checks.text(value, name, checks.LONGEST_CONCEPT)
    return Wanted(**given)


# Outputs


def _number(value: float) -> float | None:
    """A number as JSON takes it: four digits are enough, and what is not finite is null."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _rows(patches: np.ndarray) -> list[list[float | None]]:
    return [[_number(float(value)) for value in row] for row in patches]


def _clean(record: Json) -> Json:
    return {key: _number(value) if isinstance(value, float) else value for key, value in record.items()}


def wire(hub: Hub) -> None:
    """Offer the endpoints."""
    programs = Programs(hub)
    asking: tuple[Callable[..., Any], ...] = (programs.look, programs.caption, programs.why)
    for endpoint in asking:
        gr.api(endpoint, concurrency_limit=MODELS_TURNS, concurrency_id="programs")
    reading: tuple[Callable[..., Any], ...] = (programs.neuron, programs.exemplars, programs.find)
    reading += (programs.search, programs.browse, programs.about)
    for endpoint in reading:
        gr.api(endpoint, concurrency_limit=MOST_ANSWERS)
