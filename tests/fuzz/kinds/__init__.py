"""Upload kinds as the fuzzer knows them, one module each."""

from .base import Decoded, Effect, Expected, Fate, Kind, Local, Malformed
from .dense import Dense, Gradient
from .items import Items
from .moments import FullMoments, Moments
from .topk import PACK_SIZE, Contributors, TopK

KINDS: dict[str, type[Kind]] = {
    "weights": Dense,
    "gradient": Gradient,
    "topk": TopK,
    "contributors": Contributors,
    "safesparse": Contributors,
    "moments": Moments,
    "full-moments": FullMoments,
    "items": Items,
}

__all__ = [
    "KINDS",
    "PACK_SIZE",
    "Decoded",
    "Effect",
    "Expected",
    "Fate",
    "Kind",
    "Local",
    "Malformed",
]
