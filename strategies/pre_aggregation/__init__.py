"""Pre-aggregations: transformations of a round's rows before any rule, in any number and order."""

from typing import TYPE_CHECKING

from byzflower.plugins import Registry, export_lazily

if TYPE_CHECKING:
    from byzflower.strategies.pre_aggregation.adaptive_clip import AdaptiveClip
    from byzflower.strategies.pre_aggregation.base import PreAggregation
    from byzflower.strategies.pre_aggregation.bucketing import Bucketing
    from byzflower.strategies.pre_aggregation.clip import Clip
    from byzflower.strategies.pre_aggregation.nearest_neighbor_mixing import NearestNeighborMixing
    from byzflower.strategies.pre_aggregation.sparsify import Sparsify

export_lazily(__name__)

PRE_AGGREGATIONS: Registry[type["PreAggregation"]] = Registry(
    "pre-aggregation",
    "byzflower.pre_aggregations",
    {
        "adaptiveclip": "byzflower.strategies.pre_aggregation.adaptive_clip:AdaptiveClip",
        "bucketing": "byzflower.strategies.pre_aggregation.bucketing:Bucketing",
        "clip": "byzflower.strategies.pre_aggregation.clip:Clip",
        "nnm": "byzflower.strategies.pre_aggregation.nearest_neighbor_mixing:NearestNeighborMixing",
        "sparsify": "byzflower.strategies.pre_aggregation.sparsify:Sparsify",
    },
    base="byzflower.strategies.pre_aggregation.base:PreAggregation",
)

__all__ = [
    "PRE_AGGREGATIONS",
    "AdaptiveClip",
    "Bucketing",
    "Clip",
    "NearestNeighborMixing",
    "PreAggregation",
    "Sparsify",
]
