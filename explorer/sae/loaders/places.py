"""Finds the weight file and the configuration of a checkpoint: in a folder, beside a file, or on the hub.

Works on names alone; the hub is asked for its list of names first, and then for the files that are needed.
"""

from __future__ import annotations

import fnmatch
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from huggingface_hub import get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars

from explorer.errors import SAEError

ENDINGS = (".safetensors", ".st", ".pt", ".pth", ".bin", ".ckpt")
USUAL = (
    "sae_weights.safetensors",
    "sae.safetensors",
    "ae.pt",
    "sae.pt",
    "weights.pt",
    "out.pt",
    "state_dict.pt",
)
"""Names that the projects give to their weights: taken before others in a folder."""
OTHERS = (
    "io.safetensors",
    "sparsity.safetensors",
    "*log_feature_sparsity*",
    "*optimizer*",
    "lr_scheduler*",
    "scheduler*",
    "state.pt",
    "rank_*_state.pt",
    "trainer_state*",
    "activation*store*state*",
    "rng_state*",
    "training_args.bin",
)
"""Names of files that lie beside weights and are none."""
CONFIGS = ("cfg.json", "config.json")
SMALL = ".gitattributes"
"""A small file that every repository on the hub has: asking for it brings the list of all names."""
CHECKPOINTS = ("checkpoints", "checkpoint")
"""Folders whose files may have their configuration one folder up."""
DEPTH = 5
"""How many folders deep a weight file is looked for."""
MAX_NAMES = 20_000
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(/[^/\\]+)*")


class Place(NamedTuple):
    """weights: the weight file; config: the file with its configuration, if there is one."""

    weights: Path
    config: Path | None


def find(path: str | Path, revision: str | None = None) -> Place:
    """The files of a checkpoint that a person names.

    path: a weight file, a folder that holds one (also a few folders down), the configuration in such a
    folder, or a hub name "owner/name", "owner/name/sub/folder" or "owner/name/file"; revision: branch, tag or
    commit of a hub name. Raises SAEError when there is none or more than one, and when the hub cannot give
    it.
    """
    if not str(path).strip():
        raise SAEError("the name of the SAE is empty; expected a file, a folder or a name on the hub")
    try:
        local = Path(os.path.abspath(Path(path).expanduser()))  # links stay: their names are those that count
        if local.name in CONFIGS and local.is_file():
            local = local.parent
        if local.is_file():
            return _beside(local)
        if local.is_dir():
            return _beside(local / choose(_names(local), str(path)))
    except (OSError, RuntimeError) as error:  # a name that is too long, or a user's folder that is not known
        raise SAEError(
            f"{str(path)[:200]} cannot be looked up ({error.args[-1]}); expected a path"
        ) from error
    if isinstance(path, Path) or not _is_hub_name(path):
        raise SAEError(
            f"there is no SAE file at {path} (expected a file, a folder, or owner/name on the hub)"
        )
    return _from_hub(path, revision)


def choose(names: Iterable[str], where: str) -> str:
    """Which of the names (with "/" between folders) is the weight file of the checkpoint at `where`.

    The folder nearest to the top that holds weights counts; in it a usual name goes before others. Raises
    SAEError when there are no weights, or several that could be meant.
    """
    names = list(names)
    folders: dict[PurePosixPath, list[str]] = {}
    for path in map(PurePosixPath, names):
        if path.suffix in ENDINGS and not any(fnmatch.fnmatch(path.name, other) for other in OTHERS):
            folders.setdefault(path.parent, []).append(path.name)
    if not folders:
        found = ", ".join(sorted(names)[:12]) or "nothing"
        raise SAEError(
            f"{where} holds no weights of an SAE: found {found}; expected one of *{', *'.join(ENDINGS)}"
        )
    least = min(len(folder.parts) for folder in folders)
    nearest = {folder: files for folder, files in folders.items() if len(folder.parts) == least}
    if len(nearest) > 1:
        raise _several(where, sorted(map(str, nearest)), "folders with weights")
    (folder, files), *_ = nearest.items()
    usual = [name for name in files if name in USUAL]
    if len(usual or files) > 1:
        raise _several(where, sorted(str(folder / name) for name in usual or files), "weight files")
    return str(folder / (usual or files)[0])


def _several(where: str, found: list[str], what: str) -> SAEError:
    shown = ", ".join(found[:12]) + (f" and {len(found) - 12} more" if len(found) > 12 else "")
    return SAEError(f"{where} holds {len(found)} {what}: {shown}; name one of them, as in {where}/{found[0]}")


