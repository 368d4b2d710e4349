"""A reply as plain data: what a client sends, before Flower or the project have looked at it."""

from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np

ARRAYS, METRICS, CONFIG = "arrays", "metrics", "config"


@dataclass
class Payload:
    """One array on its way.

    Attributes:
        data: bytes in NumPy's .npy format, if the sender is benign.
        dtype: what the sender says of them; nobody has to believe it.
        shape: likewise.
        stype: how they are serialised.
    """

    data: bytes
    dtype: str = "float32"
    shape: tuple[int, ...] = ()
    stype: str = "numpy.ndarray"


@dataclass
class Record:
    """One record of a reply.

    Attributes:
        name: its key.
        kind: ARRAYS, METRICS or CONFIG.
        items: keys and values, in order; a key may come twice, and the last value counts.
    """

    name: str
    kind: str
    items: list[tuple[str, Any]]

    @property
    def values(self) -> dict[str, Any]:
        """The items as a dictionary."""
        return dict(self.items)

    def set(self, key: str, value: Any) -> None:
        """Replace a value in its place, or append it."""
        self.items = list({**self.values, key: value}.items())


@dataclass
class Reply:
    """What one node answers.

    Attributes:
        node: its id, which the transport knows.
        records: the content.
        error: code and text of an error reply; it has no content then.
        copies: how often it is delivered; 0 is silence.
        edits: what happens to the serialised bytes: (position, byte) to flip, or (length, None) to cut.
    """

    node: int
    records: list[Record] = field(default_factory=list)
    error: tuple[int, str] | None = None
    copies: int = 1
    edits: list[tuple[int, int | None]] = field(default_factory=list)

    def named(self) -> list[Record]:
        """The records as a dictionary of them has it: a name that comes twice keeps its first place."""
        return list({record.name: record for record in self.records}.values())

    def of_kind(self, kind: str) -> list[Record]:
        """The records of one kind."""
        return [record for record in self.named() if record.kind == kind]

    def first(self, kind: str) -> Record | None:
        """The first record of a kind, if there is one."""
        return next((record for record in self.records if record.kind == kind), None)


@lru_cache(maxsize=4096)
def npy_header(dtype: str, shape: tuple[int, ...], fortran: bool = False) -> bytes:
    """What NumPy writes before the values of such an array."""
    buffer = BytesIO()
    described = {"descr": dtype, "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


@lru_cache(maxsize=256)
def type_name(dtype: str) -> str:
    """What NumPy calls a type, "float32" for instance."""
    return np.dtype(dtype).name


def payload_of(array: np.ndarray) -> Payload:
    """Serialise an array as NumPy does."""
    kind = array.dtype.str
    return Payload(npy_header(kind, array.shape) + array.tobytes(), type_name(kind), array.shape)


def custom_header(text: str) -> bytes:
    """The beginning of a .npy file whose header is any text."""
    raw = text.encode("latin-1", "replace")
    return b"\x93NUMPY\x01\x00" + min(len(raw), 65535).to_bytes(2, "little") + raw[:65535]


def array_in(payload: Payload) -> np.ndarray | None:
    """The array that NumPy's own parser finds in the bytes, None if it finds none.

    Nothing is allocated for what a header only promises, and bytes that are left over are a fault.
    """
    stream = BytesIO(payload.data)
    try:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(stream)
        values = payload.data[stream.tell() :]
        if dtype.hasobject or any(side < 0 for side in shape):
            return None
        flat = np.frombuffer(values, dtype)
        return flat.reshape(shape, order="F" if fortran else "C")
    except Exception:  # whatever it makes of a forged header
        return None
