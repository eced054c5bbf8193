"""How many pictures a model works on at once, so that large ones take no more memory than many small ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from explorer.vlm.base import Prepared

TOKENS = 32_768
"""Tokens of the tower that are worked on at once; a single picture may have more."""

One = TypeVar("One")


def shares(asked: Sequence[One], like: Prepared) -> Iterator[Sequence[One]]:
    """What is asked of pictures of one form, `like`, in order, as many at a time as TOKENS allows."""
    tokens = max(1, like.tokens, like.grid.rows * like.grid.cols)
    size = max(1, TOKENS // tokens)
    for start in range(0, len(asked), size):
        yield asked[start : start + size]
