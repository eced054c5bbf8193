"""Draws scenes with exact ground truth. A scene is fully determined by (seed, family, style).

Layout and truth are computed at the training size; any other size is the same scene painted
larger. Knows nothing of models.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image

from explorer.errors import WorldError
from explorer.records import Box
from explorer.world.backgrounds import Dice, background, roll
from explorer.world.concepts import INDEX
from explorer.world.layout import Content, Placement, content, places
from explorer.world.sprites import STYLES, fitted, sprite
from explorer.world.words import Kind, caption

TRAIN_SIZE = 112
LEAST_VISIBLE = 0.15
FAMILIES: tuple[str, ...] = ("ordinary", "counterfactual")


@dataclass(frozen=True)
class SceneObject:
    """One object as it is seen.

    box: its visible part in pixels of the picture; visible: share of its sprite that shows (0..1).
    """

    concept: str
    color: str | None
    box: Box
    visible: float


@dataclass(frozen=True, eq=False)
class Scene:
    """A drawn picture and the whole truth about it.

    image: RGB; objects: back to front; theme: the place; caption: the reference caption;
    absent_partner: what the broken prior expects and the scene lacks (counterfactual scenes);
    case: the name of that counterfactual; owner: (size, size) int16, the index into `objects`
    of the topmost object at each pixel, -1 for background.
    """

    seed: int
    family: str
    image: Image.Image
    objects: tuple[SceneObject, ...]
    theme: str
    absent_partner: str | None
    case: str | None
    owner: np.ndarray = field(repr=False)

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """Objects grouped by concept, in caption order."""
        counts: dict[str, int] = {}
        colors: dict[str, str | None] = {}
        for thing in self.objects:
            counts[thing.concept] = counts.get(thing.concept, 0) + 1
            colors[thing.concept] = thing.color
        return tuple(Kind(name, counts[name], colors[name]) for name in sorted(counts, key=INDEX.__getitem__))

    @property
    def caption(self) -> str:
        """The reference caption."""
        return caption(self.theme, self.kinds)

    def patch_objects(self, rows: int, cols: int, least: float = 0.5) -> np.ndarray:
        """(rows, cols) int: index into `objects` of what covers at least `least` of a patch, else -1."""
        size = self.owner.shape[0]
        if size % rows or size % cols:
            raise WorldError(f"a {rows} x {cols} grid does not divide a picture of {size} px")
        cells = self.owner.reshape(rows, size // rows, cols, size // cols).transpose(0, 2, 1, 3)
        flat = cells.reshape(rows, cols, -1)
        shares = np.stack([(flat == i).mean(-1) for i in range(len(self.objects))], -1)
        best = shares.argmax(-1)
        return np.where(shares.max(-1) >= least, best, -1)

    def patch_concepts(self, rows: int, cols: int, least: float = 0.5) -> np.ndarray:
        """(rows, cols) int: index into CONCEPTS of what covers at least `least` of a patch, else -1."""
        table = np.array([INDEX[thing.concept] for thing in self.objects] + [-1])
        return table[self.patch_objects(rows, cols, least)]


@dataclass(frozen=True)
class _Painted:
    image: Image.Image
    owner: np.ndarray
    full: list[int]


def _paint(theme: str, dice: Dice, placements: list[Placement], size: int) -> _Painted:
    """Paint back to front; full[i] is the pixel count of object i if nothing hid or cut it."""
    image = background(theme, size, dice)
    owner = np.full((size, size), -1, np.int16)
    full = []
    for i, p in enumerate(placements):
        art = fitted(
            sprite(p.style, p.concept, p.color, p.brightness), round(p.side * size), p.mirror, p.angle
        )
        left, top = round(p.x * size - art.width / 2), round(p.y * size - art.height / 2)
        image.paste(art, (left, top), art)
        solid = np.asarray(art.getchannel("A")) > 110
        full.append(int(solid.sum()))
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + art.width, size), min(top + art.height, size)
        part = solid[y0 - top : y1 - top, x0 - left : x1 - left]
        owner[y0:y1, x0:x1][part] = i
    return _Painted(image, owner, full)


def _seen(painted: _Painted, placements: list[Placement]) -> tuple[SceneObject, ...]:
    objects = []
    for i, p in enumerate(placements):
        rows, cols = np.where(painted.owner == i)
        visible = len(rows) / max(1, painted.full[i])
        box = Box(0, 0, 0, 0)
        if len(rows):
            box = Box(float(cols.min()), float(rows.min()), float(cols.max() + 1), float(rows.max() + 1))
        objects.append(SceneObject(p.concept, p.color, box, round(min(1.0, visible), 4)))
    return tuple(objects)


def draw(seed: int, family: str = "ordinary", style: str | None = None, size: int = TRAIN_SIZE) -> Scene:
    """Draw the scene of a seed.

    family: "ordinary" follows the priors; "counterfactual" breaks one of them (`CASES[seed % 7]`).
    style: one of `STYLES`, or None to let the seed choose. size: side of the picture in px.
    Raises WorldError for an unknown family or style or a negative seed.
    """
    if family not in FAMILIES:
        raise WorldError(f"unknown family {family!r}; use {' or '.join(map(repr, FAMILIES))}")
    if style is not None and style not in STYLES:
        raise WorldError(f"unknown style {style!r}; use {' or '.join(map(repr, STYLES))}")
    if seed < 0:
        raise WorldError(f"seed {seed} is negative; seeds count from 0")
    rng = np.random.default_rng([zlib.crc32(family.encode()), seed])
    dice = roll(rng)
    planned: Content = content(rng, seed, family)
    placements = places(rng, planned, style)
    painted = _paint(planned.theme, dice, placements, TRAIN_SIZE)
    objects = _seen(painted, placements)
    kept = [p for p, thing in zip(placements, objects, strict=True) if thing.visible >= LEAST_VISIBLE]
    while len(kept) < len(placements):
        placements = kept
        painted = _paint(planned.theme, dice, placements, TRAIN_SIZE)
        objects = _seen(painted, placements)
        kept = [p for p, thing in zip(placements, objects, strict=True) if thing.visible >= LEAST_VISIBLE]
    if size != TRAIN_SIZE:
        painted = _paint(planned.theme, dice, placements, size)
        boxes = _seen(painted, placements)
        objects = tuple(
            SceneObject(o.concept, o.color, b.box, o.visible) for o, b in zip(objects, boxes, strict=True)
        )
    case = planned.case
    absent = case.absent if case else None
    name = case.name if case else None
    return Scene(seed, family, painted.image, objects, planned.theme, absent, name, painted.owner)
