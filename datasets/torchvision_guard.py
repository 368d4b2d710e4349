"""The one place where torchvision is imported."""

import importlib
from types import ModuleType
from typing import Any

_declared: list[Any] = []


def import_torchvision(module: str = "torchvision.datasets") -> ModuleType:
    """Import torchvision or one of its modules, also next to a CPU-only torch.

    torchvision's wheels on PyPI are built for CUDA. Beside a CPU-only torch their extension cannot be
    loaded, so the operator `torchvision::nms` is never registered, and registering its fake kernel
    fails at import. Declaring the operators first is enough for datasets, transforms and models; only
    the compiled operators themselves (nms, roi_align) are then missing, and nothing here needs them.
    """
    import torch

    if not _declared and not torch.cuda.is_available() and torch.version.cuda is None:
        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)  # operators vanish with the library object
    return importlib.import_module(module)
