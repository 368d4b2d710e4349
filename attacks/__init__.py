"""Published attacks, one file each: pure functions on (n, d) pseudo-gradients."""

from typing import TYPE_CHECKING

from byzflower.plugins import Registry, export_lazily

if TYPE_CHECKING:
    from byzflower.attacks.additive_noise import AdditiveNoise, add_noise
    from byzflower.attacks.alie import ALIE, alie, largest_hidden_z
    from byzflower.attacks.base import (
        Attack,
        AttackView,
        CollusiveAttack,
        DataAttack,
        Knowledge,
        LocalAttack,
        LocalView,
        Need,
        TensorColumns,
    )
    from byzflower.attacks.bit_flip import BitFlip, bit_flip
    from byzflower.attacks.camouflage import Camouflage, camouflage
    from byzflower.attacks.fang_krum import FangKrum, fang_krum
    from byzflower.attacks.fang_scale import FangScale
    from byzflower.attacks.fang_trimmed_mean import FangTrimmedMean, fang_trimmed_mean
    from byzflower.attacks.gaussian import Gaussian
    from byzflower.attacks.gaussian_noise import GaussianNoise, random_model
    from byzflower.attacks.gradient_ascent import GradientAscent
    from byzflower.attacks.index_poisoning import IndexPoisoning, head_packs, rarest_first
    from byzflower.attacks.ipm import IPM, ipm
    from byzflower.attacks.label_flip import LabelFlip, flip_labels
    from byzflower.attacks.mask_mimic import MaskMimic, mean_sign_cosine, spread_signs
    from byzflower.attacks.masks import MaskAttack, PackView
    from byzflower.attacks.mimic import Mimic, follow_drift
    from byzflower.attacks.min_max import MinMax, min_max
    from byzflower.attacks.min_sum import MinSum, min_sum
    from byzflower.attacks.neurotoxin import Neurotoxin, least_moved
    from byzflower.attacks.non_finite import Inf, NaN
    from byzflower.attacks.optimal_alie import OptimalALIE
    from byzflower.attacks.optimal_ipm import OptimalIPM
    from byzflower.attacks.pgd import PGD, into_ball
    from byzflower.attacks.rop import ROP, perturbation
    from byzflower.attacks.rop_sparse import ROPSparse, sensitive_columns
    from byzflower.attacks.scaling import Scaling, scale, scale_parameters
    from byzflower.attacks.strike import STRIKE, gradient_skew, majority_size, skewed_majority, strike
    from byzflower.attacks.training import Batch, Fit, TrainingAttack, TrainingView

export_lazily(__name__)

ATTACKS: Registry[type["Attack"]] = Registry(
    "attack",
    "byzflower.attacks",
    {
        "additivenoise": "byzflower.attacks.additive_noise:AdditiveNoise",
        "alie": "byzflower.attacks.alie:ALIE",
        "bitflip": "byzflower.attacks.bit_flip:BitFlip",
        "camouflage": "byzflower.attacks.camouflage:Camouflage",
        "fangkrum": "byzflower.attacks.fang_krum:FangKrum",
        "fangscale": "byzflower.attacks.fang_scale:FangScale",
        "fangtrimmedmean": "byzflower.attacks.fang_trimmed_mean:FangTrimmedMean",
        "gaussian": "byzflower.attacks.gaussian:Gaussian",
        "gaussiannoise": "byzflower.attacks.gaussian_noise:GaussianNoise",
        "gradientascent": "byzflower.attacks.gradient_ascent:GradientAscent",
        "inf": "byzflower.attacks.non_finite:Inf",
        "ipm": "byzflower.attacks.ipm:IPM",
        "labelflip": "byzflower.attacks.label_flip:LabelFlip",
        "mimic": "byzflower.attacks.mimic:Mimic",
        "minmax": "byzflower.attacks.min_max:MinMax",
        "minsum": "byzflower.attacks.min_sum:MinSum",
        "nan": "byzflower.attacks.non_finite:NaN",
        "neurotoxin": "byzflower.attacks.neurotoxin:Neurotoxin",
        "optimalalie": "byzflower.attacks.optimal_alie:OptimalALIE",
        "optimalipm": "byzflower.attacks.optimal_ipm:OptimalIPM",
        "pgd": "byzflower.attacks.pgd:PGD",
        "rop": "byzflower.attacks.rop:ROP",
        "ropsparse": "byzflower.attacks.rop_sparse:ROPSparse",
        "scaling": "byzflower.attacks.scaling:Scaling",
        "strike": "byzflower.attacks.strike:STRIKE",
    },
    base="byzflower.attacks.base:Attack",
)

# They go with any of the others, where uploads are sparse.
MASK_ATTACKS: Registry[type["MaskAttack"]] = Registry(
    "mask attack",
    "byzflower.mask_attacks",
    {
        "indexpoisoning": "byzflower.attacks.index_poisoning:IndexPoisoning",
        "maskmimic": "byzflower.attacks.mask_mimic:MaskMimic",
    },
    base="byzflower.attacks.masks:MaskAttack",
)

__all__ = [
    "ALIE",
    "ATTACKS",
    "IPM",
    "MASK_ATTACKS",
    "PGD",
    "ROP",
    "STRIKE",
    "AdditiveNoise",
    "Attack",
    "AttackView",
    "Batch",
    "BitFlip",
    "Camouflage",
    "CollusiveAttack",
    "DataAttack",
    "FangKrum",
    "FangScale",
    "FangTrimmedMean",
    "Fit",
    "Gaussian",
    "GaussianNoise",
    "GradientAscent",
    "IndexPoisoning",
    "Inf",
    "Knowledge",
    "LabelFlip",
    "LocalAttack",
    "LocalView",
    "MaskAttack",
    "MaskMimic",
    "Mimic",
    "MinMax",
    "MinSum",
    "NaN",
    "Need",
    "Neurotoxin",
    "OptimalALIE",
    "OptimalIPM",
    "PackView",
    "ROPSparse",
    "Scaling",
    "TensorColumns",
    "TrainingAttack",
    "TrainingView",
    "add_noise",
    "alie",
    "bit_flip",
    "camouflage",
    "fang_krum",
    "fang_trimmed_mean",
    "flip_labels",
    "follow_drift",
    "gradient_skew",
    "head_packs",
    "into_ball",
    "ipm",
    "largest_hidden_z",
    "least_moved",
    "majority_size",
    "mean_sign_cosine",
    "min_max",
    "min_sum",
    "perturbation",
    "random_model",
    "rarest_first",
    "scale",
    "scale_parameters",
    "sensitive_columns",
    "skewed_majority",
    "spread_signs",
    "strike",
]
