"""Why does the model say this? Words by neurons, attribution, repair, sweeps: layout and events."""

from __future__ import annotations

import math
from typing import NamedTuple

import gradio as gr

from explorer.ui.hub import AT_ONCE, EVERYWHERE, MOST_ANSWERS, QUICK, QUIET, Hub, html
from explorer.ui.visit import Visit
from explorer.ui.why.asking import Asking
from explorer.ui.why.studies import ALL, FIRES, MOST_STEPS, STEERED, UNTOUCHED, Studies, status
from explorer.ui.workspace.reach import USUAL, reach

SHARE = 0.4
"""How far a sweep goes at first, of what a slider of the bench does."""

STREAM = {**QUIET, "trigger_mode": "multiple", "concurrency_limit": MOST_ANSWERS}
"""A newer analysis begins at once; it ends the older one itself."""

MAP_HINT = "Which neurons does each word rest on? Takes a few seconds; the page stays usable."
ALPHA_HINT = "Turn one neuron from end to end: where does a word leave the answer, and what is said instead?"
NOISE_HINT = (
    "Put the picture under more and more noise: which neurons go first, and what does CNS make of it?"
)


class Words(NamedTuple):
    """The words x neurons tab."""

    which: gr.Radio
    start: gr.Button
    status: gr.HTML
    grid: gr.HTML


class Alpha(NamedTuple):
    """The alpha sweep tab."""

    tab: gr.Tab
    neuron: gr.Dropdown
    word: gr.Dropdown
    bounds: tuple[gr.Number, gr.Number, gr.Number]
    where: gr.Dropdown
    start: gr.Button
    status: gr.HTML
    chart: gr.Plot
    captions: gr.HTML


class Noise(NamedTuple):
    """The noise sweep tab."""

    start: gr.Button
    status: gr.HTML
    charts: tuple[gr.Plot, gr.Plot]
    captions: gr.HTML


class Why(NamedTuple):
    """The components. emitters: those whose buttons put, pick and open neurons."""

    panel: gr.Accordion
    words: Words
    alpha: Alpha
    noise: Noise

    @property
    def emitters(self) -> tuple[gr.HTML, ...]:
        """The parts whose buttons put, pick and open neurons."""
        return (self.words.grid,)


def draw() -> Why:
    """Lay out the components inside the present tab."""
    with gr.Accordion("Look closer: words × neurons, sweeps", open=False, elem_id="why-panel") as panel:
        with gr.Tabs(elem_id="why-tabs"):
            with gr.Tab("Words × neurons", id="why-words"):
                words = _draw_words()
            with gr.Tab("Alpha sweep", id="why-alpha") as tab:
                alpha = _draw_alpha(tab)
            with gr.Tab("Noise sweep", id="why-noise"):
                noise = _draw_noise()
    return Why(panel, words, alpha, noise)


def _status(name: str, hint: str) -> gr.HTML:
    return html(name, status(hint), "buttons.js", ("halt",))


def _draw_words() -> Words:
    with gr.Row(elem_classes="why-asks"):
        which = gr.Radio(
            [UNTOUCHED, STEERED],
            value=UNTOUCHED,
            label="Words of the",
            scale=0,
            min_width=300,
            elem_id="why-which",
        )
        start = gr.Button(
            "Map the words", size="sm", variant="primary", scale=0, min_width=120, elem_id="why-map"
        )
    told = _status("why-words-status", MAP_HINT)
    return Words(which, start, told, html("why-grid", "", "why-grid.js", (*EVERYWHERE, "group")))


def _draw_alpha(tab: gr.Tab) -> Alpha:
    free = {"allow_custom_value": True, "filterable": True}
    with gr.Row(elem_classes="why-asks"):
        neuron = gr.Dropdown([], label="Neuron", scale=2, min_width=140, **free)
        word = gr.Dropdown([], label="Word", scale=2, min_width=140, **free)
        bounds = (
            gr.Number(-SHARE * USUAL, label="From", scale=1, min_width=72),
            gr.Number(SHARE * USUAL, label="To", scale=1, min_width=72),
            gr.Number(17, label="Values", precision=0, minimum=2, maximum=MOST_STEPS, scale=1, min_width=72),
        )
        where = gr.Dropdown([FIRES, ALL], value=FIRES, label="Set", scale=1, min_width=160)
        start = gr.Button("Sweep", size="sm", variant="primary", scale=0, min_width=80, elem_id="why-sweep")
    told = _status("why-alpha-status", ALPHA_HINT)
    chart = gr.Plot(visible=False, show_label=False, container=False, elem_id="why-alpha-chart")
    return Alpha(tab, neuron, word, bounds, where, start, told, chart, html("why-alpha-captions"))


