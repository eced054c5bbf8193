"""What a session does to activations, and what it measures inside the model.

Pictures and noise through the tower, interventions at the SAE's block, log-probabilities, gradients and
attention. Generating text is in `session`; reading the store in `stored`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace as changed
from typing import NamedTuple

import torch
from torch import Tensor

from explorer.errors import EditError, StoreError
from explorer.records import Edit
from explorer.sae import SAE, SparseCodes
from explorer.session.advice import WITH
from explorer.session.line import Line
from explorer.session.scales import elsewhere
from explorer.session.stored import Stored
from explorer.session.view import Draw, Noisy, View
from explorer.steer import (
    Contrast,
    Gauges,
    Intervention,
    RangeEdit,
    Steered,
    gauges,
    intervene,
    noisy_pixels,
)
from explorer.vlm import LVLM, AnswerWord, Prepared, WordGradients
from explorer.vlm.share import shares

TOWER_BATCH = 16
"""Pictures that go through the tower at once."""


class SteeredView(NamedTuple):
    """hidden: the block's output [tokens, d] after an intervention; gauges: how much of it changed."""

    hidden: Tensor
    gauges: Gauges


class Inside(Stored):
    """The part of a session that changes activations and measures what that does."""

    lvlm: LVLM
    sae: SAE
    block: int
    _line: Line

    # Noise

    def noisy(self, view: View, step: int, seed: int = 0) -> Noisy:
        """What the tower and the SAE make of the picture under diffusion noise; kept on the view.

        step: 0 .. 999 of the schedule (see `explorer.steer.noise`). Raises EditError outside it.
        """
        return self.noisy_many(view, [(step, seed)])[0]

    def noisy_many(self, view: View, draws: Iterable[tuple[int, int]]) -> list[Noisy]:
        """As `noisy` for several (step, seed); those that are new go through the tower in batches."""
        wanted = [Draw(*draw) for draw in draws]
        found = {draw: view.noise.get(draw) for draw in dict.fromkeys(wanted)}
        new = [draw for draw, noisy in found.items() if noisy is None]
        for start in range(0, len(new), TOWER_BATCH):
            part = new[start : start + TOWER_BATCH]
            made = self._through_tower(view.prepared, part, clean=False)
            view.noise.keep(part, made)
            found.update(zip(part, made, strict=True))
        return [found[draw] for draw in wanted]

    def _through_tower(self, prepared: Prepared, draws: Sequence[Draw], clean: bool) -> list[Noisy]:
        """Block output and activations of the picture (if `clean`) and of its noisy versions.

        In one pass, unless the picture is so large that this would take too much memory.
        """
        wanted = [*[None] * clean, *draws]
        return [one for share in shares(wanted, prepared) for one in self._tower_pass(prepared, share)]

    def _tower_pass(self, prepared: Prepared, draws: Sequence[Draw | None]) -> list[Noisy]:
        """Block output and activations of the picture under these draws of noise, None: under none."""
        pixels, tied = prepared.pixel_values, self.lvlm.tied
        noisy = [
            pixels if draw is None else noisy_pixels(pixels, draw.step, draw.seed, tied) for draw in draws
        ]
        with self._line.turn(), torch.no_grad():
            hidden = self.lvlm.tower(torch.cat(noisy), self.block, prepared).float()
            return [
                Noisy(
                    one.cpu(),
                    self._codes(prepared.patches(one)),
                    tuple(self._codes(one[scale.places.to(one.device)]) for scale in prepared.scales),
                )
                for one in hidden
            ]

    def _codes(self, patches: Tensor) -> SparseCodes:
        """Activations of patches [T, d], on the CPU."""
        return SparseCodes(*(part.cpu() for part in self.sae.encode_sparse(patches)))

    # Interventions

    def steered(
        self,
        view: View,
        edits: Sequence[Edit | RangeEdit] = (),
        contrast: Contrast | None = None,
        replace: bool = False,
    ) -> SteeredView:
        """The block's output after an intervention, with gauges of the change. Runs no language model.

        Raises EditError for an intervention that does not fit the picture or the SAE.
        """
        hidden, steered = self._steered(view, Intervention(tuple(edits), contrast, replace))
        return SteeredView(hidden, gauges(view.patches, steered, view.codes, self.sae))

    def _steered(self, view: View, intervention: Intervention) -> tuple[Tensor, Steered]:
        """The block's output [tokens, d], the view's own tensor when nothing changes; and the patches."""
        contrast, noisy, always = intervention.contrast, None, ()
        if contrast is not None:
            always = self._suppressed(contrast)
            noisy = self.noisy(view, contrast.step, contrast.seed)
        patches, found = view.patches, None if noisy is None else noisy.codes
        steered = intervene(patches, view.codes, self.sae, view.grid, intervention, found, always)
        hidden = view.hidden
        if steered.patches is not patches:
            hidden = view.prepared.put(hidden, steered.patches)
        for number, scale in enumerate(view.prepared.scales):
            edits = elsewhere(intervention.edits, view.grid, scale.grid)
            there, found = view.hidden[scale.places], None if noisy is None else noisy.further[number]
            asked = changed(intervention, edits=edits)
            moved = intervene(there, view.further[number], self.sae, scale.grid, asked, found, always)
            if moved.patches is not there:
                hidden = hidden.index_copy(0, scale.places, moved.patches)
        return hidden, steered

    def _suppressed(self, contrast: Contrast) -> tuple[int, ...]:
        """The always-on neurons that a contrast leaves alone."""
        if not contrast.suppress_always_on:
            return ()
        if self.store is None:
            raise StoreError(
                "which neurons are always on is known to a store only, and this session has none; use a "
                f"Contrast with suppress_always_on=False, or {WITH}{self.build_command}"
            )
        return self.always_on(contrast.min_frequency)

    def _together(
        self,
        asked: Sequence[tuple[View, Sequence[Edit | RangeEdit]]],
        replace: bool,
        contrast: Contrast | None,
    ) -> Iterator[Tensor]:
        """The steered block outputs of several views, [B, tokens, d]; a few at a time of large pictures.

        Raises EditError, before the first, for pictures that do not fit together.
        """
        first = asked[0][0].prepared
        if not all(first.alike(view.prepared) for view, _ in asked):
            raise EditError("pictures with grids of different sizes cannot go through the model in one batch")
        for share in shares(asked, first):
            wanted = [(view, Intervention(tuple(edits), contrast, replace)) for view, edits in share]
            yield torch.stack([self._steered(view, intervention)[0] for view, intervention in wanted])

    # Measuring

    def next_words(
        self,
        asked: Sequence[tuple[View, Sequence[Edit | RangeEdit]]],
        prompt: str,
        answer: str,
        *,
        replace: bool = False,
        contrast: Contrast | None = None,
    ) -> Tensor:
        """How likely each entry of the vocabulary comes next at each place of a given answer.

        Log-probabilities [B, A + 1, V] on the CPU for several (view, edits), in one batch.
        """
        like, found = asked[0][0].prepared, []
        for hidden in self._together(asked, replace, contrast):
            with self._line.turn():
                features = self.lvlm.features(hidden, self.block, like)
                found.append(self.lvlm.next_words(features, prompt, answer, like).cpu())
        return torch.cat(found)

    def log_probs(
        self,
        asked: Sequence[tuple[View, Sequence[Edit | RangeEdit]]],
        prompt: str,
        answer: str,
        *,
        replace: bool = False,
        contrast: Contrast | None = None,
        batch: int = 32,
    ) -> Tensor:
        """Log-probability of each token of a given answer, given those before it: [B, A] on the CPU.

        For several (view, edits), `batch` at a time. The tokens are `lvlm.answer_tokens(answer)`.
        """
        tokens = torch.tensor(self.lvlm.answer_tokens(answer), dtype=torch.int64)
        rows = [torch.zeros(0, len(tokens))]
        for start in range(0, len(asked), batch):
            part = asked[start : start + batch]
            likely = self.next_words(part, prompt, answer, replace=replace, contrast=contrast)
            rows.append(likely[:, :-1].gather(2, tokens.expand(len(part), -1)[..., None])[..., 0])
        return torch.cat(rows)

    def word_gradients(
        self,
        view: View,
        prompt: str,
        answer: str,
        words: Sequence[AnswerWord],
        edits: Sequence[Edit | RangeEdit] = (),
    ) -> WordGradients:
        """The log-probability of each word, and its gradient by the picture's patches: [W, T, d].

        The patches are those of `View.everywhere`: of the main grid, then of each further scale. The words
        are those of `lvlm.answer_words(answer)`. At the SAE's block, after the edits.
        """
        hidden = self._steered(view, Intervention(tuple(edits)))[0]
        with self._line.turn():
            found = self.lvlm.word_gradients(hidden, self.block, prompt, answer, words, view.prepared)
        slopes = [view.prepared.patches(found.gradients)]
        slopes += [found.gradients[:, scale.places] for scale in view.prepared.scales]
        return found._replace(gradients=torch.cat(slopes, dim=1))

    def word_attention(
        self,
        view: View,
        prompt: str,
        answer: str,
        words: Sequence[AnswerWord],
        edits: Sequence[Edit | RangeEdit] = (),
        layers: tuple[int, int] | None = None,
    ) -> Tensor:
        """How much each word looked at each patch while it was chosen: [W, T] (see `LVLM.word_attention`).

        Raises ModelError for a model whose language model does not read the patches one by one.
        """
        hidden = self._steered(view, Intervention(tuple(edits)))[0]
        like = view.prepared
        with self._line.turn():
            features = self.lvlm.features(hidden, self.block, like)
            return self.lvlm.word_attention(features, prompt, answer, words, layers, like)
