"""The ServerApp, for ``flower-simulation --app .``, ``flwr run .`` and deployments."""

import logging

from flwr.common import Context
from flwr.server import Grid
from flwr.serverapp import ServerApp

from byzflower.server.config.tasks import config_from_flower
from byzflower.server.federation import federation
from byzflower.server.recorder import Recorder
from byzflower.server.results import Record

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the configured federation on whatever nodes are connected; what was interrupted goes on."""
    log = logging.getLogger("flwr")
    config = config_from_flower(context.run_config)
    recorder = Recorder(config)
    nodes = config.nodes or (config.clients if config.deployed else 1)
    metric = config.metrics[0]

    def report(record: Record) -> None:
        kept = "" if record.get("kept") is None else f", kept {record['kept']} of {record['clients']}"
        score = f", {metric} {record[metric]:.4f}" if metric in record else ""
        log.info("round %d/%d%s%s", record["round"], config.rounds, score, kept)

    with recorder.alone():
        if recorder.finished or not config.deployed:
            recorder.restart()
        outcome = federation(config, nodes, recorder).run(grid, report)
    log.info("%s %.4f, results in %s", metric, outcome.result[metric], outcome.recorder.folder.resolve())
