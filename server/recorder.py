"""The folder a run leaves behind, and how an interrupted run finds its way back."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from byzflower.server.config import ConfigError
from byzflower.server.tasks import Config

Record = dict[str, Any]
# What differs from run to run on the same configuration; kept in rounds.jsonl, left out of result.json.
_VOLATILE = ("seconds", "wire_bytes")


class RunBusy(ConfigError):
    """Another process is working on the same run."""


@dataclass
class Checkpoint:
    """Everything needed to go on after `round`.

    Attributes:
        round: last finished round.
        arrays: the global model.
        server: state of the adversary and the strategy.
        clients: state of the clients: record name -> client id -> array.
    """

    round: int
    arrays: list[NDArray[Any]]
    server: dict[str, NDArray[Any]] = field(default_factory=dict)
    clients: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)


class Recorder:
    """Writes config.toml, rounds.jsonl, checkpoint.pt, result.json and model.pt of one run."""

    def __init__(self, config: Config) -> None:
        """Open (or make) the run's folder."""
        self.config = config
        self.folder = config.folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.history: list[Record] = []
        settings = {k: _toml(v) for k, v in config.model_dump().items() if v is not None}
        _write_atomically(self.folder / "config.toml", tomli_w.dumps(settings).encode())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the folder from other processes; a process that ends, however it does, gives it back.

        Raises:
            RunBusy: another process has it.
        """
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunBusy(f"another process is working on {self.folder}") from None
        try:
            yield
        finally:
            lock.release()

    @property
    def finished(self) -> bool:
        """Whether this run has been completed before."""
        return (self.folder / "result.json").is_file()

    def result(self) -> Record:
        """The content of result.json."""
        result: Record = json.loads((self.folder / "result.json").read_text())
        return result

    def restart(self) -> None:
        """Forget what an earlier run of this configuration left."""
        for name in ("checkpoint.pt", "result.json", "model.pt", "rounds.jsonl"):
            (self.folder / name).unlink(missing_ok=True)

    def resume(self) -> Checkpoint | None:
        """Load the last checkpoint and the records up to it; None to start from the beginning."""
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            self.restart()
            return None
        saved = torch.load(path, weights_only=True)
        checkpoint = Checkpoint(
            saved["round"],
            [t.numpy() for t in saved["arrays"]],
            {k: t.numpy() for k, t in saved["server"].items()},
            {name: {k: t.numpy() for k, t in own.items()} for name, own in saved["clients"].items()},
        )
        self.history = [record for record in self.records() if record["round"] <= checkpoint.round]
        text = "".join(_line(record) for record in self.history)
        _write_atomically(self.folder / "rounds.jsonl", text.encode())
        return checkpoint

    def records(self) -> list[Record]:
        """What rounds.jsonl holds."""
        path = self.folder / "rounds.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [record for line in lines if (record := _parsed(line)) is not None]

    def round(self, record: Record) -> None:
        """Append a round's record."""
        self.history.append(record)
        with open(self.folder / "rounds.jsonl", "a", encoding="utf-8") as file:
            file.write(_line(record))

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint."""
        saved = {
            "round": checkpoint.round,
            "arrays": [torch.tensor(a) for a in checkpoint.arrays],
            "server": {k: torch.tensor(a) for k, a in checkpoint.server.items()},
            "clients": {
                name: {k: torch.tensor(a) for k, a in own.items()} for name, own in checkpoint.clients.items()
            },
        }
        aside = self.folder / "checkpoint.pt.new"
        torch.save(saved, aside)
        os.replace(aside, self.folder / "checkpoint.pt")

    def finish(self, names: Sequence[str], arrays: Sequence[NDArray[Any]]) -> Record:
        """Write result.json and model.pt, a state dict for ``torch.load(..., weights_only=True)``."""
        torch.save({n: torch.tensor(a) for n, a in zip(names, arrays, strict=True)}, self.folder / "model.pt")
        result = summarise(self.history, self.config.metrics)
        result.update(config=self.config.config_hash(), seed=self.config.seed, model=model_digest(arrays))
        _write_atomically(
            self.folder / "result.json",
            (json.dumps(_finite(result), indent=1, sort_keys=True) + "\n").encode(),
        )
        return self.result()


def summarise(history: Sequence[Record], metrics: Sequence[str]) -> Record:
    """What does not depend on the machine: scores over rounds, and how well attackers were told apart.

    Args:
        history: records of the rounds.
        metrics: names of the scores, the one that runs are compared by first.
    """
    main = metrics[0]
    stable = [{k: v for k, v in record.items() if k not in _VOLATILE} for record in history]
    scored = [record for record in stable if main in record]
    last = scored[-1] if scored else {}
    return {
        "rounds": history[-1]["round"] if history else 0,
        **{metric: last.get(metric) for metric in metrics},
        f"best_{main}": max((record[main] for record in scored), default=None),
        "kept": _mean([r["kept"] for r in stable if r.get("kept") is not None]),
        "precision": _mean([r["precision"] for r in stable if r.get("precision") is not None]),
        "recall": _mean([r["recall"] for r in stable if r.get("recall") is not None]),
        "skipped": sum(record.get("skipped") is not None for record in stable),
        "quarantined": sum(len(record.get("quarantined", ())) for record in stable),
        "history": stable,
    }


def detection(excluded: set[int], byzantine: set[int]) -> tuple[float | None, float | None]:
    """Precision and recall of an exclusion; None where there is nothing to divide by."""
    hits = len(excluded & byzantine)
    return (
        hits / len(excluded) if excluded else None,
        hits / len(byzantine) if byzantine else None,
    )


def model_digest(arrays: Sequence[NDArray[Any]]) -> str:
    """SHA-256 of a model's bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _toml(value: Any) -> Any:
    """TOML has no null: options that are None are written as "none"."""
    return {k: "none" if v is None else v for k, v in value.items()} if isinstance(value, dict) else value


def _parsed(line: str) -> Record | None:
    """A line of rounds.jsonl; None for one that was only half written."""
    try:
        record: Record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(_finite(record), sort_keys=True) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no NaN; a diverged loss is null."""
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _write_atomically(path: Path, content: bytes) -> None:
    aside = path.with_name(path.name + ".new")
    aside.write_bytes(content)
    os.replace(aside, path)
