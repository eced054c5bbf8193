"""The panel below the bench: map of words, sweeps; what they refuse, and how they are stopped."""

from __future__ import annotations

import re
import threading
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import torch

from explorer.analyze.alpha import AlphaPoint
from explorer.analyze.changes import Changes
from explorer.analyze.noise import Sweep
from explorer.analyze.words import word_map
from explorer.cases import rows
from explorer.errors import EditError
from explorer.ui.visit import Entry, Focus, Heading, Listing, Said, Visit
from explorer.ui.why import figures, studies
from explorer.ui.why.asking import Asking
from explorer.ui.why.grid import grid
from explorer.ui.why.running import Finished, Step, running
from explorer.ui.why.studies import Studies
from explorer.ui.workspace.looking import Looking
from explorer.ui.workspace.steering import Steering
from tests.analyze.linear_session import COLS, ROWS, LinearSession


class Attentive(LinearSession):
    """Looks at all patches alike, and says so."""

    def word_attention(self, view, prompt, answer, words):  # type: ignore[no-untyped-def]
        return torch.ones(len(words), ROWS * COLS)


def event(**data: object) -> gr.EventData:
    return gr.EventData(None, data)


@pytest.fixture
def session() -> Attentive:
    return Attentive()


@pytest.fixture
def panel(session: Attentive) -> Studies:
    looking = Looking(session)  # type: ignore[arg-type]
    asking = Asking(session, looking, Steering(session, looking.strips))  # type: ignore[arg-type]
    return Studies(session, asking)  # type: ignore[arg-type]


@pytest.fixture
def visit(session: Attentive) -> Visit:
    return Visit(session.view, "A picture", "data:,")


@pytest.fixture
def said(session: Attentive) -> Said:
    return Said("Describe.", session.answer(session.view))


def test_progress_comes_first_and_the_result_last() -> None:
    go_on = threading.Event()

    def work(progress: object) -> str:
        progress(3, 7)  # type: ignore[operator]
        assert go_on.wait(30)
        return "found"

    seen = []
    for one in running(work, threading.Event()):
        seen.append(one)
        go_on.set()
    assert seen == [Step(3, 7), Finished("found")]


def test_an_error_of_the_work_is_raised_and_leaving_cancels() -> None:
    def fails(progress: object) -> None:
        raise EditError("no such neuron")

    with pytest.raises(EditError, match="no such neuron"):
        list(running(fails, threading.Event()))

    cancel = threading.Event()

    def waits(progress: object) -> bool:
        progress(1, 2)  # type: ignore[operator]
        return cancel.wait(30)

    stream = running(waits, cancel)
    assert next(stream) == Step(1, 2)
    stream.close()
    assert cancel.is_set()


def test_the_map_has_a_button_for_every_word_and_neuron(panel: Studies, visit: Visit, said: Said) -> None:
    table, status = list(panel.map_words(visit, said, None, studies.UNTOUCHED, ""))[-1]
    found = word_map(panel.session, visit.view, answer=said.text)
    assert table.count("wm-cell") == len(found.words) * len(found.neurons)
    assert table.count("wm-head") == len(found.neurons)
    assert table.count('data-do="group"') == len(set(found.clusters.tolist()))
    assert table.count('tabindex="0" data-neuron') == 1, "one cell in the tab order"
    assert 'data-do="halt"' not in status and "A picture" in status


def test_cells_say_their_values_and_sides() -> None:
    found = SimpleNamespace(
        words=(SimpleNamespace(text="<fork>"),),
        neurons=(4, 7),
        effect=np.array([[2.5, -1.0]]),
        gradient=np.array([[0.5, 0.25]]),
        attention=np.array([[0.125, 0.0]]),
        clusters=np.array([0, 1]),
        always_on=np.array([False, True]),
        measured=2,
        firing=2,
    )
    table = grid(found, lambda neuron: f"n{neuron}")  # type: ignore[arg-type]
    assert "“&lt;fork&gt;” × n4: effect +2.5 nats, gradient +0.5, attention 0.12" in table
    assert "<fork>" not in table
    assert re.findall('data-signs="([^"]+)"', table) == ["+++", "-++"]
    assert "--e:100%" in table and "n7 (always on)" in table


