"""The app's client, unchanged by byzflower."""

from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import Context

from digitsapp.task import accuracy, load_data, make_model, train
from digitsapp.weights import get_weights, set_weights


class DigitsClient(NumPyClient):
    """Trains on its own digits."""

    def __init__(self, partition: int, partitions: int) -> None:
        self.model = make_model()
        self.x, self.y = load_data(partition, partitions)

    def fit(self, parameters, config):
        """One round of local training."""
        set_weights(self.model, parameters)
        loss = train(self.model, self.x, self.y)
        return get_weights(self.model), len(self.y), {"loss": loss}

    def evaluate(self, parameters, config):
        """Score the global model."""
        set_weights(self.model, parameters)
        return 0.0, len(self.y), {"accuracy": accuracy(self.model, self.x, self.y)}


def client_fn(context: Context):
    """Make the client of a node."""
    config = context.node_config
    return DigitsClient(int(config["partition-id"]), int(config["num-partitions"])).to_client()


app = ClientApp(client_fn=client_fn)
