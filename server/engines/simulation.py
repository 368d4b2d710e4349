"""Run a configuration on one of the engines, in this process or on Ray."""

import gc
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from flwr.common import Context
from flwr.server import Grid
from flwr.serverapp import ServerApp

from byzflower.clients.app import app as client_app
from byzflower.flower.compat import run_on_ray
from byzflower.numerics.cores import usable_cores
from byzflower.numerics.threads import one_thread
from byzflower.server.config.checks import ConfigError
from byzflower.server.config.tasks import Config
from byzflower.server.engines.inline import InlineGrid
from byzflower.server.federation import federation
from byzflower.server.recorder import Recorder
from byzflower.server.rounds import OnRound, Outcome


def simulate(config: Config, on_round: OnRound | None = None, *, fresh: bool = False) -> Outcome:
    """Run a configuration; a finished run is not repeated, an interrupted one goes on.

    Ctrl-C lets the round in progress end, then stops; a second one ends the process.

    Args:
        config: what to run.
        on_round: called with every round's record.
        fresh: forget earlier results of this configuration.

    Raises:
        ConfigError: the resources asked for are not there, or another process is working on this run.
    """
    if config.deployed:
        raise ConfigError("engine: a deployment is no simulation; it is started by `flwr run` (see docs)")
    recorder = Recorder(config)
    with recorder.alone(), _interruptible() as stop:
        if fresh:
            recorder.restart()
        if recorder.finished:
            return Outcome(recorder.result(), recorder)
        if config.engine == "inline":
            return _simulate_inline(config, recorder, on_round, stop)
        return _simulate_on_ray(config, recorder, on_round, stop)


def _simulate_inline(
    config: Config, recorder: Recorder, on_round: OnRound | None, stop: threading.Event
) -> Outcome:
    nodes = node_count(config, usable_cores())
    grid = InlineGrid(client_app, nodes)
    gc.freeze()  # or the collector walks through all imported modules again and again
    try:
        with one_thread():
            return federation(config, nodes, recorder).run(grid, on_round, stop)
    finally:
        gc.unfreeze()
        grid.close()


def _simulate_on_ray(
    config: Config, recorder: Recorder, on_round: OnRound | None, stop: threading.Event
) -> Outcome:
    cpus, gpus = _connect(config)
    nodes = node_count(config, max(1, int(cpus / config.num_cpus)))
    backend_config = {
        "client_resources": {"num_cpus": config.num_cpus, "num_gpus": gpus_per_node(config, nodes, gpus)},
        "init_args": {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False},
    }
    ended: list[Outcome | BaseException] = []
    server_app = ServerApp()

    # The engine runs this in a thread and would print its exceptions as tracebacks.
    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            ended.append(federation(config, nodes, recorder).run(grid, on_round, stop))
        except Exception as error:
            ended.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        run_on_ray(server_app, client_app, nodes, backend_config)
    outcome = ended[0]
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def node_count(config: Config, workers: int) -> int:
    """Virtual nodes to start: as asked, else one per worker, never more than clients."""
    if config.clients_per_node:
        return -(-config.clients // config.clients_per_node)
    return min(config.nodes or workers, config.clients)


def gpus_per_node(config: Config, nodes: int, gpus: float) -> float:
    """Share of a GPU that a node gets; by default all nodes share what there is.

    Raises:
        ConfigError: more than there is.
    """
    if config.num_gpus < 0:
        return min(gpus / nodes, 1.0)
    if config.num_gpus > gpus:
        raise ConfigError(
            f"num-gpus: {config.num_gpus:g} per node asked for, but there are {gpus:g} GPUs here"
        )
    return config.num_gpus


def _connect(config: Config) -> tuple[float, float]:
    """CPUs and GPUs of the machine, or of the Ray cluster that was named.

    Raises:
        ConfigError: no such cluster, or fewer CPUs than one node asks for.
    """
    cpus, gpus = float(os.cpu_count() or 1), float(torch.cuda.device_count())
    if config.ray_address:
        import ray

        try:
            ray.init(address=config.ray_address, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"ray-address: no Ray cluster at {config.ray_address!r} ({error!s:.200})"
            ) from None
        resources: dict[str, Any] = ray.cluster_resources()
        cpus, gpus = float(resources.get("CPU", 0)), float(resources.get("GPU", 0))
    if config.num_cpus > cpus:
        raise ConfigError(
            f"num-cpus: {config.num_cpus:g} per node asked for, but there are {cpus:g} CPUs here"
        )
    return cpus, gpus


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a request to stop after the round."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handler(signum: int, frame: object) -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