def test_a_group_fills_the_bench_and_no_more(
    panel: Studies, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Info", told.append)
    monkeypatch.setattr(rows, "MOST_ROWS", 4)
    before = rows.dump([rows.Row(1, "one", 0.5, 4.0)])
    after = rows.parse(panel.put_group(visit, before, event(neurons=[5, 1, 2, 2, 3, 9])), visit.view)
    assert [row.neuron for row in after] == [1, 5, 2, 3] and after[0].value == 4.0
    assert all(row.value is None for row in after[1:])
    assert told and "3 that do most of 4" in told[0]
    with pytest.raises(gr.Error, match="The bench is full"):
        panel.put_group(visit, rows.dump(after), event(neurons=[9]))


@pytest.mark.parametrize("neurons", [None, [], "3", [99], [-1], [True], list(range(501))])
def test_a_strange_group_is_refused(panel: Studies, visit: Visit, neurons: object) -> None:
    with pytest.raises(gr.Error):
        panel.put_group(visit, "", event(neurons=neurons))


def swept(panel: Studies, visit: Visit, said: Said, **other: object) -> list[studies.Swept]:
    asked = {"neuron": "3", "word": "cake", "first": -40, "last": 40, "steps": 9, "where": studies.FIRES}
    return list(panel.sweep_alpha(visit, said, *{**asked, **other}.values(), ""))


def test_the_alpha_sweep_draws_its_points_and_captions(panel: Studies, visit: Visit, said: Said) -> None:
    neuron = int(visit.view.codes.neurons[0])
    last = swept(panel, visit, said, neuron=neuron)[-1]
    figure = last.chart["value"]
    line = figure.data[0]
    assert len(line.x) == 10 and list(line.x) == sorted(line.x), "nine values and the untouched picture"
    flips = sum(shape.type == "line" for shape in figure.layout.shapes)
    numbers = last.captions.count('<th scope="row">')
    assert numbers >= 1 and (flips > 0) == (numbers > 1 and "cake" in said.text)
    assert said.text.split()[0] in last.captions and "caption" in last.captions


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"neuron": "egg"}, "neuron 'egg' does not exist"),
        ({"neuron": None}, "neuron None does not exist"),
        ({"word": ""}, "choose a word"),
        ({"word": 3}, "is not a text"),
        ({"first": 40, "last": -40}, "the lower end first"),
        ({"first": float("nan")}, "is not a number"),
        ({"last": 1e9}, "is not a number"),
        ({"steps": 1000}, "the number of values"),
        ({"steps": 1}, "give 2 or more"),
        ({"where": "here"}, "region 'here' is unknown"),
    ],
)
def test_strange_sweeps_are_refused(
    panel: Studies, visit: Visit, said: Said, wrong: dict, message: str
) -> None:
    with pytest.raises(gr.Error, match=f"(?i){message}"):
        swept(panel, visit, said, **wrong)


def test_a_stopped_sweep_shows_what_it_has(panel: Studies, visit: Visit, said: Said) -> None:
    stream = panel.sweep_alpha(visit, said, "3", "cake", -40, 40, 80, studies.ALL, "")
    assert 'data-do="halt"' in next(stream).status
    panel.halt(visit)
    last = list(stream)[-1]
    assert "Stopped" in last.status and last.chart["visible"]


def test_a_word_is_followed_with_the_links_before_it(session: Attentive) -> None:
    text = "A table with a cake, a dog and a fork."
    led = [studies.led(session, text, word) for word in ("cake", "fork", "dog", "cat")]  # type: ignore[arg-type]
    assert led == ["with a cake", "and a fork", "a dog", "cat"]


def test_the_choices_of_a_sweep(panel: Studies, visit: Visit, said: Said) -> None:
    bench = rows.dump([rows.Row(7, "seven", 0.5)])
    listing = Listing(Heading("", ""), (Entry(2, 1.0), Entry(7, 0.5)))
    offered = panel.neurons(visit, Focus("given", listing=listing, neuron=4), bench, None)
    assert [value for _, value in offered["choices"]] == ["4", "7", "2"] and offered["value"] == "4"
    kept = panel.neurons(visit, Focus("given", listing=listing), bench, "2")
    assert kept["value"] == "2"
    assert panel.words(said)["choices"][-1] in said.text


def noise_part(step: int) -> Sweep:
    values = Changes(*(np.full((1, 2, 4), step / 1000) for _ in range(3)))
    empty = np.zeros((1, 2, 1))
    return Sweep(
        (step,), (0, 1), (3,), (), empty, empty, empty, empty, values, (f"noisy {step}",), ("clear <b>",)
    )


def test_the_noise_sweep_goes_step_by_step_and_can_be_stopped(
    panel: Studies, visit: Visit, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict] = []

    def sweep(session: object, view: object, steps: tuple, seeds: tuple, **more: object) -> Sweep:
        asked.append({"steps": steps, "seeds": seeds, **more})
        return noise_part(steps[0])

    monkeypatch.setattr(studies, "noise_sweep", sweep)
    whole = list(panel.sweep_noise(visit, said, ""))[-1]
    assert [one["steps"][0] for one in asked] == list(studies.STEPS)
    assert asked[0]["contrast"] is not None and not asked[0]["contrast"].suppress_always_on, (
        "there is no store"
    )
    assert (
        whole[1]["value"].data[0].x[-1] == 999
        and "noisy" in whole[3]
        and "&lt;b&gt;" not in whole[3].split("title")[0]
    )

    stream = panel.sweep_noise(visit, said, "")
    next(stream)
    next(stream)
    panel.halt(visit)
    assert "Stopped after 1 of 11" in list(stream)[-1][0]


def test_stretches_are_runs_of_one_caption() -> None:
    points = [AlphaPoint(-1, "a", True, 0), AlphaPoint(0, "a", True, 0, True), AlphaPoint(2, "b", False, 0)]
    assert figures.stretches(points) == [
        figures.Stretch(-1, 0, "a", True, True),
        figures.Stretch(2, 2, "b", False, False),
    ]


def test_nothing_of_a_former_picture_is_shown(panel: Studies, visit: Visit, said: Said) -> None:
    streams = [
        panel.sweep_alpha(visit, said, "3", "cake", -40, 40, 80, studies.ALL, ""),
        panel.map_words(visit, said, None, studies.UNTOUCHED, ""),
    ]
    for stream in streams:
        visit.study.left = False
        next(stream)
        visit.study.leave()
        assert list(stream) == []