def _names(folder: Path) -> list[str]:
    """The files in a folder and the folders below it, as names relative to it."""
    found: list[str] = []
    waiting, seen = [(folder, 0)], set()
    while waiting and len(found) < MAX_NAMES:
        here, depth = waiting.pop(0)
        place = here.resolve()
        if place in seen:  # a link back to a folder above would lead round and round
            continue
        seen.add(place)
        try:
            entries = sorted(here.iterdir())
        except OSError as error:
            raise SAEError(f"the folder {here} cannot be read: {error.strerror or error}") from error
        for entry in entries:
            if entry.is_file():
                found.append(entry.relative_to(folder).as_posix())
            elif entry.is_dir() and depth < DEPTH and not entry.name.startswith("."):
                waiting.append((entry, depth + 1))
    return found


def _beside(weights: Path) -> Place:
    """The weight file with the configuration beside it, or above a folder of checkpoints."""
    folders = [weights.parent]
    if weights.parent.name in CHECKPOINTS:
        folders.append(weights.parent.parent)
    configs = [folder / name for folder in folders for name in CONFIGS]
    return Place(weights, next((config for config in configs if config.is_file()), None))


def _is_hub_name(name: str) -> bool:
    """Whether it can be a hub name, and is not the path of a weight file in a folder."""
    return bool(HUB_NAME.fullmatch(name)) and not (name.count("/") == 1 and name.endswith(ENDINGS))


def _from_hub(name: str, revision: str | None) -> Place:
    owner, repository, *below = name.split("/")
    repo, under = f"{owner}/{repository}", "/".join(below)
    where = f"{name}@{revision}" if revision else name
    if not sys.stderr.isatty():
        disable_progress_bars()  # a log is no place for bars
    try:
        root = _snapshot(repo, revision)
        names = _listed(repo, root)
        weights = _below(names, under, where)
        wanted = [one for one in (weights, *_configs_of(weights)) if one in names]
        if not all((root / one).is_file() for one in wanted):
            root = Path(snapshot_download(repo, revision=revision, allow_patterns=wanted))
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise SAEError(
            f"there is no file or folder {name}, and the hub has no {where} that may be read "
            f"({_first(error)}); check the name, or set HF_TOKEN for a private one"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise SAEError(
            f"there is no file or folder {name}, and {where} was not fetched from the hub before, which "
            f"cannot be reached now ({_first(error)})"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise SAEError(f"{where} could not be fetched from the hub ({_first(error)})") from error
    except Exception as error:
        if type(error).__module__.startswith("httpx"):  # what carries the hub's requests has its own errors
            raise SAEError(f"{where} could not be fetched from the hub ({_first(error)})") from error
        raise
    if not (root / weights).is_file():
        raise SAEError(f"{where}: the hub gave no {weights}; fetch it again")
    return _beside(root / weights)


def _snapshot(repo: str, revision: str | None) -> Path:
    """The folder of a repository's commit, at least with what was fetched before."""
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=[SMALL, *CONFIGS]))
    except IncompleteSnapshotError as error:
        return Path(error.snapshot_path)


def _listed(repo: str, root: Path) -> list[str]:
    """The names in the commit of a repository whose snapshot lies at `root`, also those not fetched."""
    try:
        return [file.path for file in get_cached_repo_tree(repo, revision=root.name)]
    except CachedRepoTreeNotFoundError:
        return _names(root)


def _below(names: Iterable[str], under: str, where: str) -> str:
    """The weight file among the names that lie at or below a folder of a repository."""
    names = list(names)
    if not under:
        return choose(names, where)
    if under in names:
        return under
    inside = [name.removeprefix(f"{under}/") for name in names if name.startswith(f"{under}/")]
    if not inside:
        folders = sorted({name.split("/")[0] for name in names})
        raise SAEError(
            f"{where}: the repository has no {under!r}; found {', '.join(folders[:12]) or 'nothing'}"
        )
    return f"{under}/{choose(inside, where)}"


def _configs_of(weights: str) -> list[str]:
    """The names that the configuration of a weight file in a repository may have."""
    folder = PurePosixPath(weights).parent
    folders = [folder, folder.parent] if folder.name in CHECKPOINTS else [folder]
    return [str(one / name) for one in folders for name in CONFIGS]


def _first(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
