"""A client that attacks with what it knows by itself."""

from functools import partial
from typing import Any

import numpy as np
import torch
from flwr.common import NDArrays, RecordDict
from numpy.typing import NDArray

from byzflower.attacks import (
    Attack,
    CollusiveAttack,
    DataAttack,
    Knowledge,
    LocalAttack,
    LocalView,
    TensorColumns,
    TrainingAttack,
    TrainingView,
)
from byzflower.clients.benign import BenignClient
from byzflower.clients.memory import attack_memory
from byzflower.clients.settings import ClientSettings
from byzflower.clients.steering import SteeredTraining
from byzflower.clients.trainer import Batch
from byzflower.numerics.randomness import torch_generator
from byzflower.uploads.kind import UploadKind
from byzflower.uploads.layout import Layout


class ByzantineClient(BenignClient):
    """Runs DATA and LOCAL attacks itself; for the others the adversary overwrites its upload.

    Under a COLLUDING attack it trains as a benign client, for the adversary needs what it learned. Under an
    OMNISCIENT one its own update would be thrown away, so it sends the model back as it came.
    """

    def __init__(
        self, client_id: int, settings: ClientSettings, attack: Attack, state: RecordDict | None = None
    ):
        """Make the client; see `BenignClient`.

        Args:
            client_id: logical id.
            settings: data, model and training.
            attack: what it does within its window.
            state: `Context.state` of the node.
        """
        super().__init__(client_id, settings, state)
        self.attack = attack

    def poison(self, batch: Batch, server_round: int) -> Batch:
        """Apply a DATA attack to a training batch."""
        if isinstance(self.attack, DataAttack) and self.attack.active(server_round):
            return self.attack.poison(*batch, self.dataset.num_classes)
        return batch

    def corrupts(self, server_round: int) -> bool:
        """Whether a LOCAL attack acts on the update this round."""
        return isinstance(self.attack, LocalAttack) and self.attack.active(server_round)

    def corrupt(
        self, gradient: NDArray[Any], state: NDArray[Any], layout: Layout, server_round: int
    ) -> NDArray[Any]:
        """Apply a LOCAL attack to the pseudo-gradient of a benign client."""
        if not isinstance(self.attack, LocalAttack):
            return gradient
        view = LocalView(
            gradient=torch.from_numpy(gradient),
            model=torch.from_numpy(state[0]),
            tensors=_tensors(layout),
            generator=self._randomness(server_round),
            moments=torch.from_numpy(state[1:]),
        )
        corrupted: NDArray[Any] = self.attack.corrupt(view).numpy()
        return corrupted

    def _learn(self, parameters: NDArrays, server_round: int, kind: UploadKind) -> tuple[NDArrays, float]:
        if not self.attack.active(server_round):
            return super()._learn(parameters, server_round, kind)
        if isinstance(self.attack, TrainingAttack):
            return self._train(self.attack, parameters, server_round, kind)
        if isinstance(self.attack, CollusiveAttack) and self.attack.knowledge is Knowledge.OMNISCIENT:
            return self._nothing(parameters, kind), 0.0
        return super()._learn(parameters, server_round, kind)

    def _train(
        self, attack: TrainingAttack, parameters: NDArrays, server_round: int, kind: UploadKind
    ) -> tuple[NDArrays, float]:
        """Let an attack train."""
        space = self._space()
        layout, model = space.layout, parameters[: len(space.layout.names)]
        training = SteeredTraining(space, model, self.settings, kind.learned)
        state = torch.from_numpy(np.array(kind.state(layout, parameters))).to(self.device)
        with attack_memory(self.state, self.client_id, self.device) as memory:
            view = TrainingView(
                round=server_round,
                client=self.client_id,
                model=state[0],
                moments=state[1:],
                tensors=_tensors(layout),
                generator=self._randomness(server_round),
                memory=memory,
                batches=partial(self._batches, server_round),
                gradient=training.gradient,
                fit=training.fit,
                logits=training.logits,
            )
            gradient = attack.train(view)
        row = np.concatenate([gradient.detach().cpu().numpy(), self._buffers(space, model, kind)])
        return layout.arrays(layout.row(model) - row if kind.learned == "model" else row), training.loss

    def _nothing(self, parameters: NDArrays, kind: UploadKind) -> NDArrays:
        """The model as it came, or a gradient of 0."""
        layout = self._space().layout
        model = parameters[: len(layout.names)]
        if kind.learned == "model":
            return model
        row = np.zeros(layout.width, layout.row_dtype)
        if kind.own_buffers:
            row[layout.d :] = layout.row(model)[layout.d :]
        return layout.arrays(row)

    def _randomness(self, server_round: int) -> torch.Generator:
        return torch_generator(self.settings.seed, "attack", server_round, self.client_id)


def _tensors(layout: Layout) -> tuple[TensorColumns, ...]:
    return tuple(TensorColumns(*tensor) for tensor in layout.parameters)
