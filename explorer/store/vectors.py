"""The two vector files of a store: decoder directions, and where the exemplars of each neuron lie.

Both are mapped from the disk, not read into memory. Knows FAISS; nothing of SQLite or images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np

from explorer.errors import StoreError
from explorer.records import Activation
from explorer.store import sketch

# Only this flag leaves the rows of a flat index on the disk (IO_FLAG_MMAP is for inverted lists).
_MAPPED = faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY

_ROWS_AT_ONCE = 4096
_FLOAT = 4  # bytes
_DAMAGED = "{name} of the store {folder} is damaged; build the store again"


@contextmanager
def one_thread() -> Iterator[None]:
    """Search with one thread, several times as quick for one query, and leave the setting as it was.

    FAISS and torch share OpenMP's number of threads: what one sets, the other has.
    """
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """A float32 copy of vectors [n, d] at unit length; a row of length 0 stays 0."""
    rows = np.array(vectors, dtype=np.float32, order="C")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(lengths > 0, lengths, 1)
    return rows


def write_directions(path: Path, directions: np.ndarray) -> None:
    """Keep directions [F, d] at unit length; a direction of length 0 stays 0 and is similar to none."""
    rows = unit_rows(directions)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    _write(index, path)


def write_centroids(path: Path, centroids: np.ndarray, b_dec: np.ndarray) -> None:
    """Keep centroids [F, s] at unit length behind the transform of patch vectors [d] into unit sketches.

    b_dec [d]: taken off a vector before it is sketched. Raises ValueError unless s = min(d, 256).
    """
    width, side = len(b_dec), sketch.side_of(len(b_dec))
    if centroids.shape[1] != side:
        raise ValueError(
            f"centroids of vectors of width {width} have {side} numbers, not {centroids.shape[1]}"
        )
    across = sketch.matrix(width)
    linear = faiss.LinearTransform(width, side, True)
    faiss.copy_array_to_vector(np.ascontiguousarray(across.T).ravel(), linear.A)
    offset = -(b_dec.astype(np.float64) @ across)
    faiss.copy_array_to_vector(offset.astype(np.float32), linear.b)
    linear.is_trained = True
    flat = faiss.IndexFlatIP(side)
    flat.add(unit_rows(centroids))
    index = faiss.IndexPreTransform(flat)
    index.prepend_transform(faiss.NormalizationTransform(side, 2.0))
    index.prepend_transform(linear)
    _write(index, path)


def _write(index: faiss.Index, path: Path) -> None:
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise StoreError(f"cannot write {path}: {error}") from error


def _read(path: Path, kind: type[faiss.Index]) -> faiss.Index:
    """A mapped index of the kind expected. Raises StoreError for anything else."""
    wrong = f"cannot read {path.name} of the store {path.parent}; build the store again"
    try:
        index = faiss.read_index(str(path), _MAPPED)
    except (RuntimeError, MemoryError) as error:
        raise StoreError(wrong) from error
    if not isinstance(index, kind):
        raise StoreError(f"{wrong} (it is of the kind {type(index).__name__}, not {kind.__name__})")
    return index


def _check_sizes(flat: faiss.Index, path: Path) -> None:
    """FAISS trusts the sizes that a file tells, and reads what is not there when they are wrong."""
    if not isinstance(flat, faiss.IndexFlat) or flat.codes.size() != flat.ntotal * flat.d * _FLOAT:
        raise StoreError(_DAMAGED.format(name=path.name, folder=path.parent))


def _rows(flat: faiss.IndexFlat) -> np.ndarray:
    """The rows [F, s] of a flat index, as a view of the file that must not outlive the index."""
    return faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)


def _lengths(flat: faiss.IndexFlat) -> np.ndarray:
    """The length of each row [F] float32, some rows at a time."""
    rows = _rows(flat)
    lengths = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        lengths[part] = np.linalg.norm(rows[part], axis=1)
    return lengths


class Directions:
    """Unit decoder directions, mapped from the file and searched by cosine. Safe to use from threads."""

    def __init__(self, path: Path) -> None:
        self._index = _read(path, faiss.IndexFlat)
        _check_sizes(self._index, path)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def width(self) -> int:
        """Length of a direction."""
        return int(self._index.d)

    def lengths(self) -> np.ndarray:
        """The length of each row [F]: 1, or 0."""
        return _lengths(self._index)

    def rows(self) -> np.ndarray:
        """A copy of all directions [F, d] float32 at unit length, zeros where the length is 0."""
        return _rows(self._index).copy()

    def similar(self, neuron: int, k: int) -> list[Activation]:
        """The k other neurons with the nearest direction and their cosine, nearest first."""
        k = min(k, len(self) - 1)
        if k < 1:
            return []
        query = self._index.reconstruct(neuron)[None]
        with one_thread():
            cosines, neurons = self._index.search(query, k + 1)
        pairs = [(int(n), float(c)) for n, c in zip(neurons[0], cosines[0], strict=True) if n != neuron]
        return _ordered(pairs)[:k]


class Centroids:
    """Mean direction of each neuron's exemplars, searched by patch vectors. Safe to use from threads."""

    def __init__(self, path: Path) -> None:
        self._index = _read(path, faiss.IndexPreTransform)
        self._flat = faiss.downcast_index(self._index.index)
        _check_sizes(self._flat, path)
        if not self._is_whole():
            raise StoreError(_DAMAGED.format(name=path.name, folder=path.parent))
        self._live: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def width(self) -> int:
        """Length of a patch vector."""
        return int(self._index.d)

    def lengths(self) -> np.ndarray:
        """The length of each row [F]: 1, or 0."""
        return _lengths(self._flat)

    def nearest(self, vector: np.ndarray, k: int) -> list[Activation]:
        """The k neurons whose exemplars lie nearest to a patch vector [d], with the cosine, nearest first.

        Dead neurons are never among them. Raises StoreError for a vector that does not fit.
        """
        query = np.asarray(vector, dtype=np.float32)
        if query.shape != (self.width,):
            shape = " x ".join(map(str, query.shape))
            raise StoreError(f"this store is searched by vectors of width {self.width}, not {shape or 'one'}")
        if not np.isfinite(query).all():
            raise StoreError("the vector to search by holds values that are not finite numbers")
        live = self._live_bits()
        k = min(k, int(np.unpackbits(live).sum()))
        if k < 1:
            return []
        chosen = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(live))
        behind = faiss.SearchParametersPreTransform(index_params=chosen)
        with one_thread():
            cosines, neurons = self._index.search(query[None], k, params=behind)
        return _ordered([(int(n), float(c)) for n, c in zip(neurons[0], cosines[0], strict=True)])

    def _is_whole(self) -> bool:
        """Whether the parts are those of FORMAT.md, and lead from a vector's width to that of the rows."""
        chain, side = self._index.chain, self._flat.d
        steps = [faiss.downcast_VectorTransform(chain.at(i)) for i in range(chain.size())]
        if [type(step) for step in steps] != [faiss.LinearTransform, faiss.NormalizationTransform]:
            return False
        linear, unit = steps
        widths = (linear.d_in, linear.d_out, unit.d_in, unit.d_out) == (self.width, side, side, side)
        sizes = (linear.A.size(), linear.b.size()) == (self.width * side, side)
        trained = self._index.is_trained and linear.is_trained and unit.norm == 2
        return widths and sizes and trained and self._flat.ntotal == self._index.ntotal

    def _live_bits(self) -> np.ndarray:
        """One bit per neuron, first bit lowest: whether it has exemplars. Found at the first search."""
        if self._live is None:
            self._live = np.packbits(self.lengths() > 0, bitorder="little")
        return self._live


def _ordered(pairs: list[tuple[int, float]]) -> list[Activation]:
    """Highest first; of equal ones the lower neuron first."""
    return [Activation(*pair) for pair in sorted(pairs, key=lambda pair: (-pair[1], pair[0]))]
