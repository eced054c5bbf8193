"""The upper and personal parts of a neuron's page as HTML: its name, what people keep of it, and what
it does in the visitor's picture.

Knows the shared records and HTML; asks no session and no store.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from types import MappingProxyType
from typing import NamedTuple

from explorer.records import FAVOURITES, NeuronList, NeuronSummary, Note
from explorer.ui.buttons import does
from explorer.ui.marks import badge, name_of, percent
from explorer.ui.neuron.numbers import short

LONGEST_NAME, LONGEST_NOTE, LONGEST_LIST = 200, 20_000, 80
MOST_LINKS = 40
"""Neurons of a list that are shown as links; the gallery shows all."""

STAR = (
    '<svg viewBox="0 0 24 24" width="18" height="18" aria-hidden="true"><path d="M12 3.6l2.6 5.3 5.8.8-4.2 '
    '4.1 1 5.8-5.2-2.7-5.2 2.7 1-5.8L3.6 9.7l5.8-.8z"/></svg>'
)


class Kept(NamedTuple):
    """What people keep of a neuron. note: None when nobody wrote one; lists: those that it is in;
    everything: all lists; names: of the neurons in them, for people."""

    note: Note | None
    lists: tuple[str, ...]
    everything: tuple[NeuronList, ...] = ()
    names: Mapping[int, str] = MappingProxyType({})


NOTHING_KEPT = Kept(None, ())


class Here(NamedTuple):
    """The neuron in the visitor's picture. title, tile: the picture's name, and a small one with the heat as
    a data URI; peak, row, col: its strongest patch; score: as the store scores pictures; below: share of
    the indexed pictures in which it fires that it beats, None when nobody knows."""

    title: str
    tile: str
    peak: float
    row: int
    col: int
    score: float
    below: float | None


def head(neuron: int, total: int, summary: NeuronSummary | None, kept: Kept, writable: bool) -> str:
    """The way back, the neighbours by number, the name, and what to do with the neuron."""
    own = kept.note.name if kept.note else ""
    name = name_of(neuron, summary, own)
    known = summary is not None
    number = "" if name == f"neuron {neuron}" else f'<span class="number">#{neuron}</span>'
    mark = badge(summary.neuron_class) if known else ""
    return (
        f'<nav class="ways" aria-label="Neurons" data-neuron="{neuron}">'
        f'<button type="button" class="leave" {does("leave")}>Back to the gallery</button>'
        f'<form class="numbers" data-form="page">{_step(neuron - 1, total, "Previous")}'
        f'<label>Neuron <input type="number" name="neuron" min="0" max="{total - 1}" step="1" '
        f'value="{neuron}" required></label><span class="quiet">of {total:,}</span>'
        f"{_step(neuron + 1, total, 'Next')}</form>"
        f'<button type="button" class="copy" data-copy="?neuron={neuron}">Copy link</button>'
        '<span class="copied quiet" role="status"></span></nav>'
        f'<div class="title-row"><h2 tabindex="-1">{escape(name)}</h2>{number}{mark}'
        f"{_star(name, kept, writable)}"
        f'<span class="acts"><button type="button" class="plain" {does("attempt", neuron=neuron)}>'
        'Try on my picture</button><button type="button" class="strong" '
        f"{does('put', neuron=neuron)}>Steer with it</button></span></div>"
        f'<p class="sum">{_sum(summary, own)}</p>'
    )


def _step(neuron: int, total: int, word: str) -> str:
    off = "" if 0 <= neuron < total else " disabled"
    arrow = "‹" if word == "Previous" else "›"
    return (
        f'<button type="button" class="step" {does("page", neuron=neuron)}{off} '
        f'aria-label="{word} neuron" title="{word} neuron">{arrow}</button>'
    )


def _star(name: str, kept: Kept, writable: bool) -> str:
    on = FAVOURITES in kept.lists
    if not writable:
        return f'<span class="star on" title="A favourite">{STAR}</span>' if on else ""
    words = f"{'Take' if on else 'Put'} {name} {'off' if on else 'on'} the favourites"
    return (
        f'<button type="button" class="star{" on" if on else ""}" {does("star", on=not on)} '
        f'aria-pressed="{str(on).lower()}" aria-label="Favourite" title="{escape(words)}">{STAR}</button>'
    )


def _sum(summary: NeuronSummary | None, own: str) -> str:
    """One or two sentences about the neuron."""
    if summary is None:
        return "Nothing is known of it but its direction: this page runs without a store."
    if summary.neuron_class == "dead":
        return "It fired in no indexed picture, so nobody knows what it stands for."
    label = escape(summary.label.replace("_", " "))
    if label:
        stands = f"Its label is <b>{label}</b>" if own else f"It stands for <b>{label}</b>"
        stands += f": {percent(summary.precision)} of its exemplars show it. "
    else:
        stands = "No label fits its exemplars. "
    return f"{stands}It fires in {percent(summary.fires)} of the indexed pictures."


def here(found: Here | None) -> str:
    """What the neuron does in the visitor's picture."""
    if found is None:
        body = (
            '<p class="quiet">No picture is open. Choose one in the workspace to see what it does there.</p>'
        )
        return f'<section class="mine-picture"><header><h2>In your picture</h2></header>{body}</section>'
    if found.peak <= 0:
        words = "It is silent there."
    else:
        words = (
            f"Strongest at row {found.row + 1}, column {found.col + 1}: "
            f'<b class="value">{short(found.peak)}</b>. '
            f'Its score is <b class="value">{short(found.score)}</b>'
        )
        words += (
            "." if found.below is None else f", above {percent(found.below)} of the pictures where it fires."
        )
    return (
        '<section class="mine-picture"><header><h2>In your picture</h2>'
        f'<p class="quiet">{escape(found.title)}</p></header><div class="both">'
        f'<img src="{found.tile}" alt="{escape(found.title)} with its heat" width="96" height="96">'
        f"<p>{words}</p></div></section>"
    )


