"""Checkpoints: a run's state after a round, with a digest of itself and of the records before it."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.server.files import RunFolderError, read, replace, sha256

# The last two: one that is damaged costs the rounds since the one before it, not the run.
CHECKPOINT, OLDER_CHECKPOINT = "checkpoint.pt", "checkpoint.older.pt"
# A checkpoint begins with a line of this and the SHA-256 of the rest.
_MAGIC = "byzflower checkpoint 1 "


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


class Records(NamedTuple):
    """The records before a checkpoint.

    Attributes:
        size: their bytes.
        sha256: their digest.
    """

    size: int
    sha256: str


def write_checkpoint(folder: Path, checkpoint: Checkpoint, records: Records) -> None:
    """Add a checkpoint to a run's folder; the one before it is kept.

    Raises:
        RunFolderError: it cannot be written; those that were there still are.
    """
    content = {
        "run": folder.name,
        "records": records._asdict(),
        "round": checkpoint.round,
        "arrays": [tensor_on(a) for a in checkpoint.arrays],
        "server": {k: tensor_on(a) for k, a in checkpoint.server.items()},
        "clients": {
            name: {k: tensor_on(a) for k, a in own.items()} for name, own in checkpoint.clients.items()
        },
    }
    replace(folder / CHECKPOINT, *_with_digest(content), keep=folder / OLDER_CHECKPOINT)


def read_checkpoint(path: Path) -> tuple[Checkpoint, Records]:
    """A checkpoint as it was written.

    Raises:
        FileNotFoundError: there is none.
        RunFolderError: it is damaged, or another run's.
    """
    content = _content(path)
    try:
        checkpoint = Checkpoint(
            content["round"],
            [t.numpy() for t in content["arrays"]],
            {k: t.numpy() for k, t in content["server"].items()},
            {name: {k: t.numpy() for k, t in own.items()} for name, own in content["clients"].items()},
        )
        run, records = content["run"], Records(**content["records"])
    except Exception as error:  # as it was written, but not by this version
        raise _not_loadable(path, error) from error
    if run != path.parent.name:
        raise RunFolderError(f"{path} is another run's ({run})")
    return checkpoint, records


def run_of(path: Path) -> str | None:
    """The name of the folder whose checkpoint this is; None if there is no checkpoint.

    Raises:
        RunFolderError: it is damaged.
    """
    try:
        return str(_content(path).get("run"))
    except FileNotFoundError:
        return None


def give_checkpoint(path: Path, run: str) -> None:
    """Let a checkpoint be the one of the folder of this name; where there is none, nothing happens.

    Raises:
        RunFolderError: it is damaged, or cannot be written.
    """
    try:
        content = _content(path)
    except FileNotFoundError:
        return
    replace(path, *_with_digest({**content, "run": run}))


def _with_digest(content: Mapping[str, Any]) -> tuple[bytes, memoryview]:
    payload = saved(content)
    return f"{_MAGIC}{sha256(payload)}\n".encode(), payload


def _content(path: Path) -> dict[str, Any]:
    header, _, payload = read(path).partition(b"\n")
    if header.startswith(b"PK"):
        raise RunFolderError(f"{path} was written by an earlier version, which kept no digests")
    if header != f"{_MAGIC}{sha256(payload)}".encode():
        raise RunFolderError(f"{path} is damaged")
    try:
        return dict(torch.load(io.BytesIO(payload), weights_only=True))
    except Exception as error:  # as it was written, but not by this version
        raise _not_loadable(path, error) from error


def _not_loadable(path: Path, error: Exception) -> RunFolderError:
    return RunFolderError(f"{path} cannot be loaded ({' '.join(str(error).split()):.200})")


def tensor_on(array: NDArray[Any]) -> torch.Tensor:
    """A tensor on the array's own memory, where that can be."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def saved(content: object) -> memoryview:
    """What torch.save makes of it: in memory, so that a full disk is an OSError and nothing else."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()
