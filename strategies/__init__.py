"""Robust aggregation rules, each a pure function on (n, d) tensors and a Flower Strategy."""

from byzflower.numerics.packed_rows import PackedRows
from byzflower.numerics.rows import Rows, TooFewClients
from byzflower.strategies.aksel import Aksel, aksel
from byzflower.strategies.arfrs import AGRFRS, ARFRS, RRFRS, SRFRS, MomentsStrategy
from byzflower.strategies.base import RobustStrategy, TooManySkippedRounds
from byzflower.strategies.bulyan import Bulyan, bulyan
from byzflower.strategies.caf import CAF, caf
from byzflower.strategies.centered_clipping import CenteredClipping, centered_clipping
from byzflower.strategies.dnc import DnC, dnc
from byzflower.strategies.fedavg import FedAvg, mean
from byzflower.strategies.fedsign import FedSign, fedsign
from byzflower.strategies.flguardian import FLGuardian, flguardian
from byzflower.strategies.fltrust import FLTrust, fltrust
from byzflower.strategies.geometric_median import GeometricMedian, geometric_median
from byzflower.strategies.krum import Krum, krum
from byzflower.strategies.lasa import LASA, lasa
from byzflower.strategies.legacy import LegacyStrategy
from byzflower.strategies.mda import MDA, mda
from byzflower.strategies.meamed import MeaMed, meamed
from byzflower.strategies.median import Median, median
from byzflower.strategies.monna import MoNNA, monna
from byzflower.strategies.multi_krum import MultiKrum, multi_krum
from byzflower.strategies.norm_clipping import NormClipping, norm_clipping
from byzflower.strategies.norm_trimmed_mean import NormTrimmedMean, norm_trimmed_mean
from byzflower.strategies.pre_aggregation import (
    PRE_AGGREGATIONS,
    AdaptiveClip,
    Bucketing,
    Clip,
    NearestNeighborMixing,
    PreAggregation,
    Sparsify,
)
from byzflower.strategies.rbtm import RBTM, rbtm
from byzflower.strategies.record import RoundRecord
from byzflower.strategies.result import AggregationResult
from byzflower.strategies.robust_dpfl import RobustDPFL, robust_dpfl
from byzflower.strategies.safesparse import SafeSparse, safe_sparse
from byzflower.strategies.sign_guard import SignGuard, sign_guard
from byzflower.strategies.sign_majority import SignMajority, sign_majority
from byzflower.strategies.smea import SMEA, smea
from byzflower.strategies.trimmed_mean import TrimmedMean, trimmed_mean

STRATEGIES: dict[str, type[RobustStrategy]] = {
    "agrfrs": AGRFRS,
    "aksel": Aksel,
    "arfrs": ARFRS,
    "bulyan": Bulyan,
    "caf": CAF,
    "centeredclipping": CenteredClipping,
    "dnc": DnC,
    "fedavg": FedAvg,
    "fedsign": FedSign,
    "flguardian": FLGuardian,
    "fltrust": FLTrust,
    "geometricmedian": GeometricMedian,
    "krum": Krum,
    "lasa": LASA,
    "mda": MDA,
    "meamed": MeaMed,
    "median": Median,
    "monna": MoNNA,
    "multikrum": MultiKrum,
    "normclipping": NormClipping,
    "normtrimmedmean": NormTrimmedMean,
    "rbtm": RBTM,
    "rrfrs": RRFRS,
    "robustdpfl": RobustDPFL,
    "signguard": SignGuard,
    "safesparse": SafeSparse,
    "signmajority": SignMajority,
    "smea": SMEA,
    "srfrs": SRFRS,
    "trimmedmean": TrimmedMean,
}

__all__ = [
    "AGRFRS",
    "ARFRS",
    "CAF",
    "LASA",
    "MDA",
    "PRE_AGGREGATIONS",
    "RBTM",
    "RRFRS",
    "SMEA",
    "SRFRS",
    "STRATEGIES",
    "AdaptiveClip",
    "AggregationResult",
    "Aksel",
    "Bucketing",
    "Bulyan",
    "CenteredClipping",
    "Clip",
    "DnC",
    "FLGuardian",
    "FLTrust",
    "FedAvg",
    "FedSign",
    "GeometricMedian",
    "Krum",
    "LegacyStrategy",
    "MeaMed",
    "Median",
    "MoNNA",
    "MomentsStrategy",
    "MultiKrum",
    "NearestNeighborMixing",
    "NormClipping",
    "NormTrimmedMean",
    "PackedRows",
    "PreAggregation",
    "RobustDPFL",
    "RobustStrategy",
    "RoundRecord",
    "Rows",
    "SafeSparse",
    "SignGuard",
    "SignMajority",
    "Sparsify",
    "TooFewClients",
    "TooManySkippedRounds",
    "TrimmedMean",
    "aksel",
    "bulyan",
    "caf",
    "centered_clipping",
    "dnc",
    "fedsign",
    "flguardian",
    "fltrust",
    "geometric_median",
    "krum",
    "lasa",
    "mda",
    "meamed",
    "mean",
    "median",
    "monna",
    "multi_krum",
    "norm_clipping",
    "norm_trimmed_mean",
    "rbtm",
    "robust_dpfl",
    "safe_sparse",
    "sign_guard",
    "sign_majority",
    "smea",
    "trimmed_mean",
]
