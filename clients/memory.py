"""What a client keeps from round to round, in the state that Flower keeps for its node."""

from typing import Any

import numpy as np
from flwr.common import ArrayRecord, RecordDict
from numpy.typing import NDArray

from byzflower.flower.compat import MemoryArray, array_view, records_of


def recall(state: RecordDict, name: str, client_id: int) -> NDArray[Any] | None:
    """What a client last kept under a name: a read-only view; None before the first time."""
    record = records_of(state, ArrayRecord).get(name)
    key = str(client_id)
    return array_view(record[key]) if record is not None and key in record else None


def keep(state: RecordDict, name: str, client_id: int, array: NDArray[Any]) -> None:
    """Keep an array, which must not be written to afterwards, under a name, for one of a node's clients."""
    record = records_of(state, ArrayRecord).get(name) or ArrayRecord()
    record[str(client_id)] = MemoryArray(np.asarray(array))
    state[name] = record
