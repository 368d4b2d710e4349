"""The folder of a run: its configuration, records, checkpoints and results."""

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from byzflower.server.checkpoints import (
    CHECKPOINT,
    OLDER_CHECKPOINT,
    Checkpoint,
    Records,
    read_checkpoint,
    saved,
    tensor_on,
    write_checkpoint,
)
from byzflower.server.config.tasks import Config
from byzflower.server.files import RunFolderError, locked, naming, read, replace, sha256
from byzflower.server.results import (
    CONFIG,
    DIGESTS,
    MODEL,
    RESULT,
    ROUNDS,
    Record,
    parsed,
    result_bytes,
    result_of,
)

# What differs from run to run on the same configuration; kept in rounds.jsonl, left out of result.json.
_VOLATILE = ("seconds", "wire_bytes")
_ANEW = "--fresh, or deleting the folder, starts the run anew"
_LOG = logging.getLogger(__name__)


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
        with locked(self.folder):
            settings = {k: _toml(v) for k, v in self.config.model_dump().items() if v is not None}
            replace(self.folder / CONFIG, tomli_w.dumps(settings).encode())
            yield

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
            MODEL: saved({n: tensor_on(a) for n, a in zip(names, arrays, strict=True)}),
            RESULT: result_bytes(_finite(result)),
        }
        sums = {
            **{name: sha256(content) for name, content in files.items()},
            ROUNDS: self._digest.hexdigest(),
        }
        self._write_records(durably=True)
        replace(self.folder / MODEL, files[MODEL])
        text = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
        replace(self.folder / DIGESTS, text.encode())
        replace(self.folder / RESULT, files[RESULT])  # last: where it is, the run is finished
        return self.result()

    # -- records -------------------------------------------------------------------------------------

    def records(self) -> list[Record]:
        """What rounds.jsonl holds."""
        path = self.folder / ROUNDS
        lines = path.read_bytes().splitlines() if path.is_file() else []
        return [record for line in lines if (record := parsed(line)) is not None]

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
        write_checkpoint(self.folder, checkpoint, Records(self._size, self._digest.hexdigest()))

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
        checkpoint, records = read_checkpoint(path)
        try:
            lines = read(self.folder / ROUNDS)[: records.size]
        except FileNotFoundError:
            raise RunFolderError(f"{self.folder / ROUNDS} is missing") from None
        if sha256(lines) != records.sha256:
            raise RunFolderError(
                f"{self.folder / ROUNDS} is damaged before the end of round {checkpoint.round}"
            )
        return checkpoint, lines.splitlines(keepends=True)


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
