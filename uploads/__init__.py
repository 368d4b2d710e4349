"""Kinds of upload, one file each with both its doors: encoding, decoding, rows, step."""

from typing import TYPE_CHECKING

from byzflower.plugins import export_lazily

if TYPE_CHECKING:
    from byzflower.numerics.packs import Packs
    from byzflower.uploads.base import Ignored, Rejected, Rejection, Upload
    from byzflower.uploads.codec import collect_uploads, decode_reply, encode_upload
    from byzflower.uploads.dense import DenseUpload, Gradients, Weights
    from byzflower.uploads.items import Items, ItemUpload
    from byzflower.uploads.kind import UploadKind
    from byzflower.uploads.layout import Layout
    from byzflower.uploads.moments import Moments
    from byzflower.uploads.moments_upload import MomentsUpload
    from byzflower.uploads.registry import UPLOADS, upload_kind
    from byzflower.uploads.roster import Roster
    from byzflower.uploads.round import Aggregate, Broadcast, Forged, UploadRound
    from byzflower.uploads.topk import SparseModel, TopK, TopKUpload

export_lazily(__name__)

__all__ = [
    "UPLOADS",
    "Aggregate",
    "Broadcast",
    "DenseUpload",
    "Forged",
    "Gradients",
    "Ignored",
    "ItemUpload",
    "Items",
    "Layout",
    "Moments",
    "MomentsUpload",
    "Packs",
    "Rejected",
    "Rejection",
    "Roster",
    "SparseModel",
    "TopK",
    "TopKUpload",
    "Upload",
    "UploadKind",
    "UploadRound",
    "Weights",
    "collect_uploads",
    "decode_reply",
    "encode_upload",
    "upload_kind",
]
