"""A ServerApp as in an existing project, which writes down what each round did to whom."""

import json
from pathlib import Path

import numpy as np
from flwr.common import Array, ArrayRecord, ConfigRecord, Context
from flwr.server import Grid
from flwr.serverapp import ServerApp

from byzflower.strategies import Median
from wireapp.behaviours import PACK_SIZE

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    options = context.run_config
    record = Path(str(options["record"]))
    strategy = Median(
        min_available_nodes=options["nodes"],
        min_train_nodes=1,
        fraction_evaluate=0.0,
        max_round_bytes=options["max-round-bytes"],
        upload=options["upload"],
        pack_size=PACK_SIZE,
    )

    def write(server_round, arrays):
        last = strategy.last_round
        line = {
            "round": server_round,
            "clients": last.clients,
            "rejections": last.rejections,
            "skipped": last.skipped,
            "b": arrays["b"].numpy().tolist(),
        }
        with record.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if server_round:  # whoever came late counts from now on; who is gone is not waited for
            strategy.min_available_nodes = 1

    strategy.start(
        grid,
        ArrayRecord({"w": Array(np.zeros((2, 3), np.float32)), "b": Array(np.zeros(3, np.float32))}),
        num_rounds=options["rounds"],
        timeout=options["timeout"],
        train_config=ConfigRecord({}),
        evaluate_fn=write,
    )
