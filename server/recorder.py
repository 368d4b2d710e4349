"""The folder a run leaves behind, and how an interrupted run finds its way back."""

import hashlib
import io
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from byzflower.server.config.classification import ConfigError
from byzflower.server.config.tasks import Config

Record = dict[str, Any]
RESULT, ROUNDS, MODEL = "result.json", "rounds.jsonl", "model.pt"
# The last two: one that is damaged costs the rounds since the one before it, not the run.
CHECKPOINT, OLDER_CHECKPOINT = "checkpoint.pt", "checkpoint.older.pt"
# Digests of a finished run's files, as ``sha256sum -c`` takes them. Not in result.json itself, whose bytes
# depend on the run alone.
DIGESTS = "SHA256SUMS"
# What differs from run to run on the same configuration; kept in rounds.jsonl, left out of result.json.
_VOLATILE = ("seconds", "wire_bytes")
# A checkpoint begins with a line of this and the SHA-256 of the rest.
_MAGIC = "byzflower checkpoint 1 "
_ANEW = "--fresh, or deleting the folder, starts the run anew"
_LOG = logging.getLogger(__name__)


class RunBusy(ConfigError):
    """Another process is working on the same run."""


class RunFolderError(ConfigError):
    """A run's folder cannot be used, or holds something else than was written there."""


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
    """Writes config.toml, rounds.jsonl, two checkpoints, result.json and model.pt of one run.

    Whatever is read back is what was written, or a `RunFolderError` says what is wrong with it: checkpoints
    hold a digest of themselves and of the records before them, SHA256SUMS those of the results. Records that
    cannot be written (a full disk) are kept in memory and written with the next.

    Attributes:
        config: of the run.
        folder: of the run.
        history: the records so far, as they would be read back.
    """

    def __init__(self, config: Config) -> None:
        """Make the run's folder if it is not there.

        Raises:
            RunFolderError: it cannot be made.
        """
        self.config = config
        self.folder = config.folder()
        with naming(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._begin([])

    def _begin(self, lines: Sequence[bytes]) -> None:
        """Go on after these lines of rounds.jsonl."""
        self.history: list[Record] = [json.loads(line) for line in lines]
        self._digest = hashlib.sha256(b"".join(lines))
        self._size = sum(map(len, lines))  # of what is in the file for certain
        self._unwritten: list[bytes] = []

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the folder from other processes; a process that ends, however it does, gives it back.

        Raises:
            RunBusy: another process has it.
            RunFolderError: nothing can be written there.
        """
        lock = FileLock(self.folder / ".lock")
        with naming(self.folder):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise RunBusy(f"another process is working on {self.folder}") from None
        try:
            settings = {k: _toml(v) for k, v in self.config.model_dump().items() if v is not None}
            _replace(self.folder / "config.toml", tomli_w.dumps(settings).encode())
            yield
        finally:
            lock.release()

    # -- results -------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether this run has been completed before; a damaged result does not count, and is logged."""
        try:
            self.result()
        except FileNotFoundError:
            return False
        except RunFolderError as error:
            _LOG.warning("%s: it is made again", error)
            return False
        return True

    def result(self) -> Record:
        """The content of result.json; see `result_of`."""
        return result_of(self.config)

    def finish(self, names: Sequence[str], arrays: Sequence[NDArray[Any]]) -> Record:
        """Write result.json and model.pt, a state dict for ``torch.load(..., weights_only=True)``.

        Raises:
            RunFolderError: they cannot be written; the run can go on from its last checkpoint.
        """
        result = summarise(self.history, self.config.metrics)
        result.update(config=self.config.config_hash(), seed=self.config.seed, model=model_digest(arrays))
        files: dict[str, bytes | memoryview] = {
            MODEL: _saved({n: _tensor(a) for n, a in zip(names, arrays, strict=True)}),
            RESULT: (json.dumps(_finite(result), indent=1, sort_keys=True) + "\n").encode(),
        }
        sums = {
            **{name: _sha256(content) for name, content in files.items()},
            ROUNDS: self._digest.hexdigest(),
        }
        self._write_records(durably=True)
        _replace(self.folder / MODEL, files[MODEL])
        text = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
        _replace(self.folder / DIGESTS, text.encode())
        _replace(self.folder / RESULT, files[RESULT])  # last: where it is, the run is finished
        return self.result()

    # -- records -------------------------------------------------------------------------------------

    def records(self) -> list[Record]:
        """What rounds.jsonl holds."""
        path = self.folder / ROUNDS
        lines = path.read_bytes().splitlines() if path.is_file() else []
        return [record for line in lines if (record := _parsed(line)) is not None]

    def round(self, record: Record) -> None:
        """Append a round's record; one that cannot be written now is written with the next."""
        line = _line(record)
        self.history.append(json.loads(line))
        self._digest.update(line)
        self._unwritten.append(line)
        try:
            self._write_records()
        except RunFolderError as error:
            if len(self._unwritten) == 1:  # once, not every round
                _LOG.warning("%s: records are kept in memory until they can be written", error)

    def _write_records(self, durably: bool = False) -> None:
        """Append to rounds.jsonl what is not there yet, over what an earlier attempt left half written."""
        path = self.folder / ROUNDS
        with naming(path), open(path, "ab") as file:
            file.truncate(self._size)
            file.writelines(self._unwritten)
            file.flush()
            if durably:
                os.fsync(file.fileno())
        self._size += sum(map(len, self._unwritten))
        self._unwritten = []

    # -- checkpoints ---------------------------------------------------------------------------------

    def restart(self) -> None:
        """Forget what an earlier run of this configuration left.

        Raises:
            RunFolderError: something cannot be removed.
        """
        with naming(self.folder):
            for name in (CHECKPOINT, OLDER_CHECKPOINT, RESULT, DIGESTS, MODEL, ROUNDS):
                (self.folder / name).unlink(missing_ok=True)
        self._begin([])

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint; the one before it is kept.

        Raises:
            RunFolderError: it cannot be written; those that were there still are.
        """
        self._write_records(durably=True)
        payload = _saved(
            {
                "run": self.folder.name,
                "records": {"size": self._size, "sha256": self._digest.hexdigest()},
                "round": checkpoint.round,
                "arrays": [_tensor(a) for a in checkpoint.arrays],
                "server": {k: _tensor(a) for k, a in checkpoint.server.items()},
                "clients": {
                    name: {k: _tensor(a) for k, a in own.items()} for name, own in checkpoint.clients.items()
                },
            }
        )
        header = f"{_MAGIC}{_sha256(payload)}\n".encode()
        _replace(self.folder / CHECKPOINT, header, payload, keep=self.folder / OLDER_CHECKPOINT)

    def resume(self) -> Checkpoint | None:
        """Load the last checkpoint and the records up to it; None to start from the beginning.

        If the last checkpoint, or a record before it, is damaged, the one before it serves; that is logged.

        Raises:
            RunFolderError: there are checkpoints, but none that can be used.
        """
        faults = []
        for name in (CHECKPOINT, OLDER_CHECKPOINT):
            try:
                checkpoint, lines = self._read_checkpoint(self.folder / name)
            except FileNotFoundError:
                continue
            except RunFolderError as error:
                faults.append(str(error))
                continue
            with naming(self.folder):
                if faults:
                    _LOG.warning("%s: going on from round %d of %s", faults[0], checkpoint.round, name)
                    os.replace(self.folder / name, self.folder / CHECKPOINT)  # the next must not push it out
                self._begin(lines)
                os.truncate(self.folder / ROUNDS, self._size)
            return checkpoint
        if faults:
            raise RunFolderError(f"{'; '.join(faults)}: {_ANEW}")
        self.restart()
        return None

    def _read_checkpoint(self, path: Path) -> tuple[Checkpoint, list[bytes]]:
        """A checkpoint and the lines of rounds.jsonl before it, both as they were written.

        Raises:
            FileNotFoundError: there is none.
            RunFolderError: they are not, or they are another run's.
        """
        header, _, payload = _read(path).partition(b"\n")
        if header.startswith(b"PK"):
            raise RunFolderError(f"{path} was written by an earlier version, which kept no digests")
        if header != f"{_MAGIC}{_sha256(payload)}".encode():
            raise RunFolderError(f"{path} is damaged")
        try:
            saved = torch.load(io.BytesIO(payload), weights_only=True)
            checkpoint = Checkpoint(
                saved["round"],
                [t.numpy() for t in saved["arrays"]],
                {k: t.numpy() for k, t in saved["server"].items()},
                {name: {k: t.numpy() for k, t in own.items()} for name, own in saved["clients"].items()},
            )
            run, records = saved["run"], saved["records"]
        except Exception as error:  # as it was written, but not by this version
            raise RunFolderError(f"{path} cannot be loaded ({' '.join(str(error).split()):.200})") from error
        if run != self.folder.name:
            raise RunFolderError(f"{path} is another run's ({run})")
        try:
            lines = _read(self.folder / ROUNDS)[: records["size"]]
        except FileNotFoundError:
            raise RunFolderError(f"{self.folder / ROUNDS} is missing") from None
        if _sha256(lines) != records["sha256"]:
            raise RunFolderError(
                f"{self.folder / ROUNDS} is damaged before the end of round {checkpoint.round}"
            )
        return checkpoint, lines.splitlines(keepends=True)


def result_of(config: Config) -> Record:
    """The content of a run's result.json; see `read_result`.

    Raises:
        RunFolderError: also if it is another run's.
    """
    result = read_result(config.folder())
    if (result["config"], result["seed"]) != (config.config_hash(), config.seed):
        raise RunFolderError(f"{config.folder() / RESULT} is another run's")
    return result


def read_result(folder: Path) -> Record:
    """The content of a folder's result.json, as it was written.

    Raises:
        FileNotFoundError: there is none.
        RunFolderError: it is damaged.
    """
    result = _parsed(_verified(folder / RESULT))
    if result is None or not result.keys() >= {"config", "seed", "model", "history"}:
        raise RunFolderError(f"{folder / RESULT} is damaged")
    return result


def read_rounds(folder: Path) -> list[Record]:
    """The records in a finished run's rounds.jsonl; none if there is no such file.

    Raises:
        RunFolderError: it is damaged.
    """
    path = folder / ROUNDS
    try:
        records = [_parsed(line) for line in _verified(path).splitlines()]
    except FileNotFoundError:
        return []
    known = [record for record in records if record is not None]
    if len(known) < len(records):
        raise RunFolderError(f"{path} is damaged")
    return known


def _verified(path: Path) -> bytes:
    """The content of a finished run's file, checked against SHA256SUMS (runs of earlier versions have none).

    Raises:
        FileNotFoundError: there is none.
        RunFolderError: it is not what was written.
    """
    content = _read(path)
    try:
        sums = _read(path.with_name(DIGESTS)).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return content
    if f"{_sha256(content)}  {path.name}" not in sums:
        raise RunFolderError(f"{path} is damaged: its digest is not in {DIGESTS}")
    return content


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn the file system's refusals into a message that names the file: if nothing says which, this one.

    Raises:
        RunFolderError: whatever could not be read or written.
    """
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or path
        raise RunFolderError(f"{where}: {error.strerror or error}") from error


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
        f"best_{main}": max((record[main] for record in scored if record[main] is not None), default=None),
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


def _parsed(content: bytes) -> Record | None:
    """An object in JSON; None for what is damaged, or only half written."""
    try:
        record = json.loads(content)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(_finite(record), sort_keys=True) + "\n").encode()


def _finite(value: Any) -> Any:
    """JSON has no NaN; a diverged loss is null."""
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """A tensor on the array's own memory, where that can be."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _saved(content: object) -> memoryview:
    """What torch.save makes of it: in memory, so that a full disk is an OSError and nothing else."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def _sha256(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes:
    """Raises FileNotFoundError if there is no such file, RunFolderError if it cannot be read."""
    with naming(path):
        if path.exists():
            return path.read_bytes()
    raise FileNotFoundError(path)


def _replace(path: Path, *parts: bytes | memoryview, keep: Path | None = None) -> None:
    """Replace a file, and keep the one before it under another name, if asked.

    Whenever the machine stops, the old content or the new one is there, whole.

    Raises:
        RunFolderError: it cannot be written; the old content is still there.
    """
    aside = path.with_name(path.name + ".new")
    with naming(path):
        try:
            with open(aside, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                aside.unlink()  # half a file on a full disk is in the way
            raise
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(aside, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Let names be on the disk, too; not every system can."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
