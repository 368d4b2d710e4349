"""The ServerApp, for ``flower-simulation --app .``, ``flwr run .`` and deployments."""

import logging

from flwr.common import Context
from flwr.server import Grid
from flwr.serverapp import ServerApp

from byzflower.server.config import RunConfig
from byzflower.server.federation import Federation
from byzflower.server.recorder import Record, Recorder

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the configured federation on whatever nodes are connected; what was interrupted goes on."""
    log = logging.getLogger("flwr")
    config = RunConfig.from_flower(context.run_config)
    recorder = Recorder(config)
    if recorder.finished or not config.deployed:
        recorder.restart()

    nodes = config.nodes or (config.clients if config.deployed else 1)

    def report(record: Record) -> None:
        kept = "" if record.get("kept") is None else f", kept {record['kept']} of {record['clients']}"
        score = f", accuracy {record['accuracy']:.4f}" if "accuracy" in record else ""
        log.info("round %d/%d%s%s", record["round"], config.rounds, score, kept)

    outcome = Federation(config, nodes, recorder).run(grid, report)
    log.info("accuracy %.4f, results in %s", outcome.result["accuracy"], outcome.recorder.folder.resolve())
