"""A model, its SAE and their store behind one door: one method per thing that a person does.

The session keeps nothing of a visitor: what a picture gave is in its `View`, which the caller holds.
Any thread may call; a lock lets one model call run at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from explorer.errors import EditError, StoreError
from explorer.images import ImageInput, load_image
from explorer.records import (
    Activation,
    Edit,
    Exemplar,
    Found,
    Histogram,
    IntervalExemplar,
    LabelEvidence,
    NeuronSummary,
    Note,
    Partner,
    TextMatch,
    Word,
)
from explorer.sae import SAE, load_sae
from explorer.sae.quality import unexplained
from explorer.session.site import site_block
from explorer.session.view import View
from explorer.steer import apply_edits
from explorer.store import Store, concept_key
from explorer.vlm import LVLM, Cancel, open_lvlm
from explorer.vlm.generation import streamed

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED_MODEL = ROOT / "assets" / "lvlm"
EMBEDDED_SAE = ROOT / "assets" / "sae" / "sae.safetensors"
EMBEDDED_STORE = ROOT / "stores" / "embedded"
BUILD_COMMAND = "python -m index build --scenes 4000 --out stores/embedded"
FAMILIAR_QUANTILE = 0.995
NO_TRUTH = "no concepts, its source had no truth per patch"
_POLL = 0.02  # seconds between looks at `cancel` while waiting for the model


class Session:
    """Look at pictures, ask for answers, edit neurons. `Session.open()` gives the embedded set.

    lvlm, sae, store: the parts, for whoever needs them; store is None when there is none.
    block: the block of the vision tower whose output the SAE reads.
    """

    def __init__(self, lvlm: LVLM, sae: SAE, store: Store | None = None) -> None:
        """Raises SAEError, ModelError or StoreError when the parts do not belong together."""
        self.lvlm, self.sae, self.store = lvlm, sae, store
        self.block = site_block(lvlm, sae)
        self._lock = threading.Lock()
        if store is not None:
            store.check(
                model_id=lvlm.model_id,
                block=self.block,
                sae_id=sae.id,
                n_neurons=sae.n_neurons,
                preprocessing=lvlm.preprocessing,
            )

    @classmethod
    def open(
        cls,
        model: str | Path | None = None,
        sae: str | Path | None = None,
        store: str | Path | None = None,
        device: str = "cpu",
    ) -> Session:
        """Open a model (folder or hub name), an SAE file and a store folder; None: the embedded one.

        The embedded store is left out when it has not been built yet, or when another model or SAE was
        asked for. Raises ModelError, SAEError or StoreError in plain words.
        """
        embedded = model is None and sae is None
        if store is None and embedded and EMBEDDED_STORE.exists():
            store = EMBEDDED_STORE
        opened_store = None if store is None else Store.open(store)
        opened_sae = load_sae(sae or EMBEDDED_SAE)
        opened_model = open_lvlm(model or EMBEDDED_MODEL, device)
        return cls(opened_model, opened_sae.to(device), opened_store)

    def look(self, image: ImageInput) -> View:
        """Run the vision tower and the SAE on a picture once. Raises ImageError for what is no picture."""
        upright = load_image(image)
        pixels, grid = self.lvlm.preprocess(upright)
        with self._turn(None), torch.no_grad():
            hidden = self.lvlm.tower(pixels, self.block)[0].float()
            patches = hidden[self.lvlm.patch_slice]
            codes = self.sae.encode_sparse(patches)
            fvu = unexplained(self.sae, patches[None], codes)[0]
        on_cpu = type(codes)(*(part.cpu() for part in codes))
        return View(upright, grid, fvu, self.sae.n_neurons, hidden.cpu(), on_cpu)

    def answer(
        self,
        view: View,
        prompt: str | None = None,
        edits: Sequence[Edit] = (),
        replace: bool = False,
        max_new_tokens: int = 64,
        cancel: Cancel | None = None,
    ) -> str:
        """The model's greedy answer about the picture, with its neurons edited.

        prompt: None for the model's default. edits: without any, the text is the untouched model's.
        replace: feed the SAE's reconstruction, as the literature does, instead of adding the change.
        Raises EditError for edits that do not fit. Cut short when cancelled.
        """
        return self._work(view, prompt, edits, replace, max_new_tokens)(None, cancel)

    def answers(
        self,
        asked: Sequence[tuple[View, Sequence[Edit]]],
        prompt: str | None = None,
        replace: bool = False,
        max_new_tokens: int = 64,
    ) -> list[str]:
        """The greedy answers to one prompt for several (view, edits), in one batch: for measurements.

        Raises EditError for edits that do not fit.
        """
        if not asked:
            return []
        hidden = torch.stack([self._edited(view, edits, replace) for view, edits in asked])
        asking = self.lvlm.default_prompt if prompt is None else prompt
        with self._turn(None):
            features = self.lvlm.features(hidden, self.block)
            return self.lvlm.generate_many(features, asking, max_new_tokens)

    def stream(
        self,
        view: View,
        prompt: str | None = None,
        edits: Sequence[Edit] = (),
        replace: bool = False,
        max_new_tokens: int = 64,
        cancel: Cancel | None = None,
    ) -> Iterator[str]:
        """As `answer`, but yields the text while it grows. Closing the iterator cancels.

        Edits that do not fit are refused here at once, not at the first `next`.
        """
        return streamed(self._work(view, prompt, edits, replace, max_new_tokens), cancel)

    def _work(
        self, view: View, prompt: str | None, edits: Sequence[Edit], replace: bool, max_new_tokens: int
    ) -> Callable[[Callable[[str], None] | None, Cancel | None], str]:
        """The generation as a function of (on_text, cancel), with the edits already applied."""
        hidden = self._edited(view, edits, replace)
        asked = self.lvlm.default_prompt if prompt is None else prompt

        def work(on_text: Callable[[str], None] | None, cancel: Cancel | None) -> str:
            with self._turn(cancel) as mine:
                if not mine:
                    return ""
                features = self.lvlm.features(hidden, self.block)
                return self.lvlm.generate(features, asked, max_new_tokens, cancel, on_text)

        return work

    def _edited(self, view: View, edits: Sequence[Edit], replace: bool) -> torch.Tensor:
        """The block's output [tokens, d] with edited patches; the view's own tensor when nothing changes."""
        place = self.lvlm.patch_slice
        patches = view.hidden[place]
        changed = apply_edits(patches, view.codes, self.sae, edits, view.grid, replace)
        if changed is patches:
            return view.hidden
        hidden = view.hidden.clone()
        hidden[place] = changed
        return hidden

    def exemplars(self, neuron: int) -> list[Exemplar]:
        """The images that activate a neuron most, strongest first."""
        return self._stored().exemplars(neuron)

    def summary(self, neuron: int) -> NeuronSummary:
        """What the store knows of a neuron."""
        return self._stored().summary(neuron)

    def summaries(self, neurons: Sequence[int]) -> dict[int, NeuronSummary]:
        """What the store knows of several neurons, by neuron."""
        return self._stored().summaries(neurons)

    def find(self, concept: str, k: int = 3) -> list[Found]:
        """The neurons that stand for a concept ("fork"), best first; none for an unknown concept."""
        return self._stored().find(concept, k)

    def search(self, text: str, k: int = 20) -> list[TextMatch]:
        """The neurons whose name, labels, words or notes hold all words of a text; people's own first."""
        return self._stored().search(text, k)

    def note(self, neuron: int) -> Note | None:
        """What people call a neuron and wrote about it; None when nobody did."""
        return self._stored().note(neuron)

    def set_note(self, neuron: int, name: str = "", note: str = "") -> None:
        """Keep people's own name of a neuron and a note about it; both empty removes them."""
        self._stored().set_note(neuron, name, note)

    def interval_exemplars(self, neuron: int) -> list[IntervalExemplar]:
        """One image per half-octave of the score from the peak downwards, none of them an exemplar."""
        return self._stored().interval_exemplars(neuron)

    def histogram(self, neuron: int, which: Literal["score", "active"] = "score") -> Histogram:
        """How often each size came up: "score" over images, "active" over patches, both only above 0."""
        return self._stored().histogram(neuron, which)

    def labels(self, neuron: int) -> list[LabelEvidence]:
        """The labels that a neuron could stand for, best first, with the evidence."""
        return self._stored().labels(neuron)

    def words(self, neuron: int) -> list[Word]:
        """The words that the model says more easily once a neuron is turned up, most raised first."""
        return self._stored().words(neuron)

    def partners(self, neuron: int) -> list[Partner]:
        """The neurons that fire on the same patches, the closest first."""
        return self._stored().partners(neuron)

    def by_picture(self, view: View, k: int = 20) -> list[Activation]:
        """The neurons whose exemplars look most like the whole picture, with the cosine, nearest first."""
        return self._stored().by_picture(view.hidden[self.lvlm.patch_slice].mean(0).numpy(), k)

    def by_patches(self, view: View, patches: np.ndarray, k: int = 20) -> list[Activation]:
        """The neurons whose exemplars look most like some patches of the picture, nearest first.

        patches: (rows, cols) bool. Raises EditError when it does not fit the grid or marks none.
        """
        chosen = np.asarray(patches)
        if chosen.dtype != np.bool_ or chosen.shape != (view.grid.rows, view.grid.cols) or not chosen.any():
            raise EditError(
                f"mark some patches in a ({view.grid.rows}, {view.grid.cols}) boolean mask, "
                f"not {int(chosen.sum())} in one of {chosen.dtype} and shape {chosen.shape}"
            )
        vectors = view.hidden[self.lvlm.patch_slice].numpy()[chosen.ravel()]
        return self._stored().by_patch(vectors.mean(0), k)

    def where(self, view: View, concept: str) -> np.ndarray:
        """The patches that show a concept, and their neighbours: (rows, cols) bool.

        Read linearly from the patches, as the store learnt it from its source's truth. Raises StoreError
        when the store knows no such concept.
        """
        probe, name = self._stored().probe(), concept_key(concept)
        if probe is None or name not in probe.concepts:
            names = self._stored().concepts()
            known = f"{len(names)} concepts, such as {', '.join(names[:6])}" if names else NO_TRUTH
            raise StoreError(f"the store cannot tell where {concept!r} is; it knows {known}")
        patches = view.hidden[self.lvlm.patch_slice].numpy()
        found = probe.shown(patches).reshape(view.grid.rows, view.grid.cols) == probe.concepts.index(name)
        framed = np.pad(found, 1)
        beside = framed[:-2, 1:-1] | framed[2:, 1:-1] | framed[1:-1, :-2] | framed[1:-1, 2:]
        return found | beside

    def similar(self, neuron: int, k: int = 8) -> list[Activation]:
        """The neurons whose directions are nearest to a neuron's, with the cosine as value."""
        return self._stored().similar(neuron, k)

    def familiar(self, view: View) -> bool:
        """Whether the picture looks like the indexed ones: the SAE explains it about as well as those."""
        return view.fvu <= self._stored().manifest.fvu_quantile(FAMILIAR_QUANTILE)

    def _stored(self) -> Store:
        if self.store is None:
            raise StoreError(f"this session has no store of exemplars; build one with: {BUILD_COMMAND}")
        return self.store

    @contextmanager
    def _turn(self, cancel: Cancel | None) -> Iterator[bool]:
        """Hold the model. False, without holding it, when cancelled before it was free."""
        if cancel is None:
            self._lock.acquire()
        while cancel is not None and not self._lock.acquire(timeout=_POLL):
            if cancel.is_set():
                yield False
                return
        try:
            yield True
        finally:
            self._lock.release()
