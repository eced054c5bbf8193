"""A session without a model: four by four patches, ten neurons, answers made of words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from explorer.errors import StoreError
from explorer.images import load_image
from explorer.records import Box, Edit, Exemplar, Found, Grid, Histogram, NeuronSummary, Note, TextMatch
from explorer.sae import SparseCodes
from explorer.session import View
from explorer.steer import Gauges
from explorer.ui.heat import heat_rgba, png
from explorer.vlm import Prepared
from explorer.vlm.memory import Memory

NEURONS = 10
ROWS = COLS = 4


def make_view(image: Image.Image | None = None) -> View:
    """Neuron 3 fires at patch (1, 2) with 2.0 and at (0, 0) with 1.0, neuron 5 at (1, 2) with 0.5."""
    image = image or Image.new("RGB", (80, 40), "orange")
    width, height = image.size
    codes = SparseCodes(torch.tensor([0, 6, 6]), torch.tensor([3, 3, 5]), torch.tensor([1.0, 2.0, 0.5]))
    grid = Grid(ROWS, COLS, width, height, Box(0, 0, width, height))
    return View(
        image,
        Prepared(torch.zeros(1, 3, 8, 8), grid),
        0.1,
        NEURONS,
        torch.zeros(ROWS * COLS, 2),
        codes,
        Memory(),
    )


def make_exemplar(neuron: int, rank: int) -> Exemplar:
    """An exemplar whose thumbnail is a small PNG."""
    patches = np.zeros((ROWS, COLS), np.float32)
    patches[rank % ROWS, 1] = 3.0 - rank / 10
    name = f"scene {rank}"
    return Exemplar(
        neuron, rank, 3.0 - rank / 10, name, name, png(heat_rgba(patches)), patches, ("dog", "cake")
    )


@dataclass
class FakeSession:
    """Answers "a cake and a fork"; any edit takes the fork away.

    asked: the (prompt, edits, replace) seen; options: the (contrast, decoding, longest) that came along; own:
    names that people gave.
    """

    has_store: bool = True
    known: bool = True
    asked: list[tuple[str | None, Sequence[Edit], bool]] = field(default_factory=list)
    options: list[tuple[object, object, int]] = field(default_factory=list)
    own: dict[int, str] = field(default_factory=dict)
    block: int = 4
    build_command: str = "python -m index build --of the --fake"

    def __post_init__(self) -> None:
        self.lvlm = SimpleNamespace(model_id="fake@0", default_prompt="Describe the image.")
        self.sae = SimpleNamespace(n_neurons=NEURONS)
        self.store: SimpleNamespace | None = None
        if self.has_store:
            probe = SimpleNamespace(concepts=("fork_and_knife", "cake"))
            manifest = SimpleNamespace(n_images=12, score="mean")
            self.store = SimpleNamespace(manifest=manifest, probe=lambda: probe)

    def look(self, image: object) -> View:
        return make_view(load_image(image))  # type: ignore[arg-type]

    def stream(
        self,
        view: View,
        prompt: str | None = None,
        edits: Sequence[Edit] = (),
        replace: bool = False,
        cancel: object = None,
        visitor: object = None,
        contrast: object = None,
        decoding: object = None,
        max_new_tokens: int = 64,
    ) -> Iterator[str]:
        self.asked.append((prompt, edits, replace))
        self.options.append((contrast, decoding, max_new_tokens))
        words = ("a cake" if edits or replace or contrast else "a cake and a fork").split()
        return (" ".join(words[: i + 1]) for i in range(len(words)))

    def exemplars(self, neuron: int) -> list[Exemplar]:
        return [make_exemplar(neuron, rank) for rank in range(16)]

    def summaries(self, neurons: Sequence[int]) -> dict[int, NeuronSummary]:
        label = {3: "fork_and_knife"}
        kind = {3: "always_on"}
        return {
            n: NeuronSummary(n, 0.25, 0.1, 1.0, 4.0, label.get(n, ""), 0.9, neuron_class=kind.get(n, "rare"))
            for n in neurons
        }

    def notes(self, neurons: Sequence[int]) -> dict[int, Note]:
        return {n: Note(n, self.own[n], "", "2026-01-01") for n in neurons if n in self.own}

    def histogram(self, neuron: int, which: str = "score") -> Histogram:
        """Three bins; the middle one is the fullest."""
        return Histogram(np.array([0.5, 1.0, 2.0, 4.0]), np.array([1, 16, 4]))

    def find(self, concept: str, k: int = 3) -> list[Found]:
        return [Found(3, "fork_and_knife", 2.0, 0.9)][:k] if concept == "fork and knife" else []

    def search(self, text: str, k: int = 20) -> list[TextMatch]:
        return [TextMatch(6, "seaside", True, 1.0)][:k] if text == "beach" else []

    def where(self, view: View, concept: str) -> np.ndarray:
        """Forks are seen at patch (1, 2), cakes nowhere; nothing else is known."""
        if concept not in ("fork_and_knife", "cake"):
            raise StoreError(f"the store cannot tell where {concept!r} is")
        seen = np.zeros((ROWS, COLS), np.bool_)
        seen[1, 2] = concept == "fork_and_knife"
        return seen

    def steered(
        self, view: View, edits: Sequence[Edit] = (), contrast: object = None, replace: bool = False
    ) -> SimpleNamespace:
        return SimpleNamespace(gauges=Gauges(0.25 * len(edits), 1.5, 0.1, 0.0 if replace else 1.0))

    def always_on(self, min_frequency: float = 1.0) -> tuple[int, ...]:
        return (1, 2)

    def familiar(self, view: View) -> bool:
        if self.store is None:
            raise StoreError("this session has no store of exemplars; build one with: python -m index build")
        return self.known
