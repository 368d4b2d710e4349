"""Runs whose folders are named by an earlier version: found, and given the names of this one."""

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from byzflower.server.checkpoints import CHECKPOINT, OLDER_CHECKPOINT, give_checkpoint, run_of
from byzflower.server.config.tasks import Config, make_config
from byzflower.server.files import RunFolderError, locked, naming
from byzflower.server.results import CONFIG, give_result, read_result

_NAME = re.compile(r"(?P<hash>[0-9a-f]{10})-(?P<seed>\d+)")


class OldRun(NamedTuple):
    """A run whose folder has not the name that this version looks for.

    Attributes:
        folder: where it is.
        target: where this version looks for it.
    """

    folder: Path
    target: Path


def old_runs(root: Path) -> Iterator[OldRun | RunFolderError]:
    """All runs of the old naming in a folder and below, also inside grids; errors for those that are damaged.

    A folder is a run's if it has a config.toml and is named ``<hash>-<seed>``. Its new name follows from that
    configuration; its result and checkpoints must be its own.
    """
    for path in sorted(root.rglob(CONFIG)):
        folder = path.parent
        if not _NAME.fullmatch(folder.name):
            continue
        try:
            run = OldRun(folder, folder.with_name(_config_of(folder).folder().name))
            if run.folder != run.target:
                _check(run)
                yield run
        except RunFolderError as error:
            yield error


def move(run: OldRun) -> None:
    """Give a run its new name; nothing is ever overwritten. Whatever interrupts this, it can be called again.

    Raises:
        RunFolderError: something is there already, another process works on the run, or it cannot be written.
    """
    with locked(run.folder), naming(run.folder):
        if run.target.exists():
            raise RunFolderError(f"{run.folder} stays: {run.target} is there already")
        give_result(run.folder, run.target.name.partition("-")[0])
        for name in (CHECKPOINT, OLDER_CHECKPOINT):
            give_checkpoint(run.folder / name, run.target.name)
        os.rename(run.folder, run.target)  # last: until then it is found as before


def _config_of(folder: Path) -> Config:
    try:
        return make_config(tomllib.loads((folder / CONFIG).read_text()))
    except (OSError, ValueError) as error:  # a ConfigError among them
        raise RunFolderError(f"{folder / CONFIG} cannot be used: {' '.join(str(error).split())}") from None


def _check(run: OldRun) -> None:
    """Raise RunFolderError if what is in the folder is not the run of its name."""
    name, target = _NAME.fullmatch(run.folder.name), _NAME.fullmatch(run.target.name)
    if name is None or target is None or name["seed"] != target["seed"]:
        raise RunFolderError(f"{run.folder} is damaged: its {CONFIG} is another run's")
    try:
        result = read_result(run.folder)
    except FileNotFoundError:
        result = None
    # The new name is there where an earlier move was interrupted.
    if result is not None and str(result["config"]) not in (name["hash"], target["hash"]):
        raise RunFolderError(f"{run.folder} is damaged: its result is another run's")
    for file in (CHECKPOINT, OLDER_CHECKPOINT):
        if run_of(run.folder / file) not in (None, run.folder.name, run.target.name):
            raise RunFolderError(f"{run.folder} is damaged: its {file} is another run's")
