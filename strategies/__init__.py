"""Robust aggregation rules, each a pure function on (n, d) tensors and a Flower Strategy."""

from byzflower.strategies.base import RobustStrategy, RoundRecord, TooManySkippedRounds
from byzflower.strategies.fedavg import FedAvg, mean
from byzflower.strategies.krum import Krum, krum
from byzflower.strategies.legacy import LegacyStrategy
from byzflower.strategies.median import Median, median
from byzflower.strategies.multi_krum import MultiKrum, multi_krum
from byzflower.strategies.pre_aggregation import (
    PRE_AGGREGATIONS,
    AdaptiveClip,
    Bucketing,
    Clip,
    NearestNeighborMixing,
    PreAggregation,
    Sparsify,
)
from byzflower.strategies.result import AggregationResult
from byzflower.strategies.rows import Rows, TooFewClients
from byzflower.strategies.trimmed_mean import TrimmedMean, trimmed_mean

STRATEGIES: dict[str, type[RobustStrategy]] = {
    "fedavg": FedAvg,
    "krum": Krum,
    "median": Median,
    "multikrum": MultiKrum,
    "trimmedmean": TrimmedMean,
}

__all__ = [
    "PRE_AGGREGATIONS",
    "STRATEGIES",
    "AdaptiveClip",
    "AggregationResult",
    "Bucketing",
    "Clip",
    "FedAvg",
    "Krum",
    "LegacyStrategy",
    "Median",
    "MultiKrum",
    "NearestNeighborMixing",
    "PreAggregation",
    "RobustStrategy",
    "RoundRecord",
    "Rows",
    "Sparsify",
    "TooFewClients",
    "TooManySkippedRounds",
    "TrimmedMean",
    "krum",
    "mean",
    "median",
    "multi_krum",
    "trimmed_mean",
]
