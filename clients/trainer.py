"""Local training of one client, on one CPU thread or one GPU."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from byzflower.clients.settings import ClientSettings
from byzflower.models import build_model
from byzflower.uploads.layout import Layout

Batch = tuple[torch.Tensor, torch.Tensor]
Batches = Iterable[Batch]
Change = Callable[[torch.Tensor], torch.Tensor]

_thread = threading.local()


class Steering(NamedTuple):
    """What an attack changes about training.

    Attributes:
        alter: makes another (d,) gradient of each batch's; None for the same.
        project: makes another (d,) pseudo-gradient of what was learned so far, after each step; None for
            the same.
    """

    alter: Change | None = None
    project: Change | None = None


_BENIGN = Steering()


class Workspace:
    """One instance of a model to load weights into, and what never changes about it.

    Attributes:
        model: in channels-last format, which makes convolutions on a CPU nearly twice as fast.
        parameters: what is trained.
        layout: of the model's arrays.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model: torch.nn.Module = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters = list(model.parameters())
        state = model.state_dict()
        self.layout = Layout.of({name: t.cpu().numpy() for name, t in state.items()})
        self._tensors = list(state.values())

    def load(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Copy arrays, in state-dict order, into the model.

        Raises:
            ValueError: the arrays are not this model's.
        """
        if self.layout.shapes != tuple(a.shape for a in arrays):
            raise ValueError("the global model's arrays are not those of the configured model")
        for tensor, array in zip(self._tensors, arrays, strict=True):
            if tensor.device.type == "cpu":
                np.copyto(tensor.numpy(), array)
            else:
                tensor.copy_(torch.tensor(array))

    def row(self) -> torch.Tensor:
        """A copy of the parameters, (d,), on their device."""
        return flat(self.parameters)

    def load_row(self, row: torch.Tensor) -> None:
        """Copy (d,) values into the parameters; buffers stay."""
        with torch.no_grad():
            for parameter, part in zip(self.parameters, self.split(row), strict=True):
                parameter.copy_(part)

    def split(self, row: torch.Tensor) -> list[torch.Tensor]:
        """Views of (d,) values in the parameters' shapes."""
        parts = torch.split(row, [p.numel() for p in self.parameters])
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]

    def in_training(self) -> torch.nn.Module:
        """The model, in training mode."""
        return self.model if self.model.training else self.model.train()

    def arrays(self) -> list[NDArray[Any]]:
        """Copies of the model's arrays, in state-dict order."""
        return [t.detach().cpu().numpy().copy() for t in self._tensors]


def workspace(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    device: str,
    options: Mapping[str, Any] | None = None,
) -> Workspace:
    """This thread's workspace for a model; see `build_model`."""
    spaces: dict[Any, Workspace] = _thread.__dict__.setdefault("workspaces", {})
    key = (name, input_shape, num_classes, device, tuple(sorted((options or {}).items())))
    if key not in spaces:
        model = build_model(name, input_shape, num_classes, options=options)
        spaces[key] = Workspace(model.to(device))
    return spaces[key]


def batch_indices(
    size: int, settings: ClientSettings, random: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Positions of the samples in each mini-batch of a round: shuffled epochs, or `batches` batches."""
    width = min(settings.batch_size, size)
    if not settings.batches:
        for _ in range(settings.epochs):
            order = random.permutation(size)
            yield from (order[start : start + width] for start in range(0, size, width))
        return
    order, start = random.permutation(size), 0
    for _ in range(settings.batches):
        if start + width > size:
            order, start = random.permutation(size), 0
        yield order[start : start + width]
        start += width


def train_weights(
    space: Workspace, batches: Batches, settings: ClientSettings, steering: Steering = _BENIGN
) -> float:
    """Run the local optimizer over the batches, in place.

    Returns:
        The mean training loss over the batches.
    """
    model, parameters = space.in_training(), space.parameters
    optimizer = _make_optimizer(parameters, settings)
    alter, project = steering
    start = space.row() if project else None
    losses = []
    for x, y in batches:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        if settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        if alter is not None:
            _set_gradients(space, alter(flat([_gradient_of(p) for p in parameters])))
        optimizer.step()
        if project is not None and start is not None:
            space.load_row(start - project(start - space.row()))
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def mean_gradient(
    space: Workspace, batches: Batches, settings: ClientSettings, steering: Steering = _BENIGN
) -> tuple[list[torch.Tensor], float]:
    """Gradient of the loss at the model's weights, averaged over the batches; no step is taken.

    Returns:
        One gradient per parameter, and the mean loss.
    """
    model, parameters = space.in_training(), space.parameters
    losses: list[torch.Tensor] = []
    total: list[torch.Tensor] = []
    for x, y in batches:
        loss = F.cross_entropy(model(x), y)
        gradients = torch.autograd.grad(loss, parameters)
        if settings.clip_norm:
            gradients = _clipped(gradients, settings.clip_norm)
        if steering.alter is not None:
            gradients = tuple(space.split(steering.alter(flat(gradients))))
        if total:
            torch._foreach_add_(total, gradients)
        else:
            total = list(gradients)
        losses.append(loss.detach())
    if len(losses) > 1:
        torch._foreach_div_(total, float(len(losses)))
    if settings.weight_decay:
        torch._foreach_add_(total, [p.detach() for p in parameters], alpha=settings.weight_decay)
    if steering.project is not None:
        total = space.split(steering.project(flat(total)))
    return total, float(torch.stack(losses).mean())


def flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """One copy of all values, in the tensors' order: (d,)."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def gradient_row(gradients: Sequence[torch.Tensor], layout: Layout) -> NDArray[Any]:
    """Flatten the parameters' gradients, in their order: (d,)."""
    row = np.empty(layout.d, layout.row_dtype)
    start = 0
    for gradient in gradients:
        flat = gradient.detach().reshape(-1).cpu().numpy()
        row[start : start + len(flat)] = flat
        start += len(flat)
    return row


def evaluate(
    model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, batch_size: int = 1000
) -> dict[str, float]:
    """Mean cross-entropy loss, top-1 and top-5 accuracy in [0, 1]."""
    model.eval()
    loss, top1, top5 = 0.0, 0, 0
    with torch.inference_mode():
        for start in range(0, len(y), batch_size):
            labels = y[start : start + batch_size]
            logits = model(x[start : start + batch_size])
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            top1 += int(best[:, 0].sum())
            top5 += int(best.any(dim=1).sum())
    return {"loss": loss / len(y), "accuracy": top1 / len(y), "top5": top5 / len(y)}


def _gradient_of(parameter: torch.nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _set_gradients(space: Workspace, row: torch.Tensor) -> None:
    for parameter, part in zip(space.parameters, space.split(row), strict=True):
        parameter.grad = part.clone()


def _make_optimizer(parameters: list[torch.nn.Parameter], settings: ClientSettings) -> torch.optim.Optimizer:
    make: Callable[..., torch.optim.Optimizer]
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, settings.lr, weight_decay=settings.weight_decay)
    make = torch.optim.SGD
    return make(parameters, settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def _clipped(gradients: Sequence[torch.Tensor], limit: float) -> tuple[torch.Tensor, ...]:
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    scale = torch.clamp(limit / (norm + 1e-6), max=1.0)
    return tuple(g * scale for g in gradients)
