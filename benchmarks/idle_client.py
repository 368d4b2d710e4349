"""Clients that send a constant back. A module of its own: Ray's workers import it by name."""

from typing import Any

import numpy as np
from flwr.client import NumPyClient

from byzflower.clients import cohort_client_app

FLOATS = 125_000
_UPDATE = np.ones(FLOATS, np.float32)


class Idle(NumPyClient):
    """All that is measured is the engine and the server."""

    def fit(self, parameters: Any, config: Any) -> tuple[list[np.ndarray], int, dict[str, Any]]:
        """Return an upload of the model's size."""
        return [_UPDATE], 1, {}


client_app = cohort_client_app(lambda client, config, context: Idle())
