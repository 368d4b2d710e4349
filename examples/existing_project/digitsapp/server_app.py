"""The app's server: plain averaging, until a line is changed."""

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digitsapp.task import accuracy, load_test_data, make_model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds and report the accuracy."""
    strategy = FedAvg(min_available_nodes=10)
    x, y = load_test_data()

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model = make_model()
        model.load_state_dict(arrays.to_torch_state_dict())
        return MetricRecord({"accuracy": accuracy(model, x, y)})

    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(make_model().state_dict()),
        num_rounds=int(context.run_config.get("num-server-rounds", 3)),
        evaluate_fn=evaluate,
    )
    for metrics in result.evaluate_metrics_serverapp.values():
        print("accuracy:", metrics["accuracy"])
