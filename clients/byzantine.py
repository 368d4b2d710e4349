"""A client that attacks with what it knows by itself."""

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
)
from byzflower.clients.benign import BenignClient
from byzflower.clients.settings import ClientSettings
from byzflower.clients.trainer import Batch
from byzflower.numerics.randomness import torch_generator
from byzflower.uploads.kind import UploadKind
from byzflower.uploads.layout import Layout


class ByzantineClient(BenignClient):
    """Runs DATA and LOCAL attacks itself; for the others the adversary overwrites its upload.

    Under a COLLUDING attack it trains like a benign client, since the adversary needs its benign update.
    Under an OMNISCIENT one its own update would be thrown away, so it sends the model back as it came.
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
        """Whether a LOCAL attack acts this round."""
        return isinstance(self.attack, LocalAttack) and self.attack.active(server_round)

    def corrupt(
        self, gradient: NDArray[Any], state: NDArray[Any], layout: Layout, server_round: int
    ) -> NDArray[Any]:
        """Apply a LOCAL attack to the benign pseudo-gradient."""
        if not isinstance(self.attack, LocalAttack):
            return gradient
        view = LocalView(
            gradient=torch.from_numpy(gradient),
            model=torch.from_numpy(state[0]),
            tensors=tuple(TensorColumns(*tensor) for tensor in layout.parameters),
            generator=torch_generator(self.settings.seed, "attack", server_round, self.client_id),
            moments=torch.from_numpy(state[1:]),
        )
        corrupted: NDArray[Any] = self.attack.corrupt(view).numpy()
        return corrupted

    def _learn(self, parameters: NDArrays, server_round: int, kind: UploadKind) -> tuple[NDArrays, float]:
        if self._is_overwritten(server_round):
            model = parameters[: len(self._space().layout.names)]
            return [np.zeros_like(p) for p in model] if kind.learned == "gradient" else model, 0.0
        return super()._learn(parameters, server_round, kind)

    def _is_overwritten(self, server_round: int) -> bool:
        return (
            isinstance(self.attack, CollusiveAttack)
            and self.attack.knowledge is Knowledge.OMNISCIENT
            and self.attack.active(server_round)
        )
