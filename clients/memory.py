"""What a client keeps from round to round, in the state that Flower keeps for its node."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from flwr.common import ArrayRecord, RecordDict
from numpy.typing import NDArray

from byzflower.flower.compat import MemoryArray, array_view, records_of

_ATTACK = "attack-"


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


@contextmanager
def attack_memory(
    state: RecordDict, client_id: int, device: str = "cpu"
) -> Iterator[dict[str, torch.Tensor]]:
    """What a client's attack has kept, by name, on a device: to be changed in place, and kept again."""
    memory = {
        name.removeprefix(_ATTACK): torch.from_numpy(np.array(kept)).to(device)
        for name in records_of(state, ArrayRecord)
        if name.startswith(_ATTACK) and (kept := recall(state, name, client_id)) is not None
    }
    before = set(memory)
    yield memory
    for name, value in memory.items():
        keep(state, _ATTACK + name, client_id, value.detach().cpu().numpy().copy())
    for name in before.difference(memory):
        del records_of(state, ArrayRecord)[_ATTACK + name][str(client_id)]
