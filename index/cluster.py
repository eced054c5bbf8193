"""The same build on many processes and machines: Ray Data hands the parts to actors that hold the model.

Ray alone distributes: it starts the actors, spreads the parts, and gives a part whose process or machine died
to another. A part goes on from its own checkpoint in the shared folder, so being tried twice does no harm.
Knows Ray, and how parts and a merge are asked for; nothing of pictures or neurons.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from index.parts import earlier_parts, parts_folder, remove_parts
from index.sources.base import Source
from index.stopping import Unheard
from index.work import Shard, locked, work_folder

if TYPE_CHECKING:
    import ray

PARTS_PER_ACTOR = 8
"""Parts for each actor, unless told: so many that the last ones end at about the same time."""
TRIES_AGAIN = 32
"""How often a part is tried again after its process or machine died. A machine that vanishes uses up some ten
of them before Ray knows that it has."""
PATIENCE = 60.0
"""Seconds to wait for a part that another process holds: readers outlive a killed process a little."""
OBJECT_STORE = 200 * 2**20
"""Shared memory of a cluster of this machine in bytes; only the list of the pictures goes through it."""


class Site(NamedTuple):
    """An SAE and its model, which may be None where parts are merged without words."""

    lvlm: LVLM | None
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
            raise ExplorerError(f"{self.gpus} GPUs per actor will not do; use 0, 0.5 or 1, for instance")


class BuiltPart(NamedTuple):
    """What an actor tells of a part: one row of Ray's data.

    images: read, the skipped ones among them; fresh: those of this run; kind, error: of the ExplorerError
    that ended it, empty when it is complete; host: where; heir: whether its actor has just replaced one that
    died.
    """

    part: int
    images: int = 0
    skipped: int = 0
    fresh: int = 0
    kind: str = ""
    error: str = ""
    host: str = ""
    heir: bool = False


class _Job(NamedTuple):
    """What Ray is to do. config: of every part, but for its shard; gpus: of each actor."""

    config: BuildConfig
    n_parts: int
    actors: int
    gpus: float
    source: Source
    open_site: Callable[[], Site]


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
    in each actor; open_here: called in this process for the merge. seen: hears of every finished part; tell:
    of what is being done. Whatever ends the build, finished parts and checkpoints stay, and the next call
    goes on from them. Raises ExplorerError as `index.build.build` does, and when Ray is missing, cannot be
    joined, has no room, or loses the process of a part time and again.
    """
    started = time.monotonic()
    check_target(config.out)
    ray = _import_ray(alone=cluster.address is None)
    folder = parts_folder(config.out)
    with locked(folder):
        if config.restart:
            remove_parts(folder)
        n_parts = earlier_parts(folder, cluster.parts)
        part = replace(config, out=folder, restart=False, words="none")
        with _joined(ray, cluster.address):
            actors = _actors(ray, cluster, 1 + config.workers, tell)
            wanted = cluster.parts or PARTS_PER_ACTOR * actors
            n_parts = n_parts or min(wanted, chunk_count(len(source), config.batch))
            actors = min(actors, n_parts)
            tell(f"{n_parts} parts, {actors} at a time, in {folder}")
            done = _run(ray, _Job(part, n_parts, actors, cluster.gpus, source, open_site), seen, tell)
        finished = time.monotonic()
        site = open_here()
        paths = [work_folder(folder, Shard(number + 1, n_parts)) for number in range(n_parts)]
        merged = merge(paths, config.out, site.sae, site.lvlm, config.words, tell)
        remove_parts(folder)
    return Summary(
        folder=config.out,
        merged=merged,
        skipped=merged.skipped,
        n_images=merged.manifest.n_images,
        fresh=sum(row.fresh for row in done),
        seconds=finished - started,
        finishing=time.monotonic() - finished,
    )


class PartBuilder:
    """Lives in an actor: opens the model and the SAE once, and builds the parts that it is given."""

    def __init__(
        self, config: BuildConfig, n_parts: int, source: ray.ObjectRef, open_site: Callable[[], Site]
    ) -> None:
        self._config, self._n_parts, self._open_site = config, n_parts, open_site
        ray = _import_ray()
        self._source: Source = pickle.loads(ray.get(source))
        self._heir = bool(ray.get_runtime_context().was_current_actor_reconstructed)
        self._site: Site | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list]:
        """Build the part of a batch of one; errors for people travel as values, which keeps their words."""
        row = BuiltPart(int(batch["part"][0]), host=socket.gethostname(), heir=self._heir)
        self._heir = False
        try:
            done = self._build(replace(self._config, shard=Shard(row.part, self._n_parts)))
        except ExplorerError as error:
            row = row._replace(kind=type(error).__name__, error=str(error))
        else:
            skipped = len(done.skipped)
            row = row._replace(images=done.n_images + skipped, skipped=skipped, fresh=done.fresh)
        return {name: [value] for name, value in row._asdict().items()}

    def _build(self, config: BuildConfig) -> Summary:
        """Build a part, after whoever died over it has let go of its folder."""
        if self._site is None:
            self._site = self._open_site()
        lvlm, sae = self._site
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return build(config, self._source, lvlm, sae, stop=Unheard())  # Ray's affair
            except StoreError as error:
                held = isinstance(error.__cause__, BlockingIOError)
                if not held or time.monotonic() > until:
                    raise
            time.sleep(0.5)


