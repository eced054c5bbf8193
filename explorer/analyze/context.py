"""A session in which what was done to a picture's neurons counts as the picture itself.

Analyses ask a session about the untouched picture and about edits of it. Through `InContext` the untouched
picture is the steered one, and edits come after those of the context, as they would on the bench. So a
steered answer is explained with its edits in place.

What it does not know: where neurons fire is still told from the picture without the context, so the
neurons that the context edits should be left out of rankings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from explorer.analyze.places import Edited
from explorer.records import Edit
from explorer.sae import SAE
from explorer.session import Session, View
from explorer.steer import Contrast
from explorer.store import Store
from explorer.vlm import AnswerWord, WordGradients
from explorer.vlm.base import LVLM


@dataclass(frozen=True, eq=False)
class InContext:
    """What analyses ask of a session, asked of the steered picture.

    edits, contrast, replaced: the context, as `Session.steps` takes them.
    """

    session: Session
    edits: tuple[Edit, ...] = ()
    contrast: Contrast | None = None
    replaced: bool = False

    @property
    def lvlm(self) -> LVLM:
        """The session's model."""
        return self.session.lvlm

    @property
    def sae(self) -> SAE:
        """The session's SAE."""
        return self.session.sae

    @property
    def store(self) -> Store | None:
        """The session's store."""
        return self.session.store

    def always_on(self, min_frequency: float = 1.0) -> tuple[int, ...]:
        """As the session's."""
        return self.session.always_on(min_frequency)

    def answer(self, view: View, prompt: str | None = None, edits: Sequence[Edit] = (), **more: Any) -> str:
        """As the session's, after the context."""
        return self.session.answer(view, prompt, [*self.edits, *edits], **self._how, **more)

    def answers(self, asked: Sequence[Edited], prompt: str | None = None, **more: Any) -> list[str]:
        """As the session's, after the context."""
        return self.session.answers(self._after(asked), prompt, **self._how, **more)

    def log_probs(self, asked: Sequence[Edited], prompt: str, answer: str, *, batch: int = 32) -> Tensor:
        """As the session's, after the context."""
        return self.session.log_probs(self._after(asked), prompt, answer, batch=batch, **self._how)

    def next_words(self, asked: Sequence[Edited], prompt: str, answer: str) -> Tensor:
        """As the session's, after the context."""
        return self.session.next_words(self._after(asked), prompt, answer, **self._how)

    def word_gradients(
        self, view: View, prompt: str, answer: str, words: Sequence[AnswerWord]
    ) -> WordGradients:
        """As the session's, at the steered patches."""
        return self.session.word_gradients(self._steered(view), prompt, answer, words)

    def word_attention(self, view: View, prompt: str, answer: str, words: Sequence[AnswerWord]) -> Tensor:
        """As the session's, to the steered patches."""
        return self.session.word_attention(self._steered(view), prompt, answer, words)

    @property
    def _how(self) -> dict[str, Any]:
        return {"contrast": self.contrast, "replace": self.replaced}

    def _after(self, asked: Sequence[Edited]) -> list[Edited]:
        return [(view, [*self.edits, *edits]) for view, edits in asked]

    def _steered(self, view: View) -> View:
        hidden = self.session.steered(view, self.edits, self.contrast, self.replaced).hidden
        return replace(view, hidden=hidden)
