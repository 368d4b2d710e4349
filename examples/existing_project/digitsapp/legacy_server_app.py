"""The app's server: plain averaging, until a line is changed."""

from flwr.common import Context, ndarrays_to_parameters
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp

from digitsapp.task import accuracy, load_test_data, make_model
from digitsapp.weights import get_weights, set_weights


def server_fn(context: Context) -> ServerAppComponents:
    """Make the server's parts; every round reports its accuracy."""
    x, y = load_test_data()

    def evaluate(server_round, parameters, config):
        model = make_model()
        set_weights(model, parameters)
        score = accuracy(model, x, y)
        print("accuracy:", score)
        return 0.0, {"accuracy": score}

    options = {
        "initial_parameters": ndarrays_to_parameters(get_weights(make_model())),
        "evaluate_fn": evaluate,
        "min_available_clients": 10,
        "min_fit_clients": 10,
    }
    strategy = FedAvg(**options)
    rounds = int(context.run_config.get("num-server-rounds", 3))
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))


app = ServerApp(server_fn=server_fn)
