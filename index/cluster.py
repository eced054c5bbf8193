"""The same build on many processes and machines: Ray Data hands the parts to actors that hold the model.

Ray alone distributes: it starts the actors, spreads the parts, and gives a part whose process or machine died
to another. A part goes on from its own checkpoint in the shared folder, so being tried twice does no harm.
Knows Ray, and how parts and a merge are asked for; nothing of pictures or neurons.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from explorer import errors
from explorer.errors import ExplorerError, StoreError
from explorer.sae import SAE
from explorer.store import check_target
from explorer.vlm.base import LVLM
from index.build import BuildConfig, Summary, build
from index.loading import chunk_count
from index.merge import merge
from index.part import Progress
from index.sources.base import Source
from index.stopping import StopRequests
from index.work import Shard, locked, work_folder

if TYPE_CHECKING:
    import ray

PARTS_PER_ACTOR = 8
"""Parts for each actor, unless told: so many that the last ones end at about the same time."""
TRIES_AGAIN = 8
"""How often a part is tried again after its process or machine died."""
PATIENCE = 60.0
"""Seconds to wait for a part that another process holds: readers outlive a killed process a little."""
OBJECT_STORE = 200 * 2**20
"""Shared memory of a cluster of this machine in bytes; only the list of the pictures goes through it."""


class Site(NamedTuple):
    """A model and an SAE that fit each other."""

    lvlm: LVLM
    sae: SAE


@dataclass(frozen=True)
class ClusterConfig:
    """Where to build. Raises ExplorerError for what cannot be.

    address: of a Ray cluster that runs already; None for one of this machine, which ends with the build.
    actors: processes that hold the model; None for as many as there is room for.
    parts: how many; None for those of an earlier run, or eight per actor.
    gpus: of each actor, may be a fraction; 0 for the CPU.
    """

    address: str | None = None
    actors: int | None = None
    parts: int | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        for name in ("actors", "parts"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ExplorerError(f"{name} {value} is too small; use 1 or more")
        if self.gpus < 0 or (self.gpus > 1 and not float(self.gpus).is_integer()):
            raise ExplorerError(
                f"{self.gpus} GPUs per actor will not do; use 0, a fraction such as 0.5, or 1"
            )


class BuiltPart(NamedTuple):
    """What an actor tells of a part: one row of Ray's data.

    images: read, the skipped ones among them; fresh: those of this run; kind, error: of the ExplorerError
    that ended it, empty when it is complete; host: where.
    """

    part: int
    folder: str
    images: int = 0
    skipped: int = 0
    fresh: int = 0
    seconds: float = 0.0
    kind: str = ""
    error: str = ""
    host: str = ""


def parts_folder(out: Path) -> Path:
    """Where the parts are built: hidden beside the store, on a disk that all machines share."""
    return out.absolute().parent / f".{out.absolute().name}.parts"


def build_on_cluster(
    config: BuildConfig,
    cluster: ClusterConfig,
    source: Source,
    open_site: Callable[[], Site],
    open_here: Callable[[], Site],
    seen: Callable[[Progress], None] = lambda progress: None,
    tell: Callable[[str], None] = lambda words: None,
) -> Summary:
    """Build a store on a cluster; its rows are those of a plain build.

    config: of the whole build (no shard). source: opened once, and sent to the actors. open_site: called once
    in each actor; open_here: called in this process for the merge; both must be picklable by name. seen:
    hears of every finished part; tell: of what is being done. Whatever ends the build, finished parts and
    checkpoints stay, and the next call goes on from them. Raises ExplorerError as `index.build.build` does,
    and when Ray is missing, cannot be joined, has no room, or loses a part's process time and again.
    """
    started = time.monotonic()
    check_target(config.out)
    ray = _import_ray()
    folder = parts_folder(config.out)
    with locked(folder):
        if config.restart:
            _remove_parts(folder)
        found = _parts_of(folder, cluster.parts)
        job = replace(config, out=folder, restart=False, words=False)
        with _joined(ray, cluster.address):
            actors = _actors(ray, cluster, 1 + config.workers, tell)
            chunks = chunk_count(len(source), config.batch)
            n_parts = found or min(cluster.parts or PARTS_PER_ACTOR * actors, chunks)
            tell(f"{n_parts} parts, {min(actors, n_parts)} at a time, in {folder}")
            rows = _run(ray, job, cluster.gpus, min(actors, n_parts), n_parts, source, open_site, seen)
        site = open_here()
        paths = [work_folder(folder, Shard(row.part, n_parts)) for row in rows]
        merged = merge(paths, config.out, site.sae, site.lvlm if config.words else None, tell)
        _remove_parts(folder)
    read, fresh = sum(row.images for row in rows), sum(row.fresh for row in rows)
    seconds = time.monotonic() - started
    return Summary(config.out, merged, merged.skipped, read - len(merged.skipped), fresh, seconds)


class PartBuilder:
    """Lives in an actor: opens the model and the SAE once, and builds the parts that it is given."""

    def __init__(
        self, config: BuildConfig, n_parts: int, source: ray.ObjectRef, open_site: Callable[[], Site]
    ) -> None:
        self._config, self._n_parts, self._open_site = config, n_parts, open_site
        self._source: Source = pickle.loads(_import_ray().get(source))
        self._site: Site | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list]:
        """Build the part of a batch of one; errors for people travel as values, which keeps their words."""
        shard = Shard(int(batch["part"][0]), self._n_parts)
        folder = work_folder(self._config.out, shard)
        host = socket.gethostname()
        try:
            summary = self._build(replace(self._config, shard=shard))
        except ExplorerError as error:
            row = BuiltPart(shard.index, str(folder), kind=type(error).__name__, error=str(error), host=host)
        else:
            images, skipped = summary.n_images + len(summary.skipped), len(summary.skipped)
            row = BuiltPart(
                shard.index, str(folder), images, skipped, summary.fresh, summary.seconds, host=host
            )
        return {name: [value] for name, value in row._asdict().items()}

    def _build(self, config: BuildConfig) -> Summary:
        """Build a part, after whoever died over it has let go of its folder."""
        if self._site is None:
            self._site = self._open_site()
        lvlm, sae = self._site.lvlm, self._site.sae
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return build(config, self._source, lvlm, sae, stop=_Deaf())
            except StoreError as error:
                held = isinstance(error.__cause__, BlockingIOError)
                if not held or time.monotonic() > until:
                    raise
            time.sleep(0.5)


class _Deaf(StopRequests):
    """Leaves the signals of an actor to Ray."""

    def __enter__(self) -> _Deaf:
        return self


def _run(
    ray: ModuleType,
    config: BuildConfig,
    gpus: float,
    actors: int,
    n_parts: int,
    source: Source,
    open_site: Callable[[], Site],
    seen: Callable[[Progress], None],
) -> list[BuiltPart]:
    """Build all parts; one row for each, by number. Raises the first error."""
    source.list_hash()  # remembered by the source: once here, not once per actor
    sent = ray.put(pickle.dumps(source))
    needs = {"num_gpus": gpus} if gpus else {"num_cpus": 1 + config.workers}
    rows = ray.data.from_items([{"part": n} for n in range(1, n_parts + 1)], override_num_blocks=n_parts)
    with warnings.catch_warnings():  # its own default, no end of retries, would run out of memory for ever
        warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
        rows = rows.map_batches(
            PartBuilder,
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
            fn_constructor_args=(config, n_parts, sent, open_site),
            max_restarts=-1,
            max_task_retries=TRIES_AGAIN,
            **needs,
        )
    done: list[BuiltPart] = []
    seen(Progress(0, len(source), 0))
    try:
        for values in rows.iter_rows():
            row = BuiltPart(**values)
            if row.error:
                kind = getattr(errors, row.kind, ExplorerError)
                raise kind(f"{row.error} (part {row.part} of {n_parts}, on {row.host})")
            done.append(row)
            seen(Progress(sum(r.images for r in done), len(source), sum(r.skipped for r in done)))
    except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
        raise ExplorerError(
            f"a process of the cluster died {TRIES_AGAIN + 1} times over one part, or all its machines are "
            f"gone ({_first_line(error)}); most often memory is short: use fewer --actors. Run the same "
            "command again to go on from what is finished"
        ) from error
    return sorted(done)


def _import_ray() -> ModuleType:
    """Ray, set to ask nothing of the internet. Raises ExplorerError when it is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters arrives as an exception
    try:
        import ray
        import ray.data
        import ray.exceptions
        import ray.util.annotations
    except ImportError as error:
        raise ExplorerError(
            f"a build on a cluster needs Ray ({error}): pip install -r requirements-extras.txt"
        ) from error
    return ray


