"""Published attacks, one file each: pure functions on (n, d) pseudo-gradients."""

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

ATTACKS: dict[str, type[Attack]] = {
    "additivenoise": AdditiveNoise,
    "alie": ALIE,
    "bitflip": BitFlip,
    "camouflage": Camouflage,
    "fangkrum": FangKrum,
    "fangscale": FangScale,
    "fangtrimmedmean": FangTrimmedMean,
    "gaussian": Gaussian,
    "gaussiannoise": GaussianNoise,
    "gradientascent": GradientAscent,
    "inf": Inf,
    "ipm": IPM,
    "labelflip": LabelFlip,
    "mimic": Mimic,
    "minmax": MinMax,
    "minsum": MinSum,
    "nan": NaN,
    "neurotoxin": Neurotoxin,
    "optimalalie": OptimalALIE,
    "optimalipm": OptimalIPM,
    "pgd": PGD,
    "rop": ROP,
    "ropsparse": ROPSparse,
    "scaling": Scaling,
    "strike": STRIKE,
}

# They go with any of the others, where uploads are sparse.
MASK_ATTACKS: dict[str, type[MaskAttack]] = {
    "indexpoisoning": IndexPoisoning,
    "maskmimic": MaskMimic,
}

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
