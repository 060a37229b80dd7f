"""``connect``: a Dask cluster to work with, one that is there or one on this computer; checked before anything is sent to it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tileseg import __version__
from napari_tileseg.batch.remote import greet
from napari_tileseg.errors import Cancelled, OptionsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from distributed import Client

__all__ = ["check_greetings", "connect", "cuda_places", "threads_each", "wait_for_workers"]

_PATIENCE = 30
"""Seconds that a scheduler or a local worker has to answer."""

DEATHS = 3
"""So many workers may die over one order before it counts as the cause."""


@contextlib.contextmanager
def connect(*, workers: int = 0, scheduler: str = "", device: str = "auto") -> Iterator[Client]:
    """Give a client of a cluster, and end what was started for it afterwards.

    Parameters
    ----------
    workers : int
        Processes on this computer, if no scheduler is named; each gets its share of the cores, and of the GPUs.
    scheduler : str
        Address of a scheduler (``tcp://host:8786``), or the file that one has written (``--scheduler-file``).
    device : str
        What the models are to run on, as in `SegmentOptions`.

    Raises
    ------
    OptionsError
        If Dask's package for clusters is missing, both or neither were given, or nobody answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise OptionsError(
            'Workers need the package distributed, which is not installed. Install it: pip install "napari-tileseg[cluster]".'
        ) from None
    if bool(scheduler) == (workers > 0):
        given = f'{workers} workers and the scheduler "{scheduler}"' if scheduler else f"{workers} workers"
        raise OptionsError(f"{given} cannot be used. Give either a number of workers from 1 (--workers) or a scheduler (--scheduler).")
    if scheduler:
        with _client(Client, scheduler) as client:
            yield client
        return
    import dask

    # Dask would set OMP_NUM_THREADS=1 in this program too, for whatever it starts later.
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": {}}),
        _local_cluster(workers, device) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(_deaf())
        yield client


def _deaf() -> Any:
    """Return what makes each worker leave Ctrl-C to the program that has started it: a terminal sends it to all of them."""
    from distributed import WorkerPlugin

    base: Any = WorkerPlugin

    class Deaf(base):  # type: ignore[misc]  # only the package knows its base
        """Runs where the worker's loop runs: in the main thread, the only one that may say so."""

        def setup(self, worker: object) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    return Deaf()


def _client(make: Any, scheduler: str) -> Any:
    file = Path(scheduler).expanduser()
    is_file = "://" not in scheduler and (file.suffix == ".json" or file.is_file())
    if is_file and not file.is_file():
        raise OptionsError(f'There is no scheduler file "{scheduler}". Start "dask scheduler --scheduler-file {scheduler}", then workers.')
    where: dict[str, Any] = {"scheduler_file": str(file)} if is_file else {"address": scheduler}
    try:
        return make(**where, timeout=_PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise OptionsError(
            f'No Dask scheduler answers at "{scheduler}": {reason.rstrip(".")}. Check the address, or start one with "dask scheduler".'
        ) from error


def _local_cluster(workers: int, device: str) -> Any:
    try:
        return _start(workers, device)
    except RuntimeError as error:
        raise OptionsError(
            f"The {workers} worker processes could not be started ({error}). In a script of your own, start them below "
            'if __name__ == "__main__": each process reads the script too.'
        ) from error


def _start(workers: int, device: str) -> Any:
    """Return a cluster of processes, one order at a time in each, which live as long as it does."""
    from distributed import LocalCluster

    make: Any = LocalCluster
    each = str(threads_each(workers))
    environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), each)
    places = cuda_places(workers, device)
    more: dict[str, Any] = {
        "threads_per_worker": 1,
        "silence_logs": logging.CRITICAL,  # what matters is told as an outcome
        "memory_limit": 0,  # Dask would stop a process whose memory it takes for its own
        # Two batches at once must not argue about the port of a dashboard that nobody has asked for.
        "scheduler_kwargs": {"allowed_failures": DEATHS - 1, "dashboard": False, "dashboard_address": ":0"},
    }
    if places and (cuda_cluster := _cuda_cluster()) is not None:
        return cuda_cluster(n_workers=workers, CUDA_VISIBLE_DEVICES=places, env=environment, **more)
    if not places:
        return make(n_workers=workers, processes=True, env=environment, **more)

    class Cluster(make):  # type: ignore[misc]  # only the package knows its base
        """One GPU for each process, by its number."""

        def new_worker_spec(self) -> dict[Any, Any]:
            [(name, spec)] = super().new_worker_spec().items()
            place = places[int(name) % len(places)]
            return {name: {**spec, "options": {**spec["options"], "env": {**environment, "CUDA_VISIBLE_DEVICES": place}}}}

    cluster = Cluster(n_workers=0, processes=True, **more)
    cluster.scale(workers)
    return cluster


