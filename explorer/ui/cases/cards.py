"""Draws cases: cards with picture, story, both answers, and whether they held when replayed. HTML only."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from PIL import Image

from explorer.cases.case import Case, moves
from explorer.cases.replay import Replay
from explorer.cases.rows import Row
from explorer.cases.settings import Settings
from explorer.ui.buttons import does
from explorer.ui.heat import data_uri
from explorer.ui.workspace.words import mark

THUMB_SIDE = 176
MOST_TOLD = 2
"""Neurons of a bench that a card names."""

NOTHING = "nothing moved"
REGIONS = {"all": "everywhere", "active": "where it fires", "marked": "at marked patches"}
MODES = {"set": "set to", "add": "add", "scale": "times"}
EVENTS = ("case_open", "case_replay", "case_all", "case_halt", "case_file", "case_script", "case_remove")
"""What buttons of cases ask for."""


class Drawn(NamedTuple):
    """The parts of a card that do not change. foreign: what differs here from where the case was made."""

    id: str
    title: str
    notes: str
    question: str
    setup: str
    baseline: str
    steered: str | None
    thumb: str
    foreign: tuple[str, ...]
    mine: bool


def drawn(id: str, case: Case, foreign: tuple[str, ...] = (), mine: bool = False) -> Drawn:
    """A case made ready to draw."""
    return Drawn(
        *(id, case.title, case.notes, case.question, setup(case.rows, case.settings)),
        *(case.baseline, case.steered, thumbnail(case.image()), foreign, mine),
    )


def thumbnail(image: Image.Image) -> str:
    """A small square from the middle of a picture, as a data URI."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    small = image.crop((left, top, left + side, top + side))
    small = small.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS)
    return data_uri(_jpeg(small))


def _jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=82)
    return stream.getvalue()


def setup(bench: Sequence[Row], settings: Settings) -> str:
    """What bench and settings ask for, in a line: "pizza 191 set to -30 where it fires · CNS"."""
    moved = [row for row in bench if moves(row)]
    parts = [_row(row) for row in moved[:MOST_TOLD]]
    if len(moved) > MOST_TOLD:
        parts[-1] += f" and {len(moved) - MOST_TOLD} more"
    if settings.cns:
        parts.append(f"CNS, step {settings.step}, λ {settings.strength:g}")
    if settings.replace:
        parts.append("the SAE's reconstruction")
    if settings.method != "plain":
        parts.append(settings.method.upper())
    if settings.temperature > 0:
        parts.append(f"sampled at {settings.temperature:g}, seed {settings.seed}")
    return " · ".join(parts) or NOTHING


def _row(row: Row) -> str:
    place = REGIONS.get(row.region, f"where {row.concept.replace('_', ' ')} is seen")
    name = row.name or f"neuron {row.neuron}"
    number = "" if str(row.neuron) in name.split() else f" {row.neuron}"
    return f"{name}{number} {MODES[row.mode]} {row.value:g} {place}"


def shipped_list(
    entries: Sequence[Drawn], verdicts: dict[str, Replay], busy: frozenset[str], known: bool = True
) -> str:
    """The stories that ship, with the way to replay them all. known: whether they are about this model."""
    shows = "shows one thing that the model gets wrong, or can be talked into."
    if not known:
        shows = "shows what the embedded model does; this one will answer otherwise."
    done = [verdicts[one.id] for one in entries if one.id in verdicts]
    told = f"{sum(one.holds for one in done)} of {len(done)} replayed hold." if done else ""
    every = f'<button type="button" class="plain" {does("case_all")}>Replay all</button>'
    if busy:
        every = f'<button type="button" class="plain" {does("case_halt")}>Stop replaying</button>'
    return (
        '<header class="list-head"><div><h2>Stories to start from</h2><p class="quiet">Each opens with its '
        f"picture, question and bench, and {shows}"
        f'</p></div><p class="held quiet" role="status">{told}</p>'
        f"{every}</header>"
        f'<div class="case-grid">{_cards(entries, verdicts, busy)}</div>'
    )


def own_list(entries: Sequence[Drawn], verdicts: dict[str, Replay], busy: frozenset[str]) -> str:
    """The cases that this browser kept on the server; nothing when there are none."""
    if not entries:
        return ""
    return (
        '<header class="list-head"><div><h2>Kept from this browser</h2><p class="quiet">Only who has the '
        "link can open them; only this browser can remove them.</p></div></header>"
        f'<div class="case-grid">{_cards(entries, verdicts, busy)}</div>'
    )


def _cards(entries: Sequence[Drawn], verdicts: dict[str, Replay], busy: frozenset[str]) -> str:
    return "".join(card(one, verdicts.get(one.id), one.id in busy) for one in entries)


