"""Published attacks, one file each: pure functions on (n, d) pseudo-gradients."""

from byzflower.attacks.alie import ALIE, alie, largest_hidden_z
from byzflower.attacks.base import Attack, AttackView, CollusiveAttack, DataAttack, Knowledge, LocalAttack
from byzflower.attacks.bit_flip import BitFlip, bit_flip
from byzflower.attacks.ipm import IPM, ipm
from byzflower.attacks.label_flip import LabelFlip, flip_labels

ATTACKS: dict[str, type[Attack]] = {
    "alie": ALIE,
    "bitflip": BitFlip,
    "ipm": IPM,
    "labelflip": LabelFlip,
}

__all__ = [
    "ALIE",
    "ATTACKS",
    "IPM",
    "Attack",
    "AttackView",
    "BitFlip",
    "CollusiveAttack",
    "DataAttack",
    "Knowledge",
    "LabelFlip",
    "LocalAttack",
    "alie",
    "bit_flip",
    "flip_labels",
    "ipm",
    "largest_hidden_z",
]
