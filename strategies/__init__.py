"""Robust aggregation rules, each a pure function on (n, d) tensors and a Flower Strategy."""

from typing import TYPE_CHECKING

from byzflower.plugins import Registry, export_lazily

if TYPE_CHECKING:
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

export_lazily(__name__)

STRATEGIES: Registry[type["RobustStrategy"]] = Registry(
    "strategy",
    "byzflower.strategies",
    {
        "agrfrs": "byzflower.strategies.arfrs:AGRFRS",
        "aksel": "byzflower.strategies.aksel:Aksel",
        "arfrs": "byzflower.strategies.arfrs:ARFRS",
        "bulyan": "byzflower.strategies.bulyan:Bulyan",
        "caf": "byzflower.strategies.caf:CAF",
        "centeredclipping": "byzflower.strategies.centered_clipping:CenteredClipping",
        "dnc": "byzflower.strategies.dnc:DnC",
        "fedavg": "byzflower.strategies.fedavg:FedAvg",
        "fedsign": "byzflower.strategies.fedsign:FedSign",
        "flguardian": "byzflower.strategies.flguardian:FLGuardian",
        "fltrust": "byzflower.strategies.fltrust:FLTrust",
        "geometricmedian": "byzflower.strategies.geometric_median:GeometricMedian",
        "krum": "byzflower.strategies.krum:Krum",
        "lasa": "byzflower.strategies.lasa:LASA",
        "mda": "byzflower.strategies.mda:MDA",
        "meamed": "byzflower.strategies.meamed:MeaMed",
        "median": "byzflower.strategies.median:Median",
        "monna": "byzflower.strategies.monna:MoNNA",
        "multikrum": "byzflower.strategies.multi_krum:MultiKrum",
        "normclipping": "byzflower.strategies.norm_clipping:NormClipping",
        "normtrimmedmean": "byzflower.strategies.norm_trimmed_mean:NormTrimmedMean",
        "rbtm": "byzflower.strategies.rbtm:RBTM",
        "rrfrs": "byzflower.strategies.arfrs:RRFRS",
        "robustdpfl": "byzflower.strategies.robust_dpfl:RobustDPFL",
        "signguard": "byzflower.strategies.sign_guard:SignGuard",
        "safesparse": "byzflower.strategies.safesparse:SafeSparse",
        "signmajority": "byzflower.strategies.sign_majority:SignMajority",
        "smea": "byzflower.strategies.smea:SMEA",
        "srfrs": "byzflower.strategies.arfrs:SRFRS",
        "trimmedmean": "byzflower.strategies.trimmed_mean:TrimmedMean",
    },
    base="byzflower.strategies.base:RobustStrategy",
)

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
