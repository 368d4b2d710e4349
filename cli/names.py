"""All names, with a line about each: ``run_sim.py --list``."""

from typing import Any

from rich.table import Table
from rich.text import Text

from byzflower.attacks import ATTACKS, MASK_ATTACKS
from byzflower.attacks.items import ITEM_ATTACKS
from byzflower.cli.console import complain, console
from byzflower.datasets import DATASETS, FEEDBACK
from byzflower.flower.text import plain
from byzflower.models import MODELS, PERSONAL, STATELESS
from byzflower.plugins import PluginError, Registry
from byzflower.strategies import PRE_AGGREGATIONS, STRATEGIES
from byzflower.strategies.items import ITEM_STRATEGIES

_REGISTRIES: dict[str, Registry[Any]] = {
    "strategies": STRATEGIES,
    "pre-aggregations": PRE_AGGREGATIONS,
    "attacks": ATTACKS,
    "mask attacks": MASK_ATTACKS,
    "datasets": DATASETS,
    "datasets of recommenders": FEEDBACK,
    "models": MODELS,
    "models of recommenders (strategies arfrs, srfrs, agrfrs, rrfrs)": STATELESS,
    "models (--task recommendation)": PERSONAL,
    "strategies (--task recommendation)": ITEM_STRATEGIES,
    "attacks (--task recommendation)": ITEM_ATTACKS,
}


def list_names() -> None:
    """Print every name of every registry; what cannot be loaded is named last."""
    faults = []
    for kind, registry in _REGISTRIES.items():
        table = Table(title=kind, title_justify="left", show_header=False, box=None)
        for name in sorted(registry):
            try:
                table.add_row(Text(name, "bold"), plain(registry.summary(name)))
            except PluginError as error:
                faults.append(str(error))
        console.print(table)
    for fault in faults:
        complain(fault)
