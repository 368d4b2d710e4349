"""What may be done to a round's uploads before any rule, in any number and order."""

from byzflower.strategies.pre_aggregation.adaptive_clip import AdaptiveClip
from byzflower.strategies.pre_aggregation.base import PreAggregation
from byzflower.strategies.pre_aggregation.bucketing import Bucketing
from byzflower.strategies.pre_aggregation.clip import Clip
from byzflower.strategies.pre_aggregation.nearest_neighbor_mixing import NearestNeighborMixing
from byzflower.strategies.pre_aggregation.sparsify import Sparsify

PRE_AGGREGATIONS: dict[str, type[PreAggregation]] = {
    "adaptiveclip": AdaptiveClip,
    "bucketing": Bucketing,
    "clip": Clip,
    "nnm": NearestNeighborMixing,
    "sparsify": Sparsify,
}

__all__ = [
    "PRE_AGGREGATIONS",
    "AdaptiveClip",
    "Bucketing",
    "Clip",
    "NearestNeighborMixing",
    "PreAggregation",
    "Sparsify",
]
