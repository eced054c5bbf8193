"""Draws words x neurons as a table of buttons: three measures in each cell, groups of alike neurons above.

Which measure colours the cells is chosen in the browser (assets/ui/why-grid.js). Knows the record of the map
and HTML; nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

import numpy as np

from explorer.analyze.words import WordMap
from explorer.ui.buttons import does
from explorer.ui.why.telling import Named, number

MEASURES = (("effect", "measured effect"), ("gradient", "gradient"), ("attention", "attention"))
CAPTION = (
    "Effect: what the word loses when the neuron is set to 0. Gradient: the guess at it. Attention: how much "
    "of the neuron the word looked at. Neurons that matter to the same words stand together, in groups."
)
_FULL = 99
"""Percentile of the sizes that has the full colour, so that one loud cell does not silence the rest."""


def grid(found: WordMap, named: Named) -> str:
    """The map with its switch, legend and read-out. named: gives a neuron's name with its number."""
    names = [named(neuron) for neuron in found.neurons]
    colors = [_colors(getattr(found, measure)) for measure, _ in MEASURES]
    rows = "".join(
        f'<tr><th scope="row">{escape(word.text)}</th>'
        + "".join(_cell(found, names, colors, w, n) for n in range(len(names)))
        + "</tr>"
        for w, word in enumerate(found.words)
    )
    switch = "".join(
        f'<button type="button" data-measure="{measure}" aria-pressed="{str(measure == "effect").lower()}">'
        f"{said}</button>"
        for measure, said in MEASURES
    )
    told = f"{found.measured} of {found.firing} neurons that fire were measured; {len(names)} matter most."
    return (
        f'<div class="wordmap" data-by="effect"><div class="wm-tools">'
        f'<span class="segments" role="group" aria-label="Colour the cells by">{switch}</span>'
        f'<span class="wm-legend"><i class="against"></i>speaks against'
        f'<i class="for"></i>speaks for</span></div>'
        f'<div class="wm-scroll" tabindex="0" role="region" aria-label="Words by neurons">'
        f"<table><thead>{_groups(found, names)}{_heads(found, names)}</thead>"
        f"<tbody>{rows}</tbody></table></div>"
        f'<div class="wm-told" role="status" aria-live="polite"><span class="quiet">'
        f"Choose a cell; arrow keys move over them.</span></div>"
        f'<p class="caption">{CAPTION} {told}</p></div>'
    )


def _groups(found: WordMap, names: Sequence[str]) -> str:
    """A button over each group of alike neurons: all of them onto the bench, those that do most first."""
    cells, strength = "", np.abs(found.effect).max(axis=0)
    for group, places in groupby(range(len(names)), key=lambda i: int(found.clusters[i])):
        inside = sorted(places, key=lambda i: -strength[i])
        members = [found.neurons[i] for i in inside]
        said = f"Group {group + 1}: {len(members)} neuron{'s' if len(members) > 1 else ''}"
        listed = ", ".join(names[i] for i in inside[:6]) + (" …" if len(members) > 6 else "")
        label = said if len(members) > 4 else str(group + 1)
        cells += (
            f'<th colspan="{len(members)}" scope="colgroup"><button type="button" class="wm-group" '
            f'{does("group", neurons=members)} title="{escape(f"{said} onto the bench: {listed}")}" '
            f'aria-label="{escape(said)}, onto the bench">{label}</button></th>'
        )
    return f'<tr class="groups"><th scope="col"><span class="unseen">Word</span></th>{cells}</tr>'


def _heads(found: WordMap, names: Sequence[str]) -> str:
    cells = ""
    for i, (neuron, name) in enumerate(zip(found.neurons, names, strict=True)):
        first = " first" if i and found.clusters[i] != found.clusters[i - 1] else ""
        always = " (always on)" if found.always_on[i] else ""
        cells += (
            f'<th scope="col" class="{first.strip()}"><button type="button" class="wm-head" '
            f'data-neuron="{neuron}" title="{escape(name + always)}: show where it fires">'
            f"<span>{escape(name)}</span></button></th>"
        )
    return f'<tr class="names"><td></td>{cells}</tr>'


def _cell(found: WordMap, names: Sequence[str], colors: Sequence[np.ndarray], w: int, n: int) -> str:
    """One word and one neuron."""
    effect, gradient = _signed(found.effect[w, n]), _signed(found.gradient[w, n])
    said = (
        f"“{found.words[w].text}” × {names[n]}: effect {effect} nats, gradient {gradient}, "
        f"attention {found.attention[w, n]:.2f}"
    )
    paint = ";".join(f"--{m[0]}:{_alpha(c[w, n])}" for (m, _), c in zip(MEASURES, colors, strict=True))
    signs = "".join("-" if getattr(found, m)[w, n] < 0 else "+" for m, _ in MEASURES)
    first = ' class="first"' if n and found.clusters[n] != found.clusters[n - 1] else ""
    stop = 0 if w == 0 and n == 0 else -1
    return (
        f'<td{first}><button type="button" class="wm-cell" tabindex="{stop}" '
        f'data-neuron="{found.neurons[n]}" '
        f'data-signs="{signs}" style="{paint}" aria-label="{escape(said)}"></button></td>'
    )


def _colors(values: np.ndarray) -> np.ndarray:
    """How strongly each cell is coloured, 0 to 1: the root of the size, so that small ones are seen."""
    sizes = np.abs(np.nan_to_num(values))
    top = float(np.percentile(sizes, _FULL)) if sizes.size else 0.0
    top = top or float(sizes.max(initial=0.0)) or 1.0
    return np.sqrt(np.clip(sizes / top, 0.0, 1.0))


def _alpha(share: float) -> str:
    return f"{100 * float(share):.0f}%"


def _signed(value: float) -> str:
    rounded = round(float(value), 2) or 0.0
    return f"{'+' if rounded > 0 else ''}{number(rounded)}"
