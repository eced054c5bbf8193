"""A part of a source: its first pictures, or some that are spread evenly over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from explorer.errors import SourceError
from index.sources.base import Label, Picture, Source, list_hash


class Subset:
    """`count` pictures of a source, numbered anew from 0 in the source's order.

    spread: evenly spaced over the source, instead of its first ones. Raises SourceError for a count
    below 1 or beyond the source.
    """

    def __init__(self, source: Source, count: int, spread: bool = False) -> None:
        if not 1 <= count <= len(source):
            raise SourceError(f"cannot take {count} of {len(source)} pictures ({source.description})")
        self._source, self._count, self._spread = source, count, spread
        how = f"{count} evenly spaced" if spread else f"the first {count}"
        self.description = f"{how} of {len(source)}: {source.description}"
        self.vocabulary: Sequence[Label] = source.vocabulary
        self.concepts: Sequence[str] = source.concepts
        self._hash = ""

    def __len__(self) -> int:
        return self._count

    def original(self, number: int) -> int:
        """The number of a picture within the whole source."""
        place = range(self._count)[number]
        return place * len(self._source) // self._count if self._spread else place

    def image_id(self, number: int) -> str:
        """The id that the whole source gives."""
        return self._source.image_id(self.original(number))

    def origin(self, number: int) -> str:
        """The origin that the whole source gives."""
        return self._source.origin(self.original(number))

    def read(self, number: int) -> Picture:
        """Read one picture; see `Source.read`."""
        return replace(self._source.read(self.original(number)), number=number)

    def list_hash(self) -> str:
        """The hash of the ids of this part, computed once."""
        self._hash = self._hash or list_hash([self.image_id(number) for number in range(self._count)])
        return self._hash


def limited(source: Source, limit: int | None, spread: bool = False) -> Source:
    """At most `limit` pictures of a source; the source itself where it has no more, or without a limit."""
    return source if limit is None or limit >= len(source) else Subset(source, limit, spread)
