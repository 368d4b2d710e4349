"""A limit on steps where few clients send anything: of an item, or of a pack of a sparse model.

There is no majority there to outvote a lie, and a step of 1e19 would leave a model that nobody can train on.
What most clients send elsewhere says how large steps are: the limit is a multiple of the median, over the
clients, of the largest value that each sent. It adapts to any scale, and no minority of the clients can set
it.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.packed_rows import PackedRows
from byzflower.strategies.result import AggregationResult

# Steps of benign clients on MovieLens stay below that median. Spattack's noise reaches 160 times it: attacks
# of unusual but possible size are left to the rules.
LEEWAY = 1000.0
_COLUMNS, _SAMPLE = 1 << 12, 1 << 10


def longest_step(largest: NDArray[np.floating]) -> float:
    """The longest step allowed, from the largest value (n,) of each client; zeros do not count."""
    sent = np.sort(largest[largest > 0])
    return LEEWAY * float(sent[(len(sent) - 1) // 2]) if len(sent) else 0.0


def hold_back(rows: PackedRows, result: AggregationResult) -> AggregationResult:
    """Set an aggregate of packs' contributors to 0 where it exceeds the limit, and name who sent it."""
    sample = torch.arange(0, rows.d, -(-rows.d // _SAMPLE), device=rows.device)
    seen = rows.block(sample).abs().amax(dim=1).sort().values  # no larger than what they sent
    if result.gradient.abs().max() <= LEEWAY * float(seen[(rows.n - 1) // 2]):
        return result
    limit = longest_step(rows.largest())
    too_far = ~(result.gradient.abs() <= limit)  # NaN, too
    if not too_far.any():
        return result
    gradient = result.gradient.masked_fill(too_far, 0)
    reasons: dict[int, str] = {}
    for columns in torch.split(too_far.nonzero().squeeze(1), _COLUMNS):
        sent = rows.block(columns)
        longest, places = sent.abs().max(dim=1)
        for client in (longest > limit).nonzero().squeeze(1).tolist():
            where = f"coordinate {int(columns[places[client]])}"
            reasons.setdefault(client, too_long(where, float(longest[client]), limit))
    return replace(result, gradient=gradient, reasons={**reasons, **result.reasons})


def too_long(what: str, step: float, limit: float) -> str:
    """The reason why a client's step was not taken."""
    return f"would move {what} by {step:.3g}, at most {limit:.3g} allowed"
