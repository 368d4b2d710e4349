"""Rules for recommenders: every item's rows are an aggregation of their own."""

from typing import TYPE_CHECKING

from byzflower.plugins import Registry, export_lazily

if TYPE_CHECKING:
    from byzflower.numerics.item_rows import ItemRows
    from byzflower.strategies.items.base import ItemResult, ItemStrategy
    from byzflower.strategies.items.centered_clipping import ItemCenteredClipping, item_centered_clipping
    from byzflower.strategies.items.krum import ItemKrum
    from byzflower.strategies.items.mean import ItemMean
    from byzflower.strategies.items.median import ItemMedian
    from byzflower.strategies.items.multi_krum import ItemMultiKrum
    from byzflower.strategies.items.norm import ItemNorm, item_norm_clipping
    from byzflower.strategies.items.rfa import ItemRFA, item_geometric_median
    from byzflower.strategies.items.trimmed_mean import ItemTrimmedMean, item_trimmed_mean

export_lazily(__name__)

ITEM_STRATEGIES: Registry[type["ItemStrategy"]] = Registry(
    "item strategy",
    "byzflower.item_strategies",
    {
        "centeredclipping": "byzflower.strategies.items.centered_clipping:ItemCenteredClipping",
        "krum": "byzflower.strategies.items.krum:ItemKrum",
        "mean": "byzflower.strategies.items.mean:ItemMean",
        "median": "byzflower.strategies.items.median:ItemMedian",
        "multikrum": "byzflower.strategies.items.multi_krum:ItemMultiKrum",
        "norm": "byzflower.strategies.items.norm:ItemNorm",
        "rfa": "byzflower.strategies.items.rfa:ItemRFA",
        "trimmedmean": "byzflower.strategies.items.trimmed_mean:ItemTrimmedMean",
    },
    base="byzflower.strategies.items.base:ItemStrategy",
)

__all__ = [
    "ITEM_STRATEGIES",
    "ItemCenteredClipping",
    "ItemKrum",
    "ItemMean",
    "ItemMedian",
    "ItemMultiKrum",
    "ItemNorm",
    "ItemRFA",
    "ItemResult",
    "ItemRows",
    "ItemStrategy",
    "ItemTrimmedMean",
    "item_centered_clipping",
    "item_geometric_median",
    "item_norm_clipping",
    "item_trimmed_mean",
]
