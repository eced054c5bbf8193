"""Does the model still say the same when the SAE's reconstruction takes the place of what it describes?

Greedy captions and next-token distributions, of the untouched model and with the bare reconstruction of
the patches. Knows sessions; nothing of training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import torch
from PIL import Image

from explorer.errors import ImageError, ModelError
from explorer.sae import SAE
from explorer.sae.team import ALONE, Team
from explorer.session import Session, View
from explorer.vlm.base import LVLM

TOGETHER = 8
"""Pictures that are asked about in one batch."""


class Preserved(NamedTuple):
    """How much of the captions the reconstruction leaves, as means over pictures.

    captions: share of the pictures whose caption is the same, letter for letter; tokens: share of a caption's
    places with the same token (of the longer one's); divergence: Kullback-Leibler divergence, in nats, of
    the next token with the reconstruction from that without, mean over the places of the plain caption;
    pictures: how many there were, without those that the model cannot take in.
    """

    captions: float
    tokens: float
    divergence: float
    pictures: int


def preserved(
    lvlm: LVLM,
    sae: SAE,
    images: Iterable[Image.Image],
    max_new_tokens: int = 64,
    team: Team = ALONE,
) -> Preserved | None:
    """Ask about the pictures, and about their reconstructions. None for no picture.

    images: those of this process; the figures are of all processes of the team.
    """
    session = Session(lvlm, sae)
    sums = torch.zeros(4, dtype=torch.float64)
    for part in _alike(session, images):
        try:
            sums += torch.tensor(_compare(session, part, max_new_tokens), dtype=torch.float64)
        except ModelError:  # their prompt is too long for the model
            continue
    same, tokens, divergence, count = team.total(sums.to(sae.b_dec.device)).tolist()
    return Preserved(same / count, tokens / count, divergence / count, int(count)) if count else None


def _compare(session: Session, looked: list[View], max_new_tokens: int) -> list[float]:
    """Sums over some pictures of one form, in the order of `Preserved`."""
    lvlm, prompt = session.lvlm, session.lvlm.default_prompt
    views = [(view, ()) for view in looked]
    plain = session.answers(views, prompt, max_new_tokens=max_new_tokens)
    with_sae = session.answers(views, prompt, replace=True, max_new_tokens=max_new_tokens)
    tokens = divergence = 0.0
    for view, one, other in zip(views, plain, with_sae, strict=True):
        tokens += agreement(lvlm.answer_tokens(one), lvlm.answer_tokens(other))
        expected = session.next_words([view], prompt, one).double()
        found = session.next_words([view], prompt, one, replace=True).double()
        divergence += float((expected.exp() * (expected - found)).sum(-1).mean())
    same = sum(one == other for one, other in zip(plain, with_sae, strict=True))
    return [float(same), tokens, divergence, float(len(views))]


def agreement(one: list[int], other: list[int]) -> float:
    """The share of places with the same token, of the longer list's places; 1 for two empty lists."""
    longer = max(len(one), len(other))
    return sum(a == b for a, b in zip(one, other, strict=False)) / longer if longer else 1.0


def _alike(session: Session, images: Iterable[Image.Image]) -> Iterator[list[View]]:
    """Lists of at most TOGETHER pictures that came together and fit one batch."""
    arriving = iter(images)
    while part := list(islice(arriving, TOGETHER)):
        groups: list[list[View]] = []
        for image in part:
            try:
                view = session.look(image)
            except ImageError:
                continue
            fitting = [group for group in groups if group[0].prepared.alike(view.prepared)]
            if fitting:
                fitting[0].append(view)
            else:
                groups.append([view])
        yield from groups
