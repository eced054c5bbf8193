"""What a gallery asks of a store: pages of neurons, counts, all neurons at once, people's notes and lists.

The half of `Store` that looks at many neurons; `reader` has the half that looks at one.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np

from explorer.errors import StoreError
from explorer.records import NeuronList, NeuronPage, Note, Overview, Wanted
from explorer.store import browse
from explorer.store.classes import CLASSES
from explorer.store.columns import Columns
from explorer.store.database import Database
from explorer.store.lists import Lists
from explorer.store.manifest import Manifest
from explorer.store.notes import Notes
from explorer.store.notes_file import NotesFile
from explorer.store.texts import match_expression, matching_texts

_TEXTS_KEPT = 128
EXPORT_FORMAT = 1


class Gallery:
    """Pages, counts, notes and lists. Every method may be called from any thread."""

    manifest: Manifest
    _database: Database

    def _open_gallery(self, file: NotesFile) -> None:
        """Make ready what the methods share; `file`: of people's notes."""
        self._notes, self._lists = Notes(file), Lists(file)
        self._columns: Columns | None = None
        self._columns_lock = threading.Lock()
        self._found: OrderedDict[str, np.ndarray] = OrderedDict()
        self._found_lock = threading.Lock()

    def browse(self, wanted: Wanted, offset: int = 0, count: int = 24) -> NeuronPage:
        """`count` of the neurons that pass all filters, from place `offset` on, and how many do.

        Raises StoreError for an unknown class or neuron.
        """
        asked = self._matching, self._lists.neurons, self._notes.names
        return browse.page(self._read_columns(), wanted, *asked, offset, count)

    def class_counts(self) -> dict[str, int]:
        """How many neurons each class has; classes without any are there too."""
        counts = np.bincount(self._read_columns().class_of, minlength=len(CLASSES)).tolist()
        return dict(zip(CLASSES, counts, strict=True))

    def label_counts(self) -> list[tuple[str, int]]:
        """The labels and how many neurons carry each, most first, of equal ones in alphabetical order."""
        counts = Counter(label for label in self._read_columns().overview.labels.tolist() if label)
        return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))

    def overview(self) -> Overview:
        """All neurons at once; the arrays are shared and cannot be written."""
        return self._read_columns().overview

    def random_neuron(self, seed: int | None = None) -> int:
        """A living neuron by chance, the same for the same seed. Raises StoreError when all are dead."""
        live = np.flatnonzero(self._read_columns().overview.fires > 0)
        if not len(live):
            raise StoreError("no neuron of this store fired on any image, so there is none to show by chance")
        return int(np.random.default_rng(seed).choice(live))

    def note(self, neuron: int) -> Note | None:
        """What people call a neuron and wrote about it; None when nobody did."""
        self._check_neuron(neuron)
        return self._notes.read([neuron]).get(neuron)

    def notes(self, neurons: Iterable[int] | None = None) -> dict[int, Note]:
        """What people wrote about several neurons, or about all, by neuron; only those that have a note."""
        return self._notes.read(neurons)

    def set_note(self, neuron: int, name: str = "", note: str = "") -> None:
        """Keep people's own name of a neuron and a note about it; both empty removes them.

        Raises StoreError when they are too long or the folder cannot be written.
        """
        self._check_neuron(neuron)
        self._notes.write(neuron, name, note)

    def lists(self) -> list[NeuronList]:
        """People's lists of neurons, by name, each in the order in which neurons were added."""
        return self._lists.read()

    def lists_of(self, neuron: int) -> tuple[str, ...]:
        """The names of the lists that hold a neuron, in alphabetical order."""
        self._check_neuron(neuron)
        return self._lists.of(neuron)

    def add_to_list(self, name: str, neuron: int) -> None:
        """Put a neuron on a list, which is made when it is new.

        Raises StoreError for a name that is empty or too long, or when the folder cannot be written.
        """
        self._check_neuron(neuron)
        self._lists.add(name, neuron)

    def remove_from_list(self, name: str, neuron: int) -> None:
        """Take a neuron off a list, if it is there; a list without neurons vanishes."""
        self._check_neuron(neuron)
        self._lists.remove(name, neuron)

    def export_notes(self) -> dict[str, Any]:
        """All names, notes and lists, and what they are about, as JSON may hold them."""
        return {
            "format": EXPORT_FORMAT,
            "sae_id": self.manifest.sae_id,
            "model": self.manifest.model_id,
            "notes": [note._asdict() for note in self._notes.read().values()],
            "lists": [{"name": name, "neurons": list(neurons)} for name, neurons in self._lists.read()],
        }

    def _read_columns(self) -> Columns:
        """The columns of all neurons, read at the first call."""
        with self._columns_lock:
            if self._columns is None:
                self._columns = Columns(self._database, self.manifest.n_neurons)
            return self._columns

    def _matching(self, text: str) -> np.ndarray:
        """The neurons that a text finds, as `search` does, int64; what the store's texts say is kept."""
        expression = match_expression(text)
        if not expression:
            return np.zeros(0, dtype=np.int64)
        with self._found_lock:
            found = self._found.pop(expression, None)
        if found is None:
            found = matching_texts(self._database, expression)
        with self._found_lock:
            self._found[expression] = found
            while len(self._found) > _TEXTS_KEPT:
                self._found.popitem(last=False)
        own = [match.neuron for match in self._notes.search(expression, None)]
        return np.concatenate([found, np.array(own, dtype=np.int64)])

    def _check_neuron(self, neuron: int) -> None:
        if not 0 <= neuron < self.manifest.n_neurons:
            raise StoreError(
                f"there is no neuron {neuron}; the store has neurons 0 to {self.manifest.n_neurons - 1}"
            )
