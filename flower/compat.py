"""Everything that depends on Flower's version, and Flower's arrays without needless copies.

Supported: flwr 1.26 (the default pin) up to 1.41. Nothing else in the package asks which version runs.
"""

import copy
import importlib
import importlib.util
import math
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeVar, cast

import numpy as np
from flwr.common import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

from byzflower.flower.text import error_text, plain, quoted

R = TypeVar("R", ArrayRecord, ConfigRecord, MetricRecord)

_NPY_STYPE = "numpy.ndarray"
_MAX_HEADER_BYTES = 4096
_NPY_LENGTH_BYTES = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4, b"\x93NUMPY\x03\x00": 4}
_NPY_HEADER = re.compile(
    rb"\{'descr': ?'(?P<dtype>[<>|=]?[A-Zb-z]\d{0,4})', ?'fortran_order': ?(?P<order>True|False), ?"
    rb"'shape': ?\((?P<shape>|(?:\d{1,20}, ?)+(?:\d{1,20})?)\),? ?\} *\n?"
)


class DecodeError(ValueError):
    """An array's bytes are not what they claim to be."""


class MemoryArray(Array):
    """A Flower `Array` that keeps its ndarray and serialises it only if somebody asks for bytes.

    In one process nothing is copied; through Ray the buffer travels out of band; over the wire it
    serialises to the same bytes as an ordinary `Array`.
    """

    # Flower writes the class's qualified name into the wire format and looks it up there.
    __qualname__ = "Array"

    def __init__(self, ndarray: np.ndarray[Any, Any]) -> None:
        ndarray = np.asarray(ndarray, order="C")  # np.ascontiguousarray would make scalars 1-d
        view = ndarray.view()
        view.flags.writeable = False
        self.__dict__.update(_ndarray=view, dtype=str(view.dtype), shape=tuple(view.shape), stype=_NPY_STYPE)

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The array in NumPy's .npy format."""
        if "_data" not in self.__dict__:
            buffer = BytesIO()
            np.save(buffer, self.__dict__["_ndarray"], allow_pickle=False)
            self.__dict__["_data"] = buffer.getvalue()
        return cast(bytes, self.__dict__["_data"])

    def numpy(self) -> np.ndarray[Any, Any]:
        """Return a writable copy, as Flower's own arrays do."""
        return cast(np.ndarray[Any, Any], self.__dict__["_ndarray"]).copy()

    def __reduce__(self) -> tuple[type["MemoryArray"], tuple[np.ndarray[Any, Any]]]:
        return _rebuild, (self.__dict__["_ndarray"],)  # type: ignore[return-value]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        return (self.dtype, self.shape, self.data) == (other.dtype, other.shape, other.data)

    __hash__ = None  # type: ignore[assignment]


def _rebuild(ndarray: np.ndarray[Any, Any]) -> MemoryArray:
    return MemoryArray(ndarray)


def array_view(array: Array, max_bytes: int | None = None) -> np.ndarray[Any, Any]:
    """Return a read-only view of an array's content, without copying it.

    The metadata of an `Array` is the sender's claim and is ignored: shape and dtype come from the bytes
    themselves. Nothing is unpickled.

    Args:
        array: what a client sent.
        max_bytes: refuse payloads longer than this (plus a header) before reading them.

    Raises:
        DecodeError: not a plain numeric .npy payload, truncated, or too large.
    """
    if isinstance(array, MemoryArray):
        return cast(np.ndarray[Any, Any], array.__dict__["_ndarray"])
    if array.stype != _NPY_STYPE:
        raise DecodeError(f"unknown serialisation {quoted(array.stype)}")
    return npy_view(array.data, max_bytes)


def npy_view(payload: bytes, max_bytes: int | None = None) -> np.ndarray[Any, Any]:
    """Return a read-only view of the array in a .npy payload; see `array_view`."""
    if max_bytes is not None and len(payload) > max_bytes + _MAX_HEADER_BYTES:
        raise DecodeError(f"{len(payload)} bytes where at most {max_bytes} are expected")
    dtype, fortran_order, shape, start = _npy_header(payload)
    if dtype.hasobject or dtype.kind not in "fiubc":
        raise DecodeError(f"dtype {dtype} is not numeric")
    count = math.prod(shape)
    if len(payload) - start != count * dtype.itemsize:
        raise DecodeError(f"{len(payload)} bytes do not hold what their header says")
    flat = np.frombuffer(payload, dtype=dtype, count=count, offset=start)
    try:
        return flat.reshape(shape, order="F" if fortran_order else "C")
    except (ValueError, TypeError, OverflowError) as error:  # negative or absurd sides whose product fits
        raise DecodeError("the header's shape is not one of an array") from error


def _npy_header(payload: bytes) -> tuple[np.dtype[Any], bool, tuple[int, ...], int]:
    """Dtype, order, shape and offset of the data of a .npy payload.

    NumPy's own parser evaluates the header as a Python literal. Untrusted bytes should not get that far, and
    in CPython 3.11 and 3.12 it fails at random where several threads parse at once.
    """
    length_bytes = _NPY_LENGTH_BYTES.get(payload[:8])
    if length_bytes is None:
        raise DecodeError("not a NumPy array")
    text = 8 + length_bytes
    start = text + int.from_bytes(payload[8:text], "little")
    header = _NPY_HEADER.fullmatch(payload[text:start]) if start <= _MAX_HEADER_BYTES else None
    if header is None:
        raise DecodeError("not a NumPy array")
    try:
        dtype = np.dtype(header["dtype"].decode())
    except Exception as error:  # NumPy warns of some names, and warnings may be errors
        raise DecodeError(f"dtype {header['dtype'].decode()} does not exist") from error
    shape = tuple(int(side) for side in header["shape"].split(b",") if side.strip())
    return dtype, header["order"] == b"True", shape, start


