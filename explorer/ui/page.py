"""The whole page: title, tabs, theme and style. `build` gives the Blocks, `look` what `launch` needs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import gradio as gr

from explorer.cases.examples import load_examples
from explorer.session import Session
from explorer.ui import api, health, notices, serving
from explorer.ui.cases import layout as cases
from explorer.ui.clicks import count_each
from explorer.ui.gallery import layout as gallery
from explorer.ui.hub import Hub, Rules, html, states
from explorer.ui.neuron import layout as neuron
from explorer.ui.plain import guard
from explorer.ui.why import layout as why
from explorer.ui.workspace import layout as workspace
from explorer.ui.workspace import suggesting
from explorer.ui.workspace.looking import Looking
from explorer.ui.workspace.opening import Opening
from explorer.ui.workspace.steering import Steering

STYLES = Path(__file__).resolve().parents[2] / "assets" / "ui"
SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def build(session: Session, rules: Rules | None = None, opened: health.Opening | None = None) -> gr.Blocks:
    """The page on one session. opened: how it was opened, for the line at the top."""
    rules, opened = rules or Rules(), opened or health.Opening()
    looking = Looking(session)
    steering = Steering(session, looking.strips)
    opening = Opening(looking, steering, load_examples())
    with gr.Blocks(title="Visual neurons", fill_width=True, delete_cache=(60, serving.KEPT)) as page:
        kept = states()
        line = health.draw(session, opened)
        html("store-notice", notices.no_store(session, rules), "notices.js")
        with gr.Tabs(selected="workspace", elem_id="tabs") as tabs:
            with gr.Tab("Workspace", id="workspace", render_children=True):
                work = workspace.draw(suggesting.placeholder(session))
                explained = why.draw()
            with gr.Tab("Gallery", id="gallery"):
                shown = gallery.draw()
                one = neuron.draw()
            with gr.Tab("Cases", id="cases"):
                filed = cases.draw()
        hub = Hub(
            session=session,
            rules=rules,
            looking=looking,
            steering=steering,
            opening=opening,
            page=page,
            tabs=tabs,
            states=kept,
            stage=work.picture.stage,
            cards=work.neurons.cards,
            shelf=work.picture.shelf,
            notices=work.notices,
            prompt=work.answers.prompt,
            questions=work.answers.questions,
            baseline=work.answers.baseline,
            steered=work.answers.steered,
            bench=work.bench.bench,
            settings=work.bench.settings,
            emitters=[work.neurons.cards, *explained.emitters, *shown.emitters, *one.emitters],
        )
        api.wire(hub)  # first: the names of its endpoints are taken as they are
        workspace.wire(hub, work)
        why.wire(hub, explained)
        gallery.wire(hub, shown)
        like_it = partial(gallery.show_similar, hub, shown)
        neuron.wire(hub, one, partial(gallery.refresh, hub, shown), like_it)
        cases.wire(hub, filed)
        health.wire(hub, line, opened)
        serving.wire(hub)
    count_each(page)
    guard(page)
    page.queue(default_concurrency_limit=8, max_size=hub.rules.queue)
    return page


def theme() -> gr.themes.Base:
    """A plain theme on the machine's own fonts, with one accent."""
    return gr.themes.Base(
        primary_hue="teal", neutral_hue="slate", font=SANS, font_mono=MONO, radius_size="md", text_size="sm"
    )


def style() -> str:
    """All style sheets: the common one first, then those of the parts by name."""
    sheets = sorted(STYLES.glob("*.css"), key=lambda path: (path.name != "style.css", path.name))
    return "\n".join(sheet.read_text(encoding="utf-8") for sheet in sheets)


def head() -> str:
    """What the head of the page holds: scripts of the whole page, the one first that runs before the
    framework opens a stream."""
    scripts = [(STYLES / name).read_text(encoding="utf-8") for name in ("streams.js", "bring.js")]
    return "".join(f"<script>{script}</script>" for script in scripts)


def look() -> dict[str, object]:
    """Arguments of `launch` that decide how the page looks."""
    return {"theme": theme(), "css": style(), "head": head(), "footer_links": []}
