"""What an SAE is worth, on pictures that it was not trained on: figures, their words, and their JSON.

Knows streams and captions; nothing of how the SAE was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from PIL import Image

from explorer.errors import ImageError
from explorer.sae import SAE
from explorer.sae.quality import Quality, Tally
from explorer.sae.team import ALONE, Team
from index.training.captions import Preserved, preserved
from index.training.pictures import Pictures
from index.training.stream import Share, Skipped, StreamConfig, once
from index.training.tower import Eye


class Measures(NamedTuple):
    """quality: of the reconstruction of vectors; preserved: of captions, None where none were asked for."""

    quality: Quality
    preserved: Preserved | None

    def facts(self) -> dict[str, Any]:
        """The figures as JSON values."""
        found: dict[str, Any] = {"quality": self.quality._asdict()}
        if self.preserved is not None:
            found["preserved"] = self.preserved._asdict()
        return found

    def words(self, sae: SAE) -> list[str]:
        """The figures for people, a line each."""
        quality, kept = self.quality, self.preserved
        shares = zip(sae.boundaries, quality.prefixes, strict=True)
        prefixes = ", ".join(f"{end}: {share:.3f}" for end, share in shares)
        lines = [
            f"on {quality.vectors:,} held-out vectors: explained variance {quality.explained_variance:.4f}, "
            f"{quality.l0:.1f} active neurons per vector, {quality.dead_share:.1%} never active",
            f"explained variance from the first neurons: {prefixes}",
        ]
        if kept is not None:
            lines.append(
                f"with the reconstruction in place, on {kept.pictures:,} held-out pictures: "
                f"{kept.captions:.1%} of the captions are the same, {kept.tokens:.1%} of their tokens; "
                f"the next token's distribution moves by {kept.divergence:.4f} nats"
            )
        return lines


class Exam(NamedTuple):
    """How to measure.

    pictures: those that are held out; captions: how many of them the model is asked about (0: none);
    max_new_tokens: how long it may answer; stream, skipped, team: as for the training; check: called between
    pictures, and may raise.
    """

    eye: Eye
    pictures: Pictures
    stream: StreamConfig
    captions: int
    skipped: Skipped
    max_new_tokens: int = 64
    team: Team = ALONE
    check: Callable[[], None] = lambda: None

    def take(self, sae: SAE) -> Measures:
        """Measure an SAE of this site. Every process of the team must call it."""
        tally = Tally(sae)
        share = Share(self.team.rank, self.team.size)
        with closing(once(self.eye, self.pictures, self.stream, share, self.skipped)) as arriving:
            for vectors in arriving:
                tally.add(vectors)
                self.check()
        quality = tally.quality(self.team)
        kept = None
        if self.captions:
            images = self._images(share)
            kept = preserved(self.eye.lvlm, sae, images, self.max_new_tokens, self.team)
        return Measures(quality, kept)

    def _images(self, share: Share) -> Iterator[Image.Image]:
        """The pictures to ask about that can be read, evenly spread over all."""
        count = min(self.captions, len(self.pictures))
        for i in range(share.rank, count, share.size):
            self.check()
            try:
                yield self.pictures.image(i * len(self.pictures) // count)
            except ImageError:
                continue  # the stream has told of it
