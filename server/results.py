"""What a run left behind, read back: what was written, or an error that says what is wrong with it."""

import json
from pathlib import Path
from typing import Any

from byzflower.server.config.tasks import Config
from byzflower.server.files import RunFolderError, read, replace, sha256

Record = dict[str, Any]
CONFIG, RESULT, ROUNDS, MODEL = "config.toml", "result.json", "rounds.jsonl", "model.pt"
# Digests of a finished run's files, as ``sha256sum -c`` takes them. Not in result.json itself, whose bytes
# depend on the run alone.
DIGESTS = "SHA256SUMS"


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
    result = parsed(_verified(folder / RESULT))
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
        records = [parsed(line) for line in _verified(path).splitlines()]
    except FileNotFoundError:
        return []
    known = [record for record in records if record is not None]
    if len(known) < len(records):
        raise RunFolderError(f"{path} is damaged")
    return known


def give_result(folder: Path, config_hash: str) -> None:
    """Let a folder's result, if there is one, be that of the configuration with this hash.

    Whenever this is interrupted, the old result or the new one is there, and is what its digest says.

    Raises:
        RunFolderError: it is damaged.
        OSError: it cannot be written.
    """
    try:
        result = read_result(folder)
    except FileNotFoundError:
        return
    content = result_bytes({**result, "config": config_hash})
    digests = folder / DIGESTS
    if not digests.is_file():  # earlier versions wrote none
        replace(folder / RESULT, content)
        return
    new, lines = f"{sha256(content)}  {RESULT}\n", digests.read_text().splitlines(keepends=True)
    others = [line for line in lines if _file_of(line) != RESULT]
    replace(digests, "".join([*lines, new]).encode())  # both are right for a moment
    replace(folder / RESULT, content)
    replace(digests, "".join(sorted([*others, new], key=_file_of)).encode())


def _file_of(line: str) -> str:
    return line.rstrip("\n").partition("  ")[2]


def result_bytes(result: Record) -> bytes:
    """What result.json holds; numbers must be finite, as `read_result` returns them."""
    return (json.dumps(result, indent=1, sort_keys=True) + "\n").encode()


def _verified(path: Path) -> bytes:
    """The content of a finished run's file, checked against SHA256SUMS (runs of earlier versions have none).

    Raises:
        FileNotFoundError: there is none.
        RunFolderError: it is not what was written.
    """
    content = read(path)
    try:
        sums = read(path.with_name(DIGESTS)).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return content
    if f"{sha256(content)}  {path.name}" not in sums:
        raise RunFolderError(f"{path} is damaged: its digest is not in {DIGESTS}")
    return content


def parsed(content: bytes) -> Record | None:
    """An object in JSON; None for what is damaged, or only half written."""
    try:
        record = json.loads(content)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
