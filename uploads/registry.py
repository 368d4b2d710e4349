"""The kinds of upload by name."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from byzflower.plugins import Registry

if TYPE_CHECKING:
    from byzflower.uploads.kind import UploadKind

UPLOADS: Registry[type["UploadKind"]] = Registry(
    "kind of upload",
    "byzflower.uploads",
    {
        "weights": "byzflower.uploads.dense:Weights",
        "gradient": "byzflower.uploads.dense:Gradients",
        "topk": "byzflower.uploads.topk:TopK",
        "moments": "byzflower.uploads.moments:Moments",
        "items": "byzflower.uploads.items:Items",
    },
    base="byzflower.uploads.kind:UploadKind",
)
# These belong to strategies that say more about them.
OF_STRATEGIES = frozenset({"moments", "items"})


def upload_kind(config: Mapping[str, Any]) -> "UploadKind":
    """The kind of upload that a client was asked for; models, if the server did not say.

    Args:
        config: what came with the model; see `UploadKind.told`.

    Raises:
        ValueError: a kind that is not known here, or that lacks something.
    """
    name = str(config.get("upload", "weights"))
    if name not in UPLOADS:
        raise ValueError(f"unknown kind of upload {name!r:.60} (known here: {', '.join(sorted(UPLOADS))})")
    return UPLOADS[name].from_config(config)
