"""What patches show, from COCO's outlines and boxes. Knows geometry; nothing of files or labels.

A patch shows the object that covers at least half of it; small objects lie over large ones. A region of
many objects ("crowd") is told by its box only: its patches are unknown, unless an object covers them.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from explorer.records import Grid
from index.sources.base import NOTHING, UNKNOWN, PatchTruth
from index.sources.coco_files import Objects
from index.sources.truth import decided

FINE = 12
"""Outlines are drawn with FINE x FINE points per patch."""

_OTHER_SHAPE = 0.03
"""A picture whose sides differ from the annotated ones by more than this share is another picture."""


def object_truth(objects: Objects, here: np.ndarray, size: np.ndarray, grid: Grid) -> PatchTruth:
    """What the patches of a grid show.

    here: the objects of the picture; size: width and height of the annotated picture, zeros when not
    told. A picture of other proportions (turned, cropped) is not the annotated one: all is unknown.
    """
    width, height = size.tolist() if size.all() else (grid.width, grid.height)
    if abs(width * grid.height / (height * grid.width) - 1) > _OTHER_SHAPE:
        unknown = np.full(grid.rows * grid.cols, UNKNOWN, dtype=np.int64)
        return PatchTruth(unknown, np.full_like(unknown, NOTHING))
    scale = np.array([grid.width / width, grid.height / height])
    box = grid.covered
    corner = np.array([box.left, box.top])
    fine = np.array([grid.cols, grid.rows]) * FINE / (np.array([box.right, box.bottom]) - corner)

    def placed(points: np.ndarray) -> np.ndarray:
        """Annotated pixels [n, 2] -> points of the drawing, whose centres are at whole numbers."""
        return ((points.astype(np.float64) * scale - corner) * fine - 0.5).clip(-1e5, 1e5)

    # In the drawing 0 is unknown, 1 nothing, and n + 2 the n-th object that is no crowd.
    drawing = Image.new("I", (grid.cols * FINE, grid.rows * FINE), 1)
    pen = ImageDraw.Draw(drawing)
    for index in here[objects.crowd[here]]:
        if objects.box[index].any():
            _rectangle(pen, placed(objects.box[index].reshape(2, 2)), 0)
        else:
            drawing.paste(0, (0, 0, *drawing.size))
    single = here[~objects.crowd[here]]
    for place in np.argsort(-objects.area[single], kind="stable").tolist():
        outlines = objects.polygons(single[place])
        for outline in outlines:
            pen.polygon(placed(outline).ravel().tolist(), fill=place + 2)
        if not outlines and objects.box[single[place]].any():
            _rectangle(pen, placed(objects.box[single[place]].reshape(2, 2)), place + 2)
    return decided(np.asarray(drawing) - 2, grid.rows, grid.cols, objects.category[single])


def _rectangle(pen: ImageDraw.ImageDraw, corners: np.ndarray, fill: int) -> None:
    """Fill all points whose centres lie within two corners [2, 2]."""
    (left, top), (right, bottom) = np.ceil(corners).astype(int).tolist()
    if right > left and bottom > top:
        pen.rectangle((left, top, right - 1, bottom - 1), fill=fill)