def _cuda_cluster() -> Any:
    """Return the cluster of dask-cuda, which also ties each process to the cores beside its GPU; None where it is not installed."""
    from importlib import import_module

    try:
        return import_module("dask_cuda").LocalCUDACluster
    except ImportError:
        return None


def threads_each(workers: int) -> int:
    """Return how many threads each of some processes may compute with."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


def cuda_places(workers: int, device: str) -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES is to be for each worker; nothing where there is no choice between several GPUs.

    Parameters
    ----------
    workers : int
        Number of processes; with more of them than GPUs some share one.
    device : str
        Of the options. One that names a GPU by its number is left alone: all workers use that one.
    """
    if device not in ("auto", "cuda"):
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",") if name.strip()]
    else:
        import torch

        names = [str(index) for index in range(torch.cuda.device_count())]
    return [names[index % len(names)] for index in range(workers)] if len(names) > 1 else []


def wait_for_workers(client: Client, *, cancel: Callable[[], bool] = lambda: False) -> None:
    """Return when there is a worker; on a busy cluster that may take hours.

    Raises
    ------
    Cancelled
        If somebody does not want to wait any longer.
    """
    while not client.scheduler_info(n_workers=-1)["workers"]:
        if cancel():
            raise Cancelled("The run was cancelled while it waited for a worker.")
        time.sleep(0.1)


def check_greetings(client: Client, folders: Sequence[str]) -> None:
    """Have every worker say who it is.

    Raises
    ------
    OptionsError
        If one cannot do the work: what it lacks, and what to do.
    """
    found: Mapping[str, Any] = client.run(greet, list(folders), on_error="return")
    mine = {"napari-tileseg": __version__, "distributed": version("distributed")}
    compare(found, mine)


def compare(found: Mapping[str, Any], mine: Mapping[str, str]) -> None:
    """Raise unless all workers are what they should be; `found` holds the answer of `greet`, or an error, for each address."""
    for address, answer in found.items():
        if isinstance(answer, BaseException):
            reason = str(answer).strip().split("\n")[0] or type(answer).__name__
            raise OptionsError(
                f"The worker {address} cannot load napari-tileseg {mine['napari-tileseg']} ({reason}). "
                "Install it in the workers' environment."
            )
        for name, wanted in mine.items():
            if answer[name] != wanted:
                raise OptionsError(
                    f"The worker {address} on {answer['host']} has {name} {answer[name]}, this program has {wanted}. "
                    "Install the same version on both."
                )
        if answer["unseen"]:
            raise OptionsError(
                f'The worker {address} on {answer["host"]} does not see "{answer["unseen"][0]}". Images and results must lie on a disk '
                "that this program and all workers see under the same path."
            )
    torch = {answer["torch"]: address for address, answer in found.items()}
    if len(torch) > 1:
        named = " and ".join(f"torch {name} ({address})" for name, address in sorted(torch.items()))
        raise OptionsError(f"The workers have {named}. Install the same version on all of them: results may differ otherwise.")