def _run(
    ray: ModuleType, job: _Job, seen: Callable[[Progress], None], tell: Callable[[str], None]
) -> list[BuiltPart]:
    """Build all parts; a row for each. Raises the first error."""
    job.source.list_hash()  # which the source remembers: found here once, not in every actor
    sent = ray.put(ray.cloudpickle.dumps(job.source))
    needs = {"num_gpus": job.gpus} if job.gpus else {"num_cpus": 1 + job.config.workers}
    numbers = [{"part": number + 1} for number in range(job.n_parts)]
    rows = ray.data.from_items(numbers, override_num_blocks=job.n_parts)
    with warnings.catch_warnings():  # unless told, Ray Data would try a part that kills its process for ever
        warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
        rows = rows.map_batches(
            PartBuilder,
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=job.actors, max_tasks_in_flight_per_actor=1),
            fn_constructor_args=(job.config, job.n_parts, sent, job.open_site),
            max_restarts=-1,
            max_task_retries=TRIES_AGAIN,
            **needs,
        )
    done: list[BuiltPart] = []
    seen(Progress(0, len(job.source), 0))
    for row in _arriving(ray, rows):
        if row.heir:
            tell(f"a process has died; another one did part {row.part}, on {row.host}")
        if row.error:
            kind = getattr(errors, row.kind, ExplorerError)
            raise kind(f"{row.error} (part {row.part} of {job.n_parts}, on {row.host})")
        done.append(row)
        images, skipped = sum(row.images for row in done), sum(row.skipped for row in done)
        seen(Progress(images, len(job.source), skipped))
    return done


def _arriving(ray: ModuleType, rows: ray.data.Dataset) -> Iterator[BuiltPart]:
    """The rows, each as soon as it is there. Raises ExplorerError when Ray gives up."""
    try:
        for values in rows.iter_rows():
            yield BuiltPart(**values)
    except ray.exceptions.RayError as error:
        if isinstance(error, ray.exceptions.RayTaskError | ray.exceptions.UserCodeException):
            raise  # a mistake in this program, with its trace
        raise ExplorerError(
            f"the cluster cannot go on: {_gist(error)}. A part whose process dies is tried {TRIES_AGAIN} "
            "times more; most often memory is short: use fewer --actors. All machines must also have this "
            "program and its packages under the same paths. Run the same command again to go on"
        ) from error


def _import_ray(alone: bool = False) -> ModuleType:
    """Ray, set to ask nothing of the internet and, if `alone`, to listen to no other machine.

    Raises ExplorerError when it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if alone:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray's word for: 127.0.0.1 only
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters comes as exceptions
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # and as rows
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
    """In its `with`, this process belongs to a cluster, quietly. Raises ExplorerError when it cannot."""
    own = {} if address else {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    try:
        with _sigterm_kept(), _without_stderr():
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        what = f"cannot join the Ray cluster at {address}" if address else "cannot start Ray on this machine"
        raise ExplorerError(f"{what}: {_gist(error)}") from error
    try:
        for handler in logging.getLogger("ray.data").handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setLevel(logging.CRITICAL)
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


@contextmanager
def _without_stderr() -> Iterator[None]:
    """In its `with`, what Ray's libraries write to stderr goes nowhere; errors are raised all the same."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "w", encoding="ascii") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _actors(ray: ModuleType, cluster: ClusterConfig, cpus: int, tell: Callable[[str], None]) -> int:
    """How many actors to start. Raises ExplorerError when there is no room for one."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    name, need = ("GPU", cluster.gpus) if cluster.gpus else ("CPU", cpus)
    room = sum(int(node.get(name, 0) / need + 1e-9) for node in nodes)
    has = f"{len(nodes)} machine{'s' * (len(nodes) > 1)} with {sum(n.get(name, 0) for n in nodes):g} {name}s"
    if cluster.address is not None and cluster.actors is not None:
        if cluster.actors > room:
            tell(f"there is room for {room} of {cluster.actors} actors ({has}); the others wait for machines")
        return cluster.actors
    if room == 0:
        raise ExplorerError(
            f"no machine has the {need:g} {name}s that an actor needs ({has}); use smaller "
            f"{'--gpus-per-actor' if cluster.gpus else '--workers'}"
        )
    return min(cluster.actors or room, room)


def _gist(error: BaseException) -> str:
    """The last line of what an error of Ray says, where its traces end."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else type(error).__name__
