"""Attacks on federated recommenders, which poison rows for items."""

from byzflower.attacks.base import Attack
from byzflower.attacks.items.base import BenignRows, CraftedRows, ItemAttack, ItemView, ProfileAttack
from byzflower.attacks.items.cluster import ItemCluster
from byzflower.attacks.items.profiles import FedAttack, ProfileFlip
from byzflower.attacks.items.spattack_l import SpattackLD, SpattackLS
from byzflower.attacks.items.spattack_o import SpattackOD, SpattackOS
from byzflower.attacks.items.statistics import ItemFang, ItemGaussian, ItemLIE
from byzflower.attacks.neurotoxin import Neurotoxin
from byzflower.attacks.pgd import PGD

ITEM_ATTACKS: dict[str, type[Attack]] = {
    "cluster": ItemCluster,
    "fang": ItemFang,
    "fedattack": FedAttack,
    "gaussian": ItemGaussian,
    "labelflip": ProfileFlip,
    "lie": ItemLIE,
    "neurotoxin": Neurotoxin,
    "pgd": PGD,
    "spattack-l-d": SpattackLD,
    "spattack-l-s": SpattackLS,
    "spattack-o-d": SpattackOD,
    "spattack-o-s": SpattackOS,
}

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
