"""Attacks on federated recommenders, which poison rows for items."""

from typing import TYPE_CHECKING

from byzflower.plugins import Registry, export_lazily

if TYPE_CHECKING:
    from byzflower.attacks.base import Attack
    from byzflower.attacks.items.base import BenignRows, CraftedRows, ItemAttack, ItemView, ProfileAttack
    from byzflower.attacks.items.cluster import ItemCluster
    from byzflower.attacks.items.profiles import FedAttack, ProfileFlip
    from byzflower.attacks.items.spattack_l import SpattackLD, SpattackLS
    from byzflower.attacks.items.spattack_o import SpattackOD, SpattackOS
    from byzflower.attacks.items.statistics import ItemFang, ItemGaussian, ItemLIE

export_lazily(__name__)

ITEM_ATTACKS: Registry[type["Attack"]] = Registry(
    "item attack",
    "byzflower.item_attacks",
    {
        "cluster": "byzflower.attacks.items.cluster:ItemCluster",
        "fang": "byzflower.attacks.items.statistics:ItemFang",
        "fedattack": "byzflower.attacks.items.profiles:FedAttack",
        "gaussian": "byzflower.attacks.items.statistics:ItemGaussian",
        "labelflip": "byzflower.attacks.items.profiles:ProfileFlip",
        "lie": "byzflower.attacks.items.statistics:ItemLIE",
        "neurotoxin": "byzflower.attacks.neurotoxin:Neurotoxin",
        "pgd": "byzflower.attacks.pgd:PGD",
        "spattack-l-d": "byzflower.attacks.items.spattack_l:SpattackLD",
        "spattack-l-s": "byzflower.attacks.items.spattack_l:SpattackLS",
        "spattack-o-d": "byzflower.attacks.items.spattack_o:SpattackOD",
        "spattack-o-s": "byzflower.attacks.items.spattack_o:SpattackOS",
    },
    base="byzflower.attacks.base:Attack",
)

__all__ = [
    "ITEM_ATTACKS",
    "BenignRows",
    "CraftedRows",
    "FedAttack",
    "ItemAttack",
    "ItemCluster",
    "ItemFang",
    "ItemGaussian",
    "ItemLIE",
    "ItemView",
    "ProfileAttack",
    "ProfileFlip",
    "SpattackLD",
    "SpattackLS",
    "SpattackOD",
    "SpattackOS",
]
