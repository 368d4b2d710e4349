"""What clients do, and what the server has to say of those who do it."""

import importlib
import io
import os
import time
from pathlib import Path

import numpy as np
from flwr.common import Array, ArrayRecord, MetricRecord, RecordDict

SIZE = 10


def reply(arrays, **metrics):
    """A message's content; `metrics` that are None are left out."""
    record = ArrayRecord({k: a if isinstance(a, Array) else Array(np.asarray(a)) for k, a in arrays.items()})
    numbers = {"num_examples": SIZE, **metrics}
    named = {k.replace("_", "-"): v for k, v in numbers.items() if v is not None}
    return RecordDict({"arrays": record, "metrics": MetricRecord(named)})


def partition(context):
    return int(context.node_config["partition-id"])


def model(message):
    """The honest answer: the model that came, plus one."""
    return {name: array.numpy() + 1 for name, array in message.content["arrays"].items()}


def honest(message, context):
    return reply(model(message), client_id=partition(context))


def changed(change=lambda arrays: arrays, **metrics):
    """Answer with changed arrays or metrics, under one's own id unless `metrics` names another."""
    return lambda message, context: reply(
        change(model(message)), **{"client_id": partition(context), **metrics}
    )


def payload(content, stype="numpy.ndarray"):
    """Send these bytes as array "w"."""
    fake = Array(dtype="float32", shape=(2, 3), stype=stype, data=content)
    return changed(lambda arrays: {**arrays, "w": fake})


def npy(array, **kwargs):
    buffer = io.BytesIO()
    np.save(buffer, array, **kwargs)
    return buffer.getvalue()


def with_w(make):
    return changed(lambda arrays: {**arrays, "w": make(arrays["w"])})


def raises(message, context):
    raise ValueError("no GPU today")


def exits(message, context):
    os._exit(3)


def hangs(message, context):
    """Tell the test that training has begun, and do not end."""
    sign = context.node_config.get("sign")
    if sign:
        Path(str(sign)).touch()
    time.sleep(300)


def two_arrays(message, context):
    content = honest(message, context)
    return RecordDict({**content, "more": content["arrays"]})


def many_clients(message, context):
    ids = [partition(context), 77]
    return RecordDict(
        {
            "arrays": ArrayRecord({"rows": Array(np.zeros((2, 9), np.float32))}),
            "metrics": MetricRecord({"client-id": ids, "num-examples": [1.0, 1.0]}),
        }
    )


def unreadable(message, context):
    """A reply that the SuperLink takes and the server cannot rebuild."""
    inflatable = None
    for name in ("flwr.common.inflatable", "flwr.supercore.inflatable.inflatable_object"):
        try:
            inflatable = importlib.import_module(name)
            break
        except ModuleNotFoundError:
            continue

    class Broken(Array):
        __qualname__ = "Array"

        def deflate(self):
            return inflatable.add_header_to_object_body(object_body=b"{", obj=self)

    content = honest(message, context)
    content["arrays"]["w"] = Broken(np.zeros((2, 3), np.float32))
    return content


PACK_SIZE = 2


def sparse(message, context):
    """The honest answer in a top-k upload that sends every pack."""
    values = np.concatenate([array.ravel() for array in model(message).values()])
    mask = np.packbits(np.ones(-(-len(values) // PACK_SIZE), np.bool_))
    return {"mask": mask, "values": values}


def sent(**changes):
    """Answer with a top-k upload some of whose arrays went through a function."""

    def behave(message, context):
        arrays = sparse(message, context)
        return reply(
            {name: changes.get(name, lambda array: array)(array) for name, array in arrays.items()},
            client_id=partition(context),
        )

    return behave


NOT_A_SIZE = "num-examples is "
# name: (what the client does, what the record says)
BEHAVIOURS = {
    "raises": (raises, "client raised.*no GPU today"),
    "unreadable": (unreadable, "no usable reply.*in Flower.s transport"),
    "garbage": (payload(b"\x93garbage"), "not a NumPy array"),
    "truncated": (payload(npy(np.zeros((2, 3), np.float32))[:-3]), "do not hold"),
    "too long": (payload(npy(np.zeros(10**6, np.float32))), "at most"),
    "pickle": (payload(npy(np.array([{}], dtype=object), allow_pickle=True)), "dtype object"),
    "other serialisation": (payload(b"x", stype="pickle"), "unknown serialisation"),
    "missing": (changed(lambda arrays: {"w": arrays["w"]}), "missing arrays 'b'"),
    "extra": (changed(lambda arrays: {**arrays, "x": arrays["b"]}), "unexpected arrays 'x'"),
    "reordered": (changed(lambda arrays: dict(reversed(arrays.items()))), "another order"),
    "two records": (two_arrays, "one ArrayRecord, got 2"),
    "shape": (with_w(lambda w: w.T), r"shape \(3, 2\), expected \(2, 3\)"),
    "dtype": (with_w(lambda w: w.astype(np.float64)), "dtype float64"),
    "NaN": (with_w(lambda w: w * np.nan), "NaN or Inf"),
    "Inf": (with_w(lambda w: w + np.inf), "NaN or Inf"),
    "negative size": (changed(num_examples=-5), NOT_A_SIZE + "-5"),
    "zero size": (changed(num_examples=0), NOT_A_SIZE + "0"),
    "NaN size": (changed(num_examples=float("nan")), NOT_A_SIZE + "nan"),
    "absurd size": (changed(num_examples=10**15), NOT_A_SIZE + "1000000000000000"),
    "no size": (changed(num_examples=None), "no 'num-examples'"),
    "another's id": (changed(client_id=0), "before, now claims to be 0"),
    "negative id": (changed(client_id=-1), "not a non-negative integer"),
    "many clients": (many_clients, "one node claims to be 2 clients"),
    "exits": (exits, "no reply in time|client crashed"),
    "hangs": (hangs, "no reply in time|no reply"),
}
# the same for those who send top-k uploads: 9 scalars in 5 packs, so that 3 bits of the mask are spare
SPARSE = {
    "no mask": (sent(mask=lambda mask: mask[:0]), r"'mask' has shape \(0,\), expected \(1,\)"),
    "long mask": (sent(mask=lambda mask: np.repeat(mask, 9)), r"'mask' has shape \(9,\), expected \(1,\)"),
    "mask of another type": (sent(mask=lambda mask: mask.astype(np.bool_)), "'mask' has dtype bool"),
    "bits beyond the last pack": (sent(mask=lambda mask: mask | np.uint8(1)), "bits set beyond its 5 packs"),
    "more values than bits": (sent(values=lambda values: np.append(values, values[:1])), r"shape \(10,\)"),
    "fewer values than bits": (sent(values=lambda values: values[:-1]), r"'values' has shape \(8,\)"),
    "NaN values": (sent(values=lambda values: values * np.nan), "NaN or Inf"),
    "a dense model": (honest, "a top-k upload has the arrays mask, values, got"),
}
