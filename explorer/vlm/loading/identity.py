"""The hash of a model folder's weights: of all bytes up to a size, of a sample of them beyond.

Two folders of the same weights have the same hash wherever they lie. Knows files and nothing of models.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

WHOLE = 1 << 30
"""Bytes up to which folders are read whole: a second or two. Ids of stores and SAEs rest on it."""
SAMPLES, EACH = 256, 1 << 16
"""Pieces read of each file of a larger folder, evenly spaced, and bytes of each: 16 MiB of a file."""


def weight_files(folder: Path) -> list[Path]:
    """The files with weights: safetensors where there are any, else PyTorch's."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))


def weight_bytes(folder: Path) -> int:
    """How large they are together."""
    return sum(path.stat().st_size for path in weight_files(folder))


def weights_digest(folder: Path, whole: int = WHOLE) -> str:
    """SHA-256 in hex of the weights of a folder.

    Up to `whole` bytes all are read. Of more, each file gives its name, its size, its beginning (where
    safetensors lists the tensors: up to 16 MiB) and pieces all over it: a file of other weights differs in
    nearly every piece, but a change of single weights between them goes unseen.
    """
    digest, sampled = hashlib.sha256(), weight_bytes(folder) > whole
    for path in weight_files(folder):
        with path.open("rb") as file:
            if sampled:
                digest.update(f"{path.name}:{path.stat().st_size};".encode())
                digest.update(_sampled(file, path.stat().st_size))
            else:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _sampled(file: BinaryIO, size: int) -> bytes:
    """The hash of the beginning of a file and of pieces all over it."""
    digest = hashlib.sha256()
    head = file.read(8)
    length = int.from_bytes(head, "little")
    digest.update(head)
    digest.update(file.read(min(length, SAMPLES * EACH)))
    for piece in range(SAMPLES):
        file.seek(max(0, size - EACH) * piece // (SAMPLES - 1))
        digest.update(file.read(EACH))
    return digest.digest()
