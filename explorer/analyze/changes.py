"""Which of a picture's strongest neurons noise replaces, by class: eq 3 of Contrastive Neuron Steering
(arXiv 2602.00621) for always-on neurons, image-specific ones and the rest.

Knows activations; nothing of models or noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from explorer.analyze.columns import columns
from explorer.sae import SparseCodes
from explorer.steer import top_mask

CLASSES = ("all", "always_on", "image_specific", "others")
"""Of the k strongest: all, those that are always on, and those that are not; others: the next k, without
the always-on ones. A class's change ratio is the share of its neurons that left the k strongest (others:
the 2 k strongest) under noise."""

K = 20


@dataclass(frozen=True, eq=False)
class Changes:
    """What noise did by class, [..., 4] float64 in the order of CLASSES, NaN where a class is empty.

    image: change ratios of the activations' means over the picture; patch: of each patch by itself, the mean
    over the patches that have the class; kept: how much is left of the sum of the activations of the
    class at the image level (above 1: more than without noise).
    """

    image: np.ndarray
    patch: np.ndarray
    kept: np.ndarray


def changes(
    clean: SparseCodes, noisy: SparseCodes, patches: int, always_on: Sequence[int] = (), k: int = K
) -> Changes:
    """What one draw of noise did to one picture: [4] each. patches: how many the picture has."""
    names = torch.unique(torch.cat([clean.neurons, noisy.neurons]))
    if not len(names):
        return Changes(*np.full((3, len(CLASSES)), np.nan))
    always = torch.isin(names, torch.tensor(list(always_on), dtype=torch.int64))
    before, after = (columns(codes, names.numpy(), patches).double() for codes in (clean, noisy))
    means = before.mean(dim=0), after.mean(dim=0)
    members = _members(means[0], always, k).double()
    kept = _share(members @ means[1], members @ means[0])
    return Changes(
        change_by_class(*means, always, k).numpy(),
        change_by_class(before, after, always, k).nanmean(dim=0).numpy(),
        kept.numpy(),
    )


def change_by_class(clean: Tensor, noisy: Tensor, always_on: Tensor, k: int = K) -> Tensor:
    """The change ratios of activations [..., F] under noise: [..., 4] float64, in the order of CLASSES.

    always_on: [F] bool. Only neurons that fire count; where fewer than k do, the ratio is of those. NaN
    for a class without any.
    """
    members = _members(clean, always_on, k)
    top, further = _strongest(noisy, k), _strongest(noisy, 2 * k)
    stayed = members & torch.stack([top, top, top, further])
    were = members.sum(-1).double()
    return _share(were - stayed.sum(-1), were).movedim(0, -1)


def _members(z: Tensor, always_on: Tensor, k: int) -> Tensor:
    """Who belongs to each class: [4, ..., F] bool."""
    top, further = _strongest(z, k), _strongest(z, 2 * k)
    return torch.stack([top, top & always_on, top & ~always_on, further & ~top & ~always_on])


def _strongest(z: Tensor, k: int) -> Tensor:
    return top_mask(z, min(k, z.shape[-1]), active_only=True)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, NaN where there is no whole."""
    return part / torch.where(whole > 0, whole, torch.nan)