def _draw_noise() -> Noise:
    with gr.Row(elem_classes="why-asks"):
        start = gr.Button("Sweep", size="sm", variant="primary", scale=0, min_width=80, elem_id="why-shake")
    told = _status("why-noise-status", NOISE_HINT)
    with gr.Row(elem_id="why-noise-charts"):
        charts = tuple(
            gr.Plot(visible=False, show_label=False, container=False, elem_id=f"why-noise-{name}")
            for name in ("replaced", "kept")
        )
    return Noise(start, told, charts, html("why-noise-captions"))


def wire(hub: Hub, parts: Why) -> None:
    """Tie every action to its handler."""
    s = hub.states
    asking = Asking(hub.session, hub.looking, hub.steering)
    hub.baseline.why(asking.why_said, [s.visit, s.said, hub.settings], hub.shown, **STREAM)
    hub.steered.why(asking.why_told, [s.visit, s.told], hub.shown, **STREAM)
    hub.then_steer(hub.cards.mend(asking.mend, [s.visit, hub.bench], hub.bench, **QUICK))
    told = (parts.words.status, parts.alpha.status, parts.noise.status)
    for part in (hub.cards, *told):
        part.halt(asking.halt, s.visit, None, **AT_ONCE)
    studies = Studies(hub.session, asking)
    _wire_words(hub, parts.words, studies)
    _wire_alpha(hub, parts, studies)
    noise = parts.noise
    noise.start.click(
        studies.sweep_noise,
        [s.visit, s.said, hub.settings],
        [noise.status, *noise.charts, noise.captions],
        **STREAM,
    )
    s.visit.change(_cleared, None, _results(parts), **AT_ONCE)
    ends = list(parts.alpha.bounds[:2])
    s.visit.change(_ends, [s.visit, *ends], ends, **AT_ONCE)


def _wire_words(hub: Hub, words: Words, studies: Studies) -> None:
    s = hub.states
    asked = [s.visit, s.said, s.told, words.which, hub.settings]
    words.start.click(studies.map_words, asked, [words.grid, words.status], **STREAM)
    words.grid.group(studies.put_group, [s.visit, hub.bench], hub.bench, **QUICK)


def _wire_alpha(hub: Hub, parts: Why, studies: Studies) -> None:
    s, alpha = hub.states, parts.alpha
    for known in (parts.panel.expand, alpha.tab.select, s.focus.change):
        known(studies.neurons, [s.visit, s.focus, hub.bench, alpha.neuron], alpha.neuron, **QUICK)
    s.said.change(studies.words, s.said, alpha.word, **QUICK)
    alpha.start.click(
        studies.sweep_alpha,
        [s.visit, s.said, alpha.neuron, alpha.word, *alpha.bounds, alpha.where, hub.settings],
        [alpha.status, alpha.chart, alpha.captions],
        **STREAM,
    )


def _results(parts: Why) -> list[object]:
    """What another picture clears."""
    words, alpha, noise = parts.words, parts.alpha, parts.noise
    return [
        words.status, words.grid, alpha.status, alpha.chart, alpha.captions,
        noise.status, *noise.charts, noise.captions,
    ]  # fmt: skip


def _ends(visit: Visit | None, low: float | None, high: float | None) -> tuple[object, object]:
    """The ends of a sweep, by the size of the picture's activations; those that a person typed stay."""
    if visit is None or low is None or high is None or low != -high or not _is_ours(high):
        return gr.skip(), gr.skip()
    end = SHARE * reach(visit.view)
    return -end, end


def _is_ours(end: float) -> bool:
    """Whether an end is one that `_ends` gives."""
    if end <= 0:
        return False
    decades = math.log10(end / SHARE)
    return abs(decades - round(decades)) < 1e-6


def _cleared() -> tuple[object, ...]:
    """The panel as it was at first: its results were of the former picture."""
    gone = gr.update(value=None, visible=False)
    return status(MAP_HINT), "", status(ALPHA_HINT), gone, "", status(NOISE_HINT), gone, gone, ""
