"""How far a client may move what only it, or few beside it, sends: an item's row, a pack of a sparse model.

There no majority speaks against a lie, and one of 1e19 would leave a model that nobody can train on. What
most clients send, anywhere, says how large a step can be: so the limit is a multiple of the median over the
clients of the largest that each sent. It has no unit, and no minority of the clients can set it.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.packed_rows import PackedRows
from byzflower.strategies.result import AggregationResult

# Steps of benign clients on MovieLens are below 1 time that median. Spattack's noise reaches 160 times, and
# what rules make of attacks that are no more than unusual is for them to show.
LEEWAY = 1000.0
_COLUMNS, _SAMPLE = 1 << 12, 1 << 10


def longest_step(largest: NDArray[np.floating]) -> float:
    """The longest step allowed, of what (n,) each client's largest is; those of 0 do not count."""
    sent = np.sort(largest[largest > 0])
    return LEEWAY * float(sent[(len(sent) - 1) // 2]) if len(sent) else 0.0


def hold_back(rows: PackedRows, result: AggregationResult) -> AggregationResult:
    """Make an aggregate of packs' contributors 0 where its step is too long, and say whose fault that is."""
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
    """Why a client's step was not taken."""
    return f"would move {what} by {step:.3g}, at most {limit:.3g} allowed"
