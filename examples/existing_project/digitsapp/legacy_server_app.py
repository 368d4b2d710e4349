"""The app's server: plain averaging, until a line is changed."""

import json
from pathlib import Path

from flwr.common import Context, ndarrays_to_parameters
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp

from digitsapp.task import accuracy, load_test_data, make_model
from digitsapp.weights import get_weights, set_weights


def server_fn(context: Context) -> ServerAppComponents:
    """Make the server's parts; every round, report the accuracy."""
    x, y = load_test_data()
    scores: list[float] = []

    def evaluate(server_round, parameters, config):
        model = make_model()
        set_weights(model, parameters)
        scores.append(accuracy(model, x, y))
        print("accuracy:", scores)
        if context.run_config["out"]:
            Path(str(context.run_config["out"])).write_text(json.dumps(scores))
        return 0.0, {"accuracy": scores[-1]}

    options = {
        "initial_parameters": ndarrays_to_parameters(get_weights(make_model())),
        "evaluate_fn": evaluate,
        "min_available_clients": 10,
        "min_fit_clients": 10,
    }
    strategy = FedAvg(**options)
    rounds = int(context.run_config["num-server-rounds"])
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))


app = ServerApp(server_fn=server_fn)
