"""Run the cells of a grid side by side, in processes, each once; a failed cell does not stop the others."""

import logging
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from queue import Empty
from typing import Any, Protocol

from byzflower.experiments.recipe import Cell
from byzflower.flower.logs import quiet
from byzflower.flower.text import error_text
from byzflower.numerics.cores import share_cores
from byzflower.server.config.tasks import Config, make_config
from byzflower.server.files import RunBusy, RunFolderError
from byzflower.server.results import result_of

ERROR_FILE = "error.txt"


class State(StrEnum):
    """Of a cell."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    ELSEWHERE = "elsewhere"  # another process is working on it


# There is nothing left to do for this process.
ENDED = (State.DONE, State.FAILED, State.ELSEWHERE)


@dataclass
class Progress:
    """How far a cell is.

    Attributes:
        state: what it is doing.
        round: last finished round.
        score: last known score, of the metric that its task is judged by.
        seconds: time spent on it by now.
        error: the last line of what went wrong.
    """

    state: State = State.WAITING
    round: int = 0
    score: float | None = None
    seconds: float = 0.0
    error: str = ""


class Watcher(Protocol):
    """Is told of every change."""

    def update(self, cells: Sequence[Cell], progress: Sequence[Progress]) -> None:
        """Show it."""


def is_done(config: Config) -> bool:
    """Whether a run has finished before, and its result is what was written."""
    try:
        result_of(config)
    except (FileNotFoundError, RunFolderError):
        return False
    return True


def run_cells(cells: Sequence[Cell], jobs: int, watcher: Watcher | None = None) -> list[Progress]:
    """Run what is not finished, `jobs` at a time.

    Ctrl-C lets every cell that runs end its round and keep it; the rest is not begun.
    """
    progress = [Progress(State.DONE if is_done(cell.config) else State.WAITING) for cell in cells]
    todo = [i for i, own in enumerate(progress) if own.state is State.WAITING]
    context = multiprocessing.get_context("spawn")
    if not todo:
        return progress
    with context.Manager() as manager, _ctrl_c() as stopped:
        news = manager.Queue()
        with ProcessPoolExecutor(jobs, context, initializer=_prepare_worker, initargs=(jobs,)) as pool:
            futures: dict[Future[str], int] = {}
            for i in todo:
                futures[pool.submit(_run_cell, i, cells[i].config.model_dump(), news)] = i
            pending = set(futures)
            while pending:
                if stopped:
                    for future in pending:
                        future.cancel()
                ended, pending = wait_for(pending, timeout=0.25)
                _read_news(news, progress)
                for future in ended:
                    _conclude(future, progress[futures[future]])
                if watcher is not None:
                    watcher.update(cells, progress)
    return progress


def _run_cell(index: int, options: dict[str, Any], news: Any) -> str:
    """In a worker: run one cell and send news of its rounds; returns its state."""
    # Late: the process that only waits for its workers needs none of this.
    from byzflower.experiments.report.plots import plot_similarity
    from byzflower.server.engines.simulation import simulate

    config = make_config(options)
    started = time.monotonic()
    folder = config.folder()
    (folder / ERROR_FILE).unlink(missing_ok=True)

    def on_round(record: dict[str, Any]) -> None:
        news.put((index, record["round"], record.get(config.metrics[0]), time.monotonic() - started))

    news.put((index, 0, None, 0.0))
    try:
        outcome = simulate(config, on_round)
    except RunBusy:
        return State.ELSEWHERE
    except Exception:
        folder.mkdir(parents=True, exist_ok=True)
        text = traceback.format_exc()
        (folder / ERROR_FILE).write_text(text, encoding="utf-8", errors="backslashreplace")
        raise
    if outcome.interrupted:
        return State.STOPPED
    plot_similarity(folder, config.byzantine_ids())
    return State.DONE


def _prepare_worker(jobs: int) -> None:
    share_cores(jobs)
    # An idle worker must survive Ctrl-C; while it runs a cell, `simulate` listens to it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet(logging.CRITICAL)


def _read_news(news: Any, progress: Sequence[Progress]) -> None:
    while True:
        try:
            index, server_round, score, seconds = news.get_nowait()
        except Empty:
            return
        own = progress[index]
        own.state, own.round, own.seconds = State.RUNNING, server_round, seconds
        own.score = own.score if score is None else score


def _conclude(future: "Future[str]", own: Progress) -> None:
    if future.cancelled():
        own.state = State.STOPPED
        return
    error = future.exception()
    own.state = State.FAILED if error is not None else State(future.result())
    own.error = "" if error is None else error_text(error, 200)


@contextmanager
def _ctrl_c() -> Iterator[list[bool]]:
    """A list that is empty until the user presses Ctrl-C; the second time ends the process."""
    pressed: list[bool] = []

    def handler(signum: int, frame: object) -> None:
        if pressed:
            os._exit(130)
        pressed.append(True)

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
