"""A ClientApp that does each round what its node was told to: `behaviours="honest,NaN,raises"`."""

from flwr.clientapp import ClientApp
from flwr.common import Context, Message

from wireapp.behaviours import BEHAVIOURS, SPARSE, honest, sent

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    server_round = message.content["config"]["server-round"]
    script = str(context.node_config.get("behaviours", "")).split(",")
    name = script[server_round - 1] if server_round <= len(script) else ""
    hostile = {**BEHAVIOURS, **SPARSE}
    usual = sent() if message.content["config"].get("upload") == "topk" else honest
    behave = hostile[name][0] if name in hostile else usual
    return Message(behave(message, context), reply_to=message)