@contextmanager
def _joined(ray: ModuleType, address: str | None) -> Iterator[None]:
    """In its `with`, this process belongs to a cluster; quietly. Raises ExplorerError when it cannot."""
    own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE, "_node_ip_address": "127.0.0.1"}
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        with _sigterm_kept():
            ray.init(address or "local", **quiet, **({} if address else own))
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        what = f"cannot join the Ray cluster at {address}" if address else "cannot start Ray on this machine"
        raise ExplorerError(f"{what}: {_first_line(error)}") from error
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_no_progress_timeout_s = -1  # a part may take hours
        yield
    finally:
        ray.shutdown()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Undo that Ray handles SIGTERM, which this program does itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _actors(ray: ModuleType, cluster: ClusterConfig, cpus: int, tell: Callable[[str], None]) -> int:
    """How many actors to start. Raises ExplorerError when this machine has no room for one."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    name, need = ("GPU", cluster.gpus) if cluster.gpus else ("CPU", cpus)
    room = sum(int(node.get(name, 0) / need + 1e-9) for node in nodes)
    has = f"{len(nodes)} machine{'s' * (len(nodes) > 1)} with {sum(n.get(name, 0) for n in nodes):g} {name}s"
    if room == 0 and (cluster.address is None or cluster.actors is None):
        raise ExplorerError(
            f"no machine has the {need:g} {name}s that an actor needs ({has}); use smaller "
            f"{'--gpus-per-actor' if cluster.gpus else '--workers'}, or let --actors N wait for machines"
        )
    if cluster.actors is not None and cluster.actors > room and cluster.address is not None:
        tell(f"there is room for {room} of {cluster.actors} actors now ({has}); the others wait for machines")
        return cluster.actors
    return min(cluster.actors or room, room)


def _parts_of(folder: Path, wanted: int | None) -> int | None:
    """How many parts an earlier run made, None when there was none. Raises StoreError for another number."""
    found = {int(path.name.rpartition("-")[2]) for path in folder.glob("part-*-of-*")}
    if not found:
        return None
    if len(found) > 1 or wanted not in (None, *found):
        made = " and ".join(str(number) for number in sorted(found))
        raise StoreError(
            f"{folder} holds an unfinished build in {made} parts; leave --parts out to go on with it, or "
            "throw it away with --restart"
        )
    return found.pop()


def _remove_parts(folder: Path) -> None:
    """Throw all parts away. Raises StoreError when one is being built, or cannot be removed."""
    for part in sorted(folder.glob("part-*-of-*")):
        with locked(part):
            try:
                shutil.rmtree(part)
            except OSError as error:
                raise StoreError(f"cannot remove {part}: {error.strerror or error}") from error


def _first_line(error: BaseException) -> str:
    """The first line of what an error of Ray says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
