"""What travels between clients and server: typed, validated uploads in both of Flower's dialects."""

from byzflower.numerics.packs import Packs
from byzflower.uploads.base import Ignored, Rejected, Rejection, Upload, UploadFormat
from byzflower.uploads.codec import collect_uploads, decode_reply, encode_upload
from byzflower.uploads.dense import DenseUpload
from byzflower.uploads.layout import Layout
from byzflower.uploads.roster import Roster
from byzflower.uploads.topk import SparseModel, TopKFormat, TopKUpload

__all__ = [
    "DenseUpload",
    "Ignored",
    "Layout",
    "Packs",
    "Rejected",
    "Rejection",
    "Roster",
    "SparseModel",
    "TopKFormat",
    "TopKUpload",
    "Upload",
    "UploadFormat",
    "collect_uploads",
    "decode_reply",
    "encode_upload",
]
