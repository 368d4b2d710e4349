"""The app's client, unchanged by byzflower."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digitsapp.task import accuracy, load_data, make_model, train

app = ClientApp()


def _own_data(context: Context):
    return load_data(int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))


@app.train()
def train_on_own_data(message: Message, context: Context) -> Message:
    """One round of local training."""
    model = make_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = _own_data(context)
    metrics = MetricRecord({"loss": train(model, x, y), "num-examples": len(y)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate_on_own_data(message: Message, context: Context) -> Message:
    """Score the global model."""
    model = make_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = _own_data(context)
    metrics = MetricRecord({"accuracy": accuracy(model, x, y), "num-examples": len(y)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
