"""Opens an SAE of any known format: finds its files, reads them safely, and asks each loader in turn.

To add a format: write a module in `explorer/sae/loaders/` with NAME, HINTS, `claims` and `load` (and INERT,
the dotted names of configuration classes that its pickles hold), and put it into LOADERS.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from explorer.errors import SAEError
from explorer.sae.files import NAMES
from explorer.sae.loaders import (
    dictionary_learning,
    overcomplete,
    own,
    patchsae,
    prisma,
    sae_for_vlm,
    sae_lens,
    saev,
    sparsify,
)
from explorer.sae.loaders.found import Found, check_finite
from explorer.sae.loaders.places import find
from explorer.sae.loaders.reading import read_config, read_weights
from explorer.sae.model import SAE

FORMAT = "format"
"""The hint that names the format itself, for a file that several formats share."""


class Loader(Protocol):
    """What a module in `explorer/sae/loaders/` offers; some also have INERT."""

    NAME: str
    HINTS: tuple[str, ...]

    def claims(self, found: Found) -> bool:
        """Whether what was found is of this format."""

    def load(self, found: Found, hints: Mapping[str, object]) -> SAE:
        """The SAE. Raises SAEError for what does not add up."""


LOADERS: tuple[Loader, ...] = (
    own,
    saev,
    sae_lens,
    sparsify,
    prisma,
    patchsae,
    sae_for_vlm,
    dictionary_learning,
    overcomplete,
)
"""The order in which they are asked."""


def load_sae(path: str | Path, hints: Mapping[str, object] | None = None, revision: str | None = None) -> SAE:
    """Open the SAE in a file, in a folder or of a hub name, ready for use (no gradients), on the CPU.

    path: a weight file, a folder that holds one, or a hub name such as "owner/name/sub/folder"; a `Path` is
    never a hub name. hints: what a file cannot say, as in {"top_k": 5}; "format" names the format of a file
    that could be of several. revision: branch, tag or commit of a hub name. HF_TOKEN and HF_HUB_OFFLINE
    act as usual. Raises UnsafeFileError for a pickle that asks for more than tensors, SAEError for a file
    that is missing, damaged, of an unknown format, inconsistent or not finite, and for hints that are unknown
    or missing.
    """
    found = look(path, revision)
    given = dict(hints or {})
    loader = _loader(found, given.pop(FORMAT, None))
    unknown = [name for name in given if name not in loader.HINTS]
    if unknown:
        known = ", ".join((*loader.HINTS, FORMAT))
        raise SAEError(
            f"{found.weights}: unknown hint {unknown[0]!r} for a file of {loader.NAME}; known: {known}"
        )
    try:
        sae = loader.load(found, given)
        check_finite({f"{name}, in our form,": getattr(sae, name) for name in NAMES})
    except SAEError as error:
        if str(found.weights) in str(error):
            raise
        raise type(error)(f"{found.weights} ({loader.NAME}): {error}") from error
    if loader is not own:
        sae.facts = {"format": loader.NAME, **sae.facts}
    return sae.eval().requires_grad_(False)


def look(path: str | Path, revision: str | None = None) -> Found:
    """What a checkpoint holds, read safely, without deciding its format. Raises as `load_sae`."""
    place = find(path, revision)
    config = {} if place.config is None else read_config(place.config)
    inert = frozenset().union(*(getattr(loader, "INERT", frozenset()) for loader in LOADERS))
    contents = read_weights(place.weights, inert)
    return Found(
        path=Path(path),
        folder=place.weights.parent,
        weights=place.weights,
        tensors=contents.tensors,
        config=config,
        config_path=place.config,
        record=contents.record,
        record_class=contents.record_class,
        header=contents.header,
        metadata=contents.metadata,
        extra=contents.extra or {},
    )


def _loader(found: Found, asked: object) -> Loader:
    """The loader for what was found: the one asked for, or the first that claims it. Raises SAEError."""
    known = ", ".join(loader.NAME for loader in LOADERS)
    if asked is not None:
        for loader in LOADERS:
            if str(asked).casefold() == loader.NAME.casefold():
                return loader
        raise SAEError(f"unknown format {asked!r}; known: {known}")
    for loader in LOADERS:
        if loader.claims(found):
            return loader
    config = (
        f"{found.config_path.name} with {', '.join(list(found.config)[:12])}" if found.config_path else "none"
    )
    raise SAEError(
        f"{found.weights} is of no known format: found the tensors {found.listing()}; "
        f"configuration: {config}; known formats: {known} (name the right one with the hint format)"
    )
