"""Decides what stands in a scene and where; draws nothing.

Content first (theme, kinds, counts, colours, by the priors or against one of them), then
places in unit coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from explorer.world.concepts import BY_NAME, INDEX, TABLE, THEMES, Concept, by_theme
from explorer.world.priors import CASES, PARTNER, PRIORS, Case
from explorer.world.sprites import STYLES
from explorer.world.words import Kind

MOST_OBJECTS = 6
_PARTNERS = {prior.partner for prior in PRIORS}


@dataclass(frozen=True)
class Placement:
    """One object to be drawn: x, y is its centre and side its long side, as shares of the picture."""

    concept: str
    color: str | None
    style: str
    x: float
    y: float
    side: float
    mirror: bool
    angle: float
    brightness: float


@dataclass(frozen=True)
class Content:
    """What a scene shows before it is laid out; case is None for ordinary scenes."""

    theme: str
    kinds: tuple[Kind, ...]
    case: Case | None = None


def _color(rng: np.random.Generator, concept: Concept) -> str | None:
    if not concept.colors:
        return None
    weights = np.fromiter(concept.colors.values(), float)
    return str(rng.choice(list(concept.colors), p=weights / weights.sum()))


def _count(rng: np.random.Generator, name: str, room: int) -> int:
    """1 to 3 of a kind; strawberries come in numbers, partners of a prior alone."""
    if name in _PARTNERS:
        return 1
    odds = (0.3, 0.3, 0.4) if name == "strawberry" else (0.7, 0.18, 0.12)
    return int(min(room, rng.choice((1, 2, 3), p=odds)))


def _kinds(
    rng: np.random.Generator, names: list[str], forced: dict[str, int], colors: dict[str, str]
) -> tuple[Kind, ...]:
    room, kinds = MOST_OBJECTS, []
    for i, name in enumerate(names):
        left = len(names) - i - 1
        count = forced.get(name) or _count(rng, name, max(1, room - left))
        room -= count
        kinds.append(Kind(name, count, colors.get(name) or _color(rng, BY_NAME[name])))
    return tuple(sorted(kinds, key=lambda kind: INDEX[kind.concept]))


def _with_partners(rng: np.random.Generator, names: list[str], most: int) -> list[str]:
    """Apply every prior once: an anchor brings its partner, or (rarely) keeps it away."""
    kept = list(names)
    for name in names:
        prior = PARTNER.get(name)
        if prior is None:
            continue
        present = bool(rng.random() < prior.p)
        if present and prior.partner not in kept:
            kept.append(prior.partner)
        if not present and prior.partner in kept:
            kept.remove(prior.partner)
    while len(kept) > most:
        loose = [n for n in kept if n not in PARTNER and n not in _PARTNERS]
        kept.remove(loose[-1] if loose else kept[0])
    return kept


def ordinary(rng: np.random.Generator) -> Content:
    """The content of an ordinary scene: mostly at-home kinds, tied by the priors."""
    theme = THEMES[int(rng.integers(len(THEMES)))]
    home = [concept.name for concept in by_theme(theme)]
    wanted = int(rng.choice((1, 2, 3, 4, 5), p=(0.12, 0.24, 0.28, 0.22, 0.14)))
    names: list[str] = []
    while len(names) < wanted:
        stray = rng.random() < 0.25
        name = TABLE[int(rng.integers(len(TABLE)))].name if stray else home[int(rng.integers(len(home)))]
        if name in _PARTNERS and rng.random() < 0.6:
            continue
        if name not in names:
            names.append(name)
    return Content(theme, _kinds(rng, _with_partners(rng, names, 5), {}, {}))


def counterfactual(rng: np.random.Generator, case: Case) -> Content:
    """The content of a scene that breaks one prior: the anchor without the partner."""
    names = list(case.shown)
    if case.occluder:
        names.append(case.occluder)
    if not case.alone:
        barred = {case.absent, *names} | {p.anchor for p in PRIORS} | _PARTNERS
        home = [c.name for c in by_theme(case.theme) if c.name not in barred]
        extra = int(rng.choice((0, 1, 2), p=(0.5, 0.35, 0.15)))
        names += [str(n) for n in rng.choice(home, size=min(extra, len(home)), replace=False)]
    forced = {name: 1 for name in case.shown} | dict(case.counts)
    if case.occluder:
        forced[case.occluder] = 1
    return Content(case.theme, _kinds(rng, names, forced, dict(case.colors)), case)


def content(rng: np.random.Generator, seed: int, family: str) -> Content:
    """What the scene of this seed and family shows."""
    if family == "ordinary":
        return ordinary(rng)
    return counterfactual(rng, CASES[seed % len(CASES)])


def _overlap(a: Placement, b: Placement) -> float:
    """Overlap of two square boxes as a share of the smaller one."""
    w = min(a.x + a.side / 2, b.x + b.side / 2) - max(a.x - a.side / 2, b.x - b.side / 2)
    h = min(a.y + a.side / 2, b.y + b.side / 2) - max(a.y - a.side / 2, b.y - b.side / 2)
    return max(0.0, w) * max(0.0, h) / min(a.side, b.side) ** 2


def _settle(rng: np.random.Generator, thing: Placement, others: list[Placement], crowd: float) -> Placement:
    """Try places until the overlap with what stands is small (or, at times, a partial occlusion)."""
    limit = 0.55 if rng.random() < 0.18 else 0.08
    tries = rng.random((14, 2))
    best, least = thing, np.inf
    for u, v in tries:
        half = thing.side * 0.46
        spot = replace(
            thing,
            x=float(half + u * (1 - 2 * half)),
            y=float(max(half, 0.12) + v * (1 - half - max(half, 0.12))),
        )
        worst = max((_overlap(spot, other) for other in others), default=0.0)
        if worst <= limit:
            return spot
        if worst < least:
            best, least = spot, worst
    return replace(best, side=best.side * crowd)


def places(rng: np.random.Generator, scene: Content, style: str | None) -> list[Placement]:
    """Where everything stands, back to front. One style per scene unless it is given."""
    drawn = STYLES[int(rng.integers(len(STYLES)))]
    chosen = style or drawn
    total = sum(kind.count for kind in scene.kinds)
    shrink = 1.0 if total <= 3 else (0.92 if total <= 4 else 0.84)
    placed: list[Placement] = []
    for kind in sorted(scene.kinds, key=lambda k: -BY_NAME[k.concept].size[1]):
        low, high = BY_NAME[kind.concept].size
        side = float(rng.uniform(low, high)) * shrink
        for _ in range(kind.count):
            u = rng.random(5)
            thing = Placement(
                kind.concept,
                kind.color,
                chosen,
                0.5,
                0.5,
                max(0.15, side * (0.92 + 0.16 * u[0])),
                bool(u[1] < 0.5),
                float(round((u[2] - 0.5) * 24)) if u[3] < 0.6 else 0.0,
                (0.8, 0.9, 1.0, 1.1)[int(u[4] * 4)],
            )
            placed.append(_settle(rng, thing, placed, 0.85))
    if scene.case is None:
        return [placed[i] for i in rng.permutation(len(placed))]
    return _staged(rng, scene.case, placed)


def _staged(rng: np.random.Generator, case: Case, placed: list[Placement]) -> list[Placement]:
    """A counterfactual's own touches: what it shows in front, the dim first object, its occluder."""
    front = [thing for thing in placed if thing.concept in case.shown]
    back = [thing for thing in placed if thing.concept not in (*case.shown, case.occluder)]
    first = next(i for i, thing in enumerate(front) if thing.concept == case.shown[0])
    anchor = replace(front[first], brightness=round(front[first].brightness * case.dim, 2))
    front[first] = anchor
    if case.occluder is None:
        return [*back, *front]
    cover = next(thing for thing in placed if thing.concept == case.occluder)
    inward = 1 if anchor.x < 0.5 else -1
    shift = (0.30 + 0.12 * float(rng.random())) * anchor.side * inward
    return [*back, *front, replace(cover, x=anchor.x + shift, y=min(0.85, anchor.y + 0.05))]
