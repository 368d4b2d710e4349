"""The kinds of upload by name."""

from collections.abc import Mapping
from typing import Any

from byzflower.uploads.dense import Gradients, Weights
from byzflower.uploads.items import Items
from byzflower.uploads.kind import UPLOAD, UploadKind
from byzflower.uploads.moments import Moments
from byzflower.uploads.topk import TopK

UPLOADS: dict[str, type[UploadKind]] = {
    kind.name: kind for kind in (Weights, Gradients, TopK, Moments, Items)
}


def upload_kind(config: Mapping[str, Any]) -> UploadKind:
    """The kind of upload that a client was asked for; models, if the server did not say.

    Args:
        config: what came with the model; see `UploadKind.told`.

    Raises:
        ValueError: a kind that is not known here, or that lacks something.
    """
    name = str(config.get(UPLOAD, Weights.name))
    if name not in UPLOADS:
        raise ValueError(f"unknown kind of upload {name!r:.60} (known here: {', '.join(sorted(UPLOADS))})")
    return UPLOADS[name].from_config(config)