def array_record(arrays: dict[str, np.ndarray[Any, Any]]) -> ArrayRecord:
    """Make an `ArrayRecord` that shares memory with `arrays` until it is serialised."""
    record = ArrayRecord()
    for name, array in arrays.items():  # the constructor would serialise each of them
        record[name] = MemoryArray(array)
    return record


def records_of(content: RecordDict, kind: type[R]) -> dict[str, R]:
    """A message's records of one kind, by name.

    Flower's own properties for this make reference cycles, which keep whole models in memory until
    the garbage collector happens to run.
    """
    return {name: record for name, record in content.items() if isinstance(record, kind)}


def wire_bytes(content: RecordDict) -> int:
    """Bytes of array payload in a message's content, as Flower would serialise it."""
    total = 0
    for record in records_of(content, ArrayRecord).values():
        for array in record.values():
            total += array_bytes(array)
    return total


def array_bytes(array: Array) -> int:
    """Serialised size of one array, in bytes, without serialising it."""
    if isinstance(array, MemoryArray):
        ndarray = array.__dict__["_ndarray"]
        return int(ndarray.nbytes) + 128  # np.save pads small headers to 128 bytes
    return len(array.data)


def set_message_id(message: Message, message_id: str) -> None:
    """Give a message the id that a SuperLink would have given it."""
    message.metadata.__dict__["_message_id"] = message_id


def set_message_origin(message: Message, run_id: int, node_id: int) -> None:
    """Set the run and the sender of a message, as a SuperLink would."""
    message.metadata.__dict__["_run_id"] = run_id
    message.metadata.__dict__["_src_node_id"] = node_id


def enter_local_run(run_id: int) -> None:
    """Allow `Message` objects to be made in this process, outside of any SuperLink.

    Newer Flower refuses to construct messages before the process has a task; older versions have no tasks.
    """
    try:
        identity = importlib.import_module("flwr.supercore.task_identity").TaskIdentity
    except ModuleNotFoundError:
        return
    if identity._run_id is None:
        identity.run_id, identity.node_id, identity.task_id = run_id, 1, 1


def empty_run(run_id: int) -> Any:
    """Make Flower's description of a run that is registered with no SuperLink."""
    try:
        module = importlib.import_module("flwr.supercore.run")
    except ModuleNotFoundError:
        module = importlib.import_module("flwr.common.typing")
    return module.Run.create_empty(run_id)


def own_copy(message: Message) -> Message:
    """A copy of the message whose metadata may be changed; the content is shared."""
    copied = copy.copy(message)
    copied.__dict__["_metadata"] = copy.copy(message.metadata)
    return copied


def rebuilt_reply(message: Message, answer: object) -> Message:
    """Make the reply to a message from the content or error of an answer; the answer's metadata are ignored.

    Raises:
        TypeError: the answer is no Message.
    """
    if not isinstance(answer, Message):
        raise TypeError(f"a ClientApp must return a Message, got {quoted(type(answer))}")
    return Message(answer.error if answer.has_error() else answer.content, reply_to=message)


def error_reply(message: Message, error: BaseException) -> Message:
    """Make the reply of Flower's engine for a ClientApp that raised, with a reason in plain text."""
    reason = error_text(error)
    return Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason), reply_to=message)


def lost_reply(message: Message, error: BaseException) -> Message:
    """Make the reply to a message that could not be sent, or whose real reply could not be rebuilt."""
    reason = f"{type(error).__name__} in Flower's transport: {plain(error, 200)}"
    return Message(Error(code=ErrorCode.REPLY_MESSAGE_UNAVAILABLE, reason=reason), reply_to=message)


def is_remote(grid: Any) -> bool:
    """Whether a Grid's nodes are other processes, behind a SuperLink: over gRPC, or HTTP in newer Flower."""
    return type(grid).__name__ in ("GrpcGrid", "HttpGrid")


def deploys_over_grpc() -> bool:
    """Whether SuperLink and SuperNodes speak gRPC on a port per service; newer Flower has one HTTP port."""
    return importlib.util.find_spec("flwr.server.grid") is not None


def poll_often(grid: Any, num_nodes: int) -> None:
    """Let Flower's in-process Grid look for replies more often than ten times a second.

    Every poll costs time per node, so with many nodes it polls less often.
    """
    if hasattr(grid, "pull_interval"):
        grid.pull_interval = min(0.1, max(0.005, 2e-4 * num_nodes))


def run_on_ray(server_app: Any, client_app: Any, num_nodes: int, backend_config: dict[str, Any]) -> None:
    """Run both apps on Flower's Ray engine in this process; a ServerApp's exception is re-raised."""
    run_simulation: Callable[..., None] = importlib.import_module("flwr.simulation").run_simulation
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=num_nodes,
        backend_config=backend_config,
    )