def card(case: Drawn, verdict: Replay | None = None, busy: bool = False) -> str:
    """One case. verdict: what its replay gave; busy: it is being replayed."""
    name = f"case-{escape(case.id)}"
    return (
        f'<article class="case" id="{name}" aria-labelledby="{name}-title">'
        f'<img class="face" src="{case.thumb}" alt="">'
        f'<header><h3 id="{name}-title">{escape(case.title)}</h3>{_badge(case, verdict, busy)}</header>'
        f'<p class="notes">{_lines(case.notes)}</p>'
        f'<div class="said">{_answers(case.question, case.baseline, case.steered)}</div>'
        f'<p class="setup">{escape(case.setup)}</p>{_differences(case, verdict)}'
        f"<footer>{_buttons(case, busy)}</footer></article>"
    )


def _buttons(case: Drawn, busy: bool) -> str:
    """What can be done with a case; each says of which one to whoever cannot see the card."""
    at, of = {"id": case.id}, escape(case.title)
    shown = f'<button type="button" class="open" {does("case_open", **at)}>Open in workspace</button>'
    more = [
        ("case_replay", "Replay", "Answer again and compare"),
        ("case_file", "File", "Download as a file"),
    ]
    more.append(("case_script", "Script", "Download as a Python script with its picture"))
    more += [("case_remove", "Remove", "Remove from the server")] if case.mine else []
    if busy:
        more[0] = ("case_halt", "Stop", "Stop replaying; what it answered before stays")
    for event, word, told in more:
        shown += (
            f'<button type="button" class="plain" {does(event, **at)} title="{told}" '
            f'aria-label="{word}: {of}">{word}</button>'
        )
    return shown + (
        f'<button type="button" class="plain" data-link="{escape(case.id)}" title="Copy the link" '
        f'aria-label="Link: {of}">Link</button>'
    )


def preview(title: str, photo: str, question: str, baseline: str, steered: str | None, asked: str) -> str:
    """What would be saved now. photo: data URI; asked: bench and settings in a line."""
    line = "" if steered is None and asked == NOTHING else f'<p class="setup">{escape(asked)}</p>'
    return (
        f'<div class="case preview"><img class="face" src="{photo}" alt="">'
        f"<header><h3>{escape(title)}</h3></header>"
        f'<div class="said">{_answers(question, baseline, steered)}</div>'
        f"{line}</div>"
    )


def link(id: str) -> str:
    """The link to a case just kept."""
    return (
        '<div class="case-link"><p><b>Kept.</b> This link opens it, for whoever has it:</p>'
        f'<p class="row"><a href="?case={escape(id)}" data-address="{escape(id)}">?case={escape(id)}</a>'
        f'<button type="button" class="plain" data-link="{escape(id)}">Copy</button></p></div>'
    )


def story(title: str, notes: str) -> str:
    """What the workspace says of the case that is open in it."""
    return f"<b>{escape(title)}.</b> {_lines(notes)}"


def warnings(said: Sequence[str]) -> str:
    """Notices for a case that was made elsewhere."""
    return "".join(f'<p class="notice" role="status">{escape(one)}</p>' for one in said)


def _answers(question: str, baseline: str, steered: str | None) -> str:
    marked = mark(baseline, baseline if steered is None else steered, buttons=False)
    after = '<span class="quiet">Nothing steered.</span>' if steered is None else marked.after
    empty = '<span class="quiet">(no words)</span>'
    return (
        f'<p class="asked">{escape(question)}</p>'
        f'<p class="line"><span class="who">The model says</span><span>{marked.before or empty}</span></p>'
        f'<p class="line"><span class="who">Steered</span><span>{after or empty}</span></p>'
    )


def _badge(case: Drawn, verdict: Replay | None, busy: bool) -> str:
    if busy:
        return '<span class="verdict" role="status">replaying …</span>'
    if verdict is None:
        told = "made elsewhere" if case.foreign else ""
        return f'<span class="verdict">{told}</span>'
    kind, told = ("held", "holds") if verdict.holds else ("broken", "answers differ")
    return f'<span class="verdict {kind}" role="status">{told}</span>'


def _differences(case: Drawn, verdict: Replay | None) -> str:
    """What a replay found different, with the answers of now; before any replay, what will differ."""
    if verdict is None:
        return f'<p class="differs">{escape(" ".join(case.foreign))}</p>' if case.foreign else ""
    if verdict.holds:
        return ""
    now = [f"<p>{escape(' '.join(verdict.differences))}</p>"]
    if verdict.baseline != case.baseline:
        now.append(_now("Now it says", case.baseline, verdict.baseline))
    if verdict.steered is not None and verdict.steered != case.steered:
        now.append(_now("Now, steered", case.steered or case.baseline, verdict.steered))
    return f'<div class="differs">{"".join(now)}</div>'


def _now(who: str, before: str, after: str) -> str:
    marked = mark(before, after, buttons=False)
    return f'<p class="line"><span class="who">{who}</span><span>{marked.after}</span></p>'


def _lines(text: str) -> str:
    return "<br>".join(escape(line) for line in text.split("\n"))
