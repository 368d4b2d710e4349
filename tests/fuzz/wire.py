"""Replies through Flower's own serialisation: to protobuf bytes, and back as the server gets them."""

from typing import Any

from flwr.common import Error, Message, RecordDict
from flwr.common.serde import message_from_proto
from flwr.proto import error_pb2, message_pb2
from flwr.proto import recorddict_pb2 as pb

from byzflower.flower.compat import enter_local_run, set_message_origin

from .content import ARRAYS, CONFIG, METRICS, Payload, Record, Reply

RUN = 1
enter_local_run(RUN)
_LISTS = {"double_list": pb.DoubleList, "sint_list": pb.SintList, "uint_list": pb.UintList}
_CONFIG_LISTS = {"string_list": pb.StringList, "bool_list": pb.BoolList, "bytes_list": pb.BytesList}


def encode(reply: Reply) -> bytes:
    """Serialise a reply as a client's Flower would, and damage the bytes as it says."""
    data = _message(reply).SerializeToString()
    for position, byte in reply.edits:
        at = position % (len(data) + 1)
        if byte is None:
            data = data[:at]
        else:
            data = data[:at] + bytes([data[at] ^ byte]) + data[at + 1 :] if at < len(data) else data
    return data


def decode(data: bytes, node: int) -> Message:
    """Rebuild a reply as the server does; what cannot be rebuilt is an error of the node's."""
    try:
        message = message_from_proto(message_pb2.Message.FromString(data))
    except Exception as error:  # whatever Flower makes of a hostile reply
        asked = Message(RecordDict(), dst_node_id=node, message_type="train")
        message = Message(Error(code=204, reason=f"{type(error).__name__}: {error!s:.200}"), reply_to=asked)
    set_message_origin(message, RUN, node)
    return message


def read(data: bytes, node: int) -> Reply:
    """The plain data in serialised bytes, by protobuf alone; an error reply if there are none."""
    try:
        message = message_pb2.Message.FromString(data)
        if message.HasField("error"):
            return Reply(node, error=(message.error.code, message.error.reason))
        return Reply(node, [_read_record(item) for item in message.content.items])
    except Exception:
        return Reply(node, error=(204, "not a message"))


def _message(reply: Reply) -> message_pb2.Message:
    metadata = message_pb2.Metadata(
        run_id=RUN, src_node_id=reply.node, dst_node_id=1, message_type="train", ttl=3600.0
    )
    if reply.error is not None:
        code, text = reply.error
        return message_pb2.Message(metadata=metadata, error=error_pb2.Error(code=code, reason=text))
    items = [_write_record(record) for record in reply.records]
    return message_pb2.Message(metadata=metadata, content=pb.RecordDict(items=items))


def _write_record(record: Record) -> pb.RecordDict.Item:
    if record.kind == ARRAYS:
        arrays = pb.ArrayRecord(items=[pb.ArrayRecord.Item(key=k, value=_array(v)) for k, v in record.items])
        return pb.RecordDict.Item(key=record.name, array_record=arrays)
    if record.kind == METRICS:
        values = [
            pb.MetricRecord.Item(key=k, value=pb.MetricRecordValue(**_value(v))) for k, v in record.items
        ]
        return pb.RecordDict.Item(key=record.name, metric_record=pb.MetricRecord(items=values))
    settings = [pb.ConfigRecord.Item(key=k, value=pb.ConfigRecordValue(**_value(v))) for k, v in record.items]
    return pb.RecordDict.Item(key=record.name, config_record=pb.ConfigRecord(items=settings))


def _array(payload: Payload) -> pb.Array:
    return pb.Array(dtype=payload.dtype, shape=payload.shape, stype=payload.stype, data=payload.data)


def _value(value: Any) -> dict[str, Any]:
    """A field and its content; nothing for None, which no benign client can send."""
    if value is None or value == [None]:
        return {}
    if isinstance(value, list):
        return _list(value)
    if isinstance(value, str | bytes | bool):
        return {type(value).__name__.replace("str", "string"): value}
    if isinstance(value, int):
        return {"uint64" if value >= 2**63 else "sint64": value}
    return {"double": float(value)}


def _list(values: list[Any]) -> dict[str, Any]:
    if values and all(isinstance(value, int) for value in values):
        large = max(values) >= 2**63
        field = "uint_list" if large and min(values) >= 0 else "double_list" if large else "sint_list"
        return {field: _LISTS[field](vals=values)}
    if values and isinstance(values[0], str):
        return {"string_list": pb.StringList(vals=values)}
    return {"double_list": pb.DoubleList(vals=values)}


def _read_record(item: pb.RecordDict.Item) -> Record:
    field = item.WhichOneof("value")
    if field == "array_record":
        arrays = [
            (i.key, Payload(i.value.data, i.value.dtype, tuple(i.value.shape), i.value.stype))
            for i in item.array_record.items
        ]
        return Record(item.key, ARRAYS, arrays)
    kind, record = (METRICS, item.metric_record) if field == "metric_record" else (CONFIG, item.config_record)
    if field is None:
        raise ValueError("a record of no kind")
    return Record(item.key, kind, [(i.key, _read_value(i.value)) for i in record.items])


def _read_value(value: Any) -> Any:
    field = value.WhichOneof("value")
    if field is None:
        raise ValueError("a value of no kind")
    content = getattr(value, field)
    return list(content.vals) if field in _LISTS or field in _CONFIG_LISTS else content