def keeping(neuron: int, kept: Kept, writable: bool, saved: str = "", replaced: Note | None = None) -> str:
    """The own name, the note and the lists.

    saved: a sign that changes with each save, "" when nothing was saved just now; replaced: what another
    person had written meanwhile, and this save replaced.
    """
    note = kept.note or Note(neuron, "", "", "")
    if writable:
        written = _editor(neuron, note, saved, replaced)
    elif note.name or note.note:
        written = (
            f'<p class="written"><b>{escape(note.name)}</b></p><p class="written">{escape(note.note)}</p>'
        )
    else:
        written = '<p class="quiet">Nobody has written anything.</p>'
    shared = "Whoever uses this page sees them." if writable else "This page is read-only."
    return (
        f'<div class="sheets"><section class="notes" data-neuron="{neuron}"><header><h2>Name and note</h2>'
        f'<p class="quiet">{shared}</p></header>{written}</section>'
        f'<section class="lists"><header><h2>Lists</h2></header>{_memberships(kept, writable)}'
        f"{_everything(kept)}</section></div>"
    )


def _editor(neuron: int, note: Note, saved: str, replaced: Note | None) -> str:
    told = "Saved." if saved else ""
    before = ""
    if replaced is not None:
        told = "Saved. It replaced what somebody wrote meanwhile:"
        before = f'<p class="replaced"><b>{escape(replaced.name)}</b> {escape(replaced.note)}</p>'
    return (
        f'<form data-form="save" data-neuron="{neuron}" data-changed="{escape(note.changed)}" '
        f'data-saved="{escape(saved)}"><div class="field"><label for="neuron-own-name">Own name</label>'
        f'<input type="text" id="neuron-own-name" name="name" '
        f'maxlength="{LONGEST_NAME}" value="{escape(note.name)}" autocomplete="off" '
        'placeholder="What would you call it?"></div><div class="field"><label for="neuron-note">Note</label>'
        f'<textarea id="neuron-note" name="note" rows="3" maxlength="{LONGEST_NOTE}" '
        'placeholder="What have you seen it do?">'
        f"\n{escape(note.note)}</textarea></div>"
        f'<div class="line"><button type="submit" class="strong">Save</button>'
        f'<span class="told quiet" role="status">{told}</span></div>{before}</form>'
    )


def _memberships(kept: Kept, writable: bool) -> str:
    chips = "".join(
        f'<li class="chip"><span>{escape(name)}</span>'
        + (
            f'<button type="button" {does("unlist", list=name)} aria-label="Take it off {escape(name)}" '
            'title="Take it off this list">×</button>'
            if writable
            else ""
        )
        + "</li>"
        for name in kept.lists
    )
    shown = f'<ul class="chips">{chips}</ul>' if chips else '<p class="quiet">It is in no list.</p>'
    if not writable:
        return shown
    known = "".join(
        f'<option value="{escape(one.name)}"></option>'
        for one in kept.everything
        if one.name not in kept.lists
    )
    return (
        f'{shown}<form class="line" data-form="enlist"><input type="text" name="list" '
        f'list="neuron-list-names" '
        f'maxlength="{LONGEST_LIST}" autocomplete="off" required aria-label="Add to a list, old or new" '
        f'placeholder="Add to a list, old or new"><datalist id="neuron-list-names">{known}</datalist>'
        '<button type="submit" class="plain">Add</button></form>'
    )


def _titled(neuron: int, kept: Kept) -> str:
    """The name and the number, each once; not escaped."""
    plain = f"neuron {neuron}"
    name = kept.names.get(neuron, plain)
    return name if name == plain else f"{name} #{neuron}"


def _everything(kept: Kept) -> str:
    """All lists with their neurons as links, and the way to take everything away as a file."""
    rows = "".join(
        f"<details><summary>{escape(one.name)} "
        f'<span class="num">{len(one.neurons):,}</span></summary><p class="links">'
        + "".join(
            f'<button type="button" class="link" {does("page", neuron=neuron)}>'
            f"{escape(_titled(neuron, kept))}</button>"
            for neuron in one.neurons[:MOST_LINKS]
        )
        + (
            f'<span class="quiet">and {len(one.neurons) - MOST_LINKS:,} more</span>'
            if len(one.neurons) > MOST_LINKS
            else ""
        )
        + "</p></details>"
        for one in kept.everything
    )
    lists = f'<div class="all-lists"><h3>All lists</h3>{rows}</div>' if rows else ""
    return (
        f'{lists}<p class="line"><button type="button" class="link" {does("export")}>'
        "Export all notes and lists as JSON</button></p>"
    )
