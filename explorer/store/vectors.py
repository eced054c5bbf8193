"""The decoder directions of a store, for similar neurons. Knows FAISS; nothing of SQLite or images."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np

from explorer.errors import StoreError
from explorer.records import Activation

faiss.omp_set_num_threads(1)


def write_directions(path: Path, directions: np.ndarray) -> None:
    """Keep directions [F, d] at unit length; a direction of length 0 stays 0 and is similar to none."""
    rows = np.array(directions, dtype=np.float32, order="C")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(lengths > 0, lengths, 1)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise StoreError(f"cannot write {path}: {error}") from error


class Directions:
    """Unit decoder directions, mapped from the file and searched by cosine. Safe to use from threads."""

    def __init__(self, path: Path) -> None:
        try:
            self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError as error:
            raise StoreError(
                f"cannot read {path.name} of the store {path.parent}; build the store again"
            ) from error

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def width(self) -> int:
        """Length of a direction."""
        return int(self._index.d)

    def similar(self, neuron: int, k: int) -> list[Activation]:
        """The k other neurons with the nearest direction and their cosine, nearest first."""
        k = min(k, len(self) - 1)
        if k < 1:
            return []
        query = self._index.reconstruct(neuron)[None]
        cosines, neurons = self._index.search(query, k + 1)
        pairs = [(int(n), float(c)) for n, c in zip(neurons[0], cosines[0], strict=True) if n != neuron]
        pairs.sort(key=lambda pair: (-pair[1], pair[0]))
        return [Activation(*pair) for pair in pairs[:k]]
