"""Opens a session even when its store is missing, damaged, outdated or of another SAE: without it, then.

Says why, and what to run. Knows the commands of the index and the page, but runs nothing.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

from explorer.errors import StoreError
from explorer.sae import load_sae
from explorer.session.session import EMBEDDED_MODEL, EMBEDDED_SAE, EMBEDDED_STORE, Session
from explorer.store import Store
from explorer.vlm import open_lvlm

WITH = "build one with: "


class Opened(NamedTuple):
    """A session; why it has no store, "" when it has one: in words, ended by ": " and the command to run."""

    session: Session
    trouble: str = ""


def open_anyway(
    model: str | Path | None = None,
    sae: str | Path | None = None,
    store: str | Path | None = None,
    device: str = "cpu",
) -> Opened:
    """As `Session.open`, but what is wrong with the store is told instead of raised.

    Raises ModelError or SAEError.
    """
    embedded = model is None and sae is None
    opened_sae = load_sae(sae or EMBEDDED_SAE)
    lvlm = open_lvlm(model or EMBEDDED_MODEL, device)
    opened_sae = opened_sae.to(device)
    wanted = EMBEDDED_STORE if store is None and embedded and EMBEDDED_STORE.exists() else store
    if wanted is None:
        out, why = (
            (EMBEDDED_STORE if embedded else Path("stores/mine")),
            "this session has no store of exemplars",
        )
        return Opened(Session(lvlm, opened_sae), f"{why}; {WITH}{_build(model, sae, out, embedded)}")
    try:
        found = Store.open(wanted)
    except StoreError as error:
        out = Path(f"{wanted}-new") if Path(wanted).is_file() else Path(wanted)
        drawn = embedded and "--images" not in str(error)
        return Opened(Session(lvlm, opened_sae), f"{_why(error)}; {WITH}{_build(model, sae, out, drawn)}")
    try:
        return Opened(Session(lvlm, opened_sae, found))
    except StoreError as error:
        found.close()
        command = _build(model, sae, Path(f"{wanted}-new"), embedded)
        return Opened(Session(lvlm, opened_sae), f"{_why(error)}; {WITH}{command}")


def _build(model: str | Path | None, sae: str | Path | None, out: Path, drawn: bool) -> str:
    """The command that builds a fitting store at `out`, of drawn scenes or of a folder of pictures."""
    given = [("--model", model), ("--sae", sae)]
    parts = [f"{name} {shlex.quote(str(value))}" for name, value in given if value is not None]
    pictures = "--scenes 4000" if drawn else "--images FOLDER"
    return " ".join(["python -m index build", *parts, pictures, "--out", shlex.quote(_short(out))])


def _short(path: Path) -> str:
    """The path from where the command is run, as far as it lies below."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(path)


def _why(error: StoreError) -> str:
    """What is wrong, without the advice: that is for any session, and this one knows its own names."""
    why = str(error)
    for advice in ("; build", "; a store is", ". Build"):
        why = why.partition(advice)[0]
    return why
