"""Files that are written whole or not at all, and what is said of those that cannot be."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from byzflower.server.config.checks import ConfigError


class RunBusy(ConfigError):
    """Another process is working on the same run."""


class RunFolderError(ConfigError):
    """A run's folder cannot be used, or holds something else than was written there."""


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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a run's folder from other processes; a process that ends, however it does, gives it back.

    Raises:
        RunBusy: another process has it.
        RunFolderError: nothing can be written there.
    """
    lock = FileLock(folder / ".lock")
    with naming(folder):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunBusy(f"another process is working on {folder}") from None
    try:
        yield
    finally:
        lock.release()


def sha256(content: bytes | memoryview) -> str:
    """Its SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def read(path: Path) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: there is no such file.
        RunFolderError: it cannot be read.
    """
    with naming(path):
        if path.exists():
            return path.read_bytes()
    raise FileNotFoundError(path)


def replace(path: Path, *parts: bytes | memoryview, keep: Path | None = None) -> None:
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
