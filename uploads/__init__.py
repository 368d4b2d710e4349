"""What travels between clients and server: typed, validated uploads in both of Flower's dialects."""

from byzflower.uploads.base import Rejected, Rejection, Upload
from byzflower.uploads.dense import DenseUpload
from byzflower.uploads.layout import Layout
from byzflower.uploads.reply import Roster, collect_uploads, decode_reply, encode_upload

__all__ = [
    "DenseUpload",
    "Layout",
    "Rejected",
    "Rejection",
    "Roster",
    "Upload",
    "collect_uploads",
    "decode_reply",
    "encode_upload",
]
