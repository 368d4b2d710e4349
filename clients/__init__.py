"""NumPyClients, benign and Byzantine, alone or in cohorts, and the ClientApp that runs them."""

from typing import TYPE_CHECKING

from byzflower.plugins import export_lazily

if TYPE_CHECKING:
    from byzflower.clients.app import cohort_client_app, numpy_client_app
    from byzflower.clients.benign import BenignClient
    from byzflower.clients.byzantine import ByzantineClient
    from byzflower.clients.moments import MomentsClient
    from byzflower.clients.settings import ClientSettings
    from byzflower.clients.sparse import TopKClient

export_lazily(__name__)

__all__ = [
    "BenignClient",
    "ByzantineClient",
    "ClientSettings",
    "MomentsClient",
    "TopKClient",
    "cohort_client_app",
    "numpy_client_app",
]
