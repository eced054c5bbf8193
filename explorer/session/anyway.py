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
from explorer.store import Store, is_upgradable
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
        command = _build(model, sae, EMBEDDED_STORE if embedded else Path("stores/mine"), embedded)
        return Opened(Session(lvlm, opened_sae), f"this session has no store of exemplars; {WITH}{command}")
    try:
        found = Store.open(wanted)
    except StoreError as error:
        if is_upgradable(Path(wanted)):
            command = f"python -m index upgrade {_short(Path(wanted))}"
            return Opened(Session(lvlm, opened_sae), f"{_why(error)}; bring it up to date with: {command}")
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
    return " ".join(["python -m index build", *parts, pictures, "--out", _short(out)])


def _short(path: Path) -> str:
    """The path for a command: from where it is run, as far as it lies below."""
    absolute, here = path.absolute(), Path.cwd()
    return shlex.quote(str(absolute.relative_to(here) if absolute.is_relative_to(here) else path))


def _why(error: StoreError) -> str:
    """What is wrong, without the advice: that is for any session, and this one knows its own names."""
    why = str(error)
    for advice in ("; build", "; bring", "; a store is", ". Build"):
        why = why.partition(advice)[0]
    return why
