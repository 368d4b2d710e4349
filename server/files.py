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
def naming(folder: Path) -> Iterator[None]:
    """Turn the file system's refusals into a message that names the file.

    Raises:
        RunFolderError: whatever could not be read or written.
    """
    try:
        yield
    except OSError as error:
        raise RunFolderError(named(error, folder)) from error


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
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunFolderError(named(error, path)) from error


def named(error: OSError, path: Path) -> str:
    """What the file system said, and of which file."""
    return f"{error.filename2 or error.filename or path}: {error.strerror or error}"


def replace(path: Path, *parts: bytes | memoryview, keep: Path | None = None) -> None:
    """Replace a file, and keep the one before it under another name, if asked.

    Whenever the machine stops, the old content or the new one is there, whole.
    """
    aside = path.with_name(path.name + ".new")
    try:
        with open(aside, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            aside.unlink()  # half a file on a full disk is in the way
        raise
    if keep is not None:
        with suppress(FileNotFoundError):
            os.replace(path, keep)
    os.replace(aside, path)
    with suppress(OSError):  # some systems cannot sync folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
