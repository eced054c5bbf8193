"""What a session asks of its store, by the names that people use. Runs no model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from explorer.errors import EditError, StoreError
from explorer.records import (
    Activation,
    Exemplar,
    Found,
    Histogram,
    IntervalExemplar,
    LabelEvidence,
    NeuronList,
    NeuronPage,
    NeuronSummary,
    Note,
    Overview,
    Partner,
    TextMatch,
    Wanted,
    Word,
)
from explorer.sae import SAE
from explorer.session.advice import ANY_BUILD, EMBEDDED_BUILD, WITH
from explorer.session.opening import is_embedded
from explorer.session.view import View
from explorer.steer import RangeEdit, fitted_range
from explorer.store import Store, concept_key
from explorer.vlm import LVLM

BUILD_COMMAND = EMBEDDED_BUILD
FAMILIAR_QUANTILE = 0.995
NO_TRUTH = "no concepts, its source had no truth per patch"


class Stored:
    """The part of a session that reads its store. Every method raises StoreError when there is none."""

    lvlm: LVLM
    sae: SAE
    store: Store | None
    _build: str | None = None

    @property
    def build_command(self) -> str:
        """The command that builds a store for this model and SAE, with names to fill in where need be."""
        if self._build is not None:
            return self._build
        return EMBEDDED_BUILD if is_embedded(self.lvlm.model_id) else ANY_BUILD

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

    def notes(self, neurons: Iterable[int] | None = None) -> dict[int, Note]:
        """What people wrote about several neurons, or about all, by neuron; only those that have a note."""
        return self._stored().notes(neurons)

    def browse(self, wanted: Wanted, offset: int = 0, count: int = 24) -> NeuronPage:
        """`count` of the neurons that pass all filters, from place `offset` on, and how many do."""
        return self._stored().browse(wanted, offset, count)

    def class_counts(self) -> dict[str, int]:
        """How many neurons each class has."""
        return self._stored().class_counts()

    def label_counts(self) -> list[tuple[str, int]]:
        """The labels and how many neurons carry each, most first."""
        return self._stored().label_counts()

    def overview(self) -> Overview:
        """All neurons at once, for charts of the whole SAE; the arrays are shared and cannot be written."""
        return self._stored().overview()

    def random_neuron(self, seed: int | None = None) -> int:
        """A living neuron by chance, the same for the same seed."""
        return self._stored().random_neuron(seed)

    def lists(self) -> list[NeuronList]:
        """People's lists of neurons, by name."""
        return self._stored().lists()

    def lists_of(self, neuron: int) -> tuple[str, ...]:
        """The names of the lists that hold a neuron."""
        return self._stored().lists_of(neuron)

    def add_to_list(self, name: str, neuron: int) -> None:
        """Put a neuron on a list, which is made when it is new."""
        self._stored().add_to_list(name, neuron)

    def remove_from_list(self, name: str, neuron: int) -> None:
        """Take a neuron off a list, if it is there; a list without neurons vanishes."""
        self._stored().remove_from_list(name, neuron)

    def export_notes(self) -> dict[str, Any]:
        """All names, notes and lists, with the SAE and model that they are about, as JSON may hold them."""
        return self._stored().export_notes()

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
        return self._stored().by_picture(self._as_read(view).mean(0), k)

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
        return self._stored().by_patch(self._as_read(view)[chosen.ravel()].mean(0), k)

    def _as_read(self, view: View) -> np.ndarray:
        """The patches [T, d] in the scale in which the SAE reads them, and the store compares them."""
        return self.sae.scaling.apply(view.patches)[0].numpy()

    def fitted_range(
        self,
        neuron: int,
        tau: float = 2.0,
        action: Literal["zero", "scale", "soft"] = "zero",
        factor: float = 0.0,
        patches: np.ndarray | Literal["active"] | None = None,
    ) -> RangeEdit:
        """An edit that acts within tau standard deviations of the neuron's mean activation where it fires.

        Mean and deviation are the store's, over all indexed patches where it is active (NeuronLens,
        arXiv 2502.06809, on active values only). A store counts activations above 0, so the range of a signed
        SAE's neuron is that of its upper side; `explorer.steer.RangeEdit` takes any. Raises StoreError for a
        neuron that never fired there.
        """
        known = self._stored().summary(neuron)
        if known.patch_fires == 0:
            raise StoreError(f"neuron {neuron} fired on no indexed patch, so there is no range to fit")
        deviation = math.sqrt(known.active_variance)
        return fitted_range(neuron, known.active_mean, deviation, tau, action, factor, patches)

    def always_on(self, min_frequency: float = 1.0) -> tuple[int, ...]:
        """The neurons in the image-level top-20 of at least this share of the indexed images.

        A store counts activations above 0: those of a signed SAE that are always far below 0 are not among
        them.
        """
        return tuple(self._stored().always_on(min_frequency))

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
        patches = view.patches.numpy()
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
            raise StoreError(f"this session has no store of exemplars; {WITH}{self.build_command}")
        return self.store
