"""Robust aggregation rules, each a pure function on (n, d) tensors and a Flower Strategy."""

from byzflower.strategies.base import RobustStrategy, RoundRecord, TooManySkippedRounds
from byzflower.strategies.fedavg import FedAvg, mean
from byzflower.strategies.krum import Krum, krum
from byzflower.strategies.legacy import LegacyStrategy
from byzflower.strategies.median import Median, median
from byzflower.strategies.multi_krum import MultiKrum, multi_krum
from byzflower.strategies.result import AggregationResult, TooFewClients
from byzflower.strategies.trimmed_mean import TrimmedMean, trimmed_mean

STRATEGIES: dict[str, type[RobustStrategy]] = {
    "fedavg": FedAvg,
    "krum": Krum,
    "median": Median,
    "multikrum": MultiKrum,
    "trimmedmean": TrimmedMean,
}

__all__ = [
    "STRATEGIES",
    "AggregationResult",
    "FedAvg",
    "Krum",
    "LegacyStrategy",
    "Median",
    "MultiKrum",
    "RobustStrategy",
    "RoundRecord",
    "TooFewClients",
    "TooManySkippedRounds",
    "TrimmedMean",
    "krum",
    "mean",
    "median",
    "multi_krum",
    "trimmed_mean",
]
