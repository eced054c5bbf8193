"""A session whose every word is linear in the picture, so that gradients, drops and flips are known exactly.

One token per word. A word's log-probability is LEVEL plus the inner product of its weights [T, d] with the
patches, minus that of the untouched picture; the answer holds the words whose score is above 0, in order.
Questions about a word are answered by its score.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from explorer.records import Box, Edit, Grid
from explorer.sae import SAE, ActivationRule
from explorer.session import View
from explorer.steer import Intervention, intervene
from explorer.vlm import AnswerWord, Prepared, WordGradients
from explorer.vlm.memory import Memory

ROWS, COLS, WIDTH, NEURONS = 2, 3, 5, 12
WORDS = ("A", "table", "cake", "fork")
LEVEL = -1.0
VOCABULARY = ("a", "table", "cake", "fork", "dog", "cat", "with", "and", "yes", "no")
ASKS = "Is there a "


def _sae() -> SAE:
    draw = torch.Generator().manual_seed(3)
    rows = torch.nn.functional.normalize(torch.randn(NEURONS, WIDTH, generator=draw), dim=1)
    sae = SAE(rows.T, torch.zeros(NEURONS), rows, torch.zeros(WIDTH), ActivationRule("topk", k=3))
    return sae.eval().requires_grad_(False)


def make_view(sae: SAE, seed: int = 0) -> View:
    """Six patches drawn at random, as the SAE sees them."""
    hidden = torch.randn(ROWS * COLS, WIDTH, generator=torch.Generator().manual_seed(seed))
    grid = Grid(ROWS, COLS, 30, 20, Box(0, 0, 30, 20))
    codes = sae.encode_sparse(hidden)
    image = Image.new("RGB", (30, 20))
    return View(image, Prepared(torch.zeros(1, 3, 2, 2), grid), 0.1, NEURONS, hidden, codes, Memory())


class LinearSession:
    """See above. always: the always-on neurons of its store (None: no store); batches: sizes asked."""

    def __init__(self, always: tuple[int, ...] | None = None, said: tuple[str, ...] = WORDS) -> None:
        self.sae, self.said = _sae(), said
        self.view = make_view(self.sae)
        draw = torch.Generator().manual_seed(9)
        self.weights = {
            word.lower(): torch.randn(ROWS * COLS, WIDTH, generator=draw) for word in (*said, "dog", "cat")
        }
        self.scores = {word.lower(): 0.5 for word in said}
        self.lvlm = SimpleNamespace(
            has_places=True,
            default_prompt="Describe.",
            answer_words=answer_words,
            answer_tokens=self.tokens,
        )
        self.store = None if always is None else SimpleNamespace()
        self._always = always
        self.batches: list[int] = []
        self.prompts: list[str | None] = []

    def always_on(self) -> tuple[int, ...]:
        assert self._always is not None
        return self._always

    def moved(self, view: View, edits: Sequence[Edit], word: str) -> float:
        """How far the edits move a word's log-probability."""
        asked = Intervention(tuple(edits))
        patches = intervene(view.hidden, view.codes, self.sae, view.grid, asked).patches
        return float(
            ((patches - view.hidden).double() * self.weights.get(word.lower(), torch.zeros(1)).double()).sum()
        )

    def answer(self, view: View, prompt: str | None = None, edits: Sequence[Edit] = (), **_: object) -> str:
        if prompt is not None and prompt.startswith(ASKS):
            subject = meant("yes", prompt)
            return "Yes." if self.scores.get(subject, -9.0) + self.moved(view, edits, subject) > 0 else "No."
        said = [w for w in self.said if self.scores[w.lower()] + self.moved(view, edits, w) > 0]
        return ", ".join(said).replace(",", "", 1) + "."

    def answers(
        self, asked: Sequence[tuple[View, Sequence[Edit]]], prompt: str | None = None, **_: object
    ) -> list[str]:
        self.batches.append(len(asked))
        self.prompts.append(prompt)
        return [self.answer(view, prompt, edits) for view, edits in asked]

    def tokens(self, text: str) -> list[int]:
        """Each word's place in the vocabulary."""
        return [VOCABULARY.index(word.text.lower()) for word in answer_words(text)]

    def next_words(
        self, asked: Sequence[tuple[View, Sequence[Edit]]], prompt: str, answer: str
    ) -> torch.Tensor:
        self.batches.append(len(asked))
        self.prompts.append(prompt)
        places = range(len(answer_words(answer)) + 1)
        rows = [
            [self.level(w, place) + self.moved(view, edits, meant(w, prompt)) for w in VOCABULARY]
            for view, edits in asked
            for place in places
        ]
        return torch.tensor(rows, dtype=torch.float64).reshape(len(asked), len(places), len(VOCABULARY))

    def log_probs(
        self, asked: Sequence[tuple[View, Sequence[Edit]]], prompt: str, answer: str, *, batch: int = 32
    ) -> torch.Tensor:
        tokens = torch.tensor(self.tokens(answer), dtype=torch.int64)
        likely = self.next_words(asked, prompt, answer)[:, :-1]
        return likely.gather(2, tokens.expand(len(asked), -1)[..., None])[..., 0]

    def level(self, word: str, place: int) -> float:
        """The untouched log-probability of a word at a place: words that the answer lacks fit best at 2."""
        return LEVEL if word in map(str.lower, self.said) or place == 2 else 2 * LEVEL

    def word_gradients(
        self, view: View, prompt: str, answer: str, words: Sequence[AnswerWord]
    ) -> WordGradients:
        texts = [[word.text for word in answer_words(answer)][run.first : run.last] for run in words]
        still = torch.zeros(ROWS * COLS, WIDTH)
        sums = torch.stack([sum(self.weights.get(meant(w, prompt), still) for w in run) for run in texts])
        return WordGradients(torch.tensor([LEVEL * len(run) for run in texts]), sums)

    def dense(self) -> np.ndarray:
        """The activations [T, F]."""
        return self.sae.encode(self.view.hidden).numpy()


def meant(word: str, prompt: str | None) -> str:
    """The word whose weights count: in an answer to "Is there a dog in the image?" yes stands for dog."""
    asked = prompt is not None and prompt.startswith(ASKS) and word.lower() == "yes"
    return prompt.removeprefix(ASKS).split()[0] if asked else word.lower()


def answer_words(text: str) -> list[AnswerWord]:
    """Runs of letters, a token each."""
    return [
        AnswerWord(m.group(), m.start(), m.end(), i, i + 1)
        for i, m in enumerate(re.finditer("[a-zA-Z]+", text))
    ]
