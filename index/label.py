"""Names in a finished store: the words that neurons raise, asked of the model again, and names of classes.

A new version of the store takes its place; the pictures' own files are not needed. Knows stores and models.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from explorer.errors import StoreError
from explorer.sae import SAE
from explorer.session import site_block
from explorer.store import Manifest, Store
from explorer.store.manifest import Route
from explorer.store.rework import label_names, rework
from explorer.vlm.base import LVLM
from index.leftovers import clear_leftovers
from index.meaning.routes import FoundWords, at_patch, find_words
from index.naming import word_rows
from index.sources.class_names import ClassNames, unique_names
from index.work import locked, work_folder

CLASS = "class"


class Labelled(NamedTuple):
    """What changed: words written (None: left as they were), classes renamed, and the store's manifest."""

    words: int | None
    renamed: int
    manifest: Manifest


class Site(NamedTuple):
    """A model and the SAE of the store."""

    lvlm: LVLM
    sae: SAE


def label(
    folder: Path,
    site: Site | None,
    names: ClassNames | None = None,
    words: Route | None = None,
    tell: Callable[[str], None] = lambda words: None,
) -> Labelled:
    """Renew the words of a store, when a site is given, and name its classes, when names are.

    words: how they are found; None for the way that suits the model, "none" to leave them as they are.
    Raises StoreError when the store is of another model or SAE, is being built, or cannot be written.
    """
    with locked(work_folder(folder, None)):
        clear_leftovers(folder)
        store = Store.open(folder)
        found = None if site is None or words == "none" else _words(store, site, words, tell)
        rows = None if found is None else list(word_rows(found.words))
        renamed = {} if names is None else _names(store, names)
        store.close()
        tell("writing the store")
        manifest = rework(folder.absolute(), rows, CLASS, renamed, route=found.route if found else "none")
    return Labelled(None if rows is None else len(rows), len(renamed), manifest)


def _words(store: Store, site: Site, words: Route | None, tell: Callable[[str], None]) -> FoundWords:
    """Ask the model."""
    lvlm, sae = site
    block = site_block(lvlm, sae)
    store.check(model_id=lvlm.model_id, block=block, sae_id=sae.id, n_neurons=sae.n_neurons)
    mean_patch = store.mean_patch()
    if mean_patch is None:
        raise StoreError(
            f"the store {store.folder} keeps no mean patch, which words are looked for around: it was built "
            "with --sample 0, or its sample holds no picture; build it again with a larger --sample"
        )
    active = [one.active_mean for one in store.summaries(range(sae.n_neurons)).values()]
    directions = at_patch(sae, sae.W_dec.detach().float().cpu().numpy(), mean_patch)
    return find_words(words, lvlm, block, mean_patch, directions, np.array(active), tell)


def _names(store: Store, names: ClassNames) -> dict[str, str]:
    """The new name of each class of the store that gets another one. Raises StoreError when none is known."""
    old = label_names(store.folder, CLASS)
    if not any(names.name(key) for key in old):
        known = f"its classes are {', '.join(old[:3])} ..." if old else "it has no classes"
        raise StoreError(f"{names.path} names no class of the store {store.folder}: {known}")
    return {key: name for key, name in zip(old, unique_names(old, names), strict=True) if key != name}
