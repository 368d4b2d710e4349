"""Run the catalogue of attacks against somebody's own Flower strategy."""

import copy
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flwr.common import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp.strategy import Strategy

from byzflower.attacks import ATTACKS, Need
from byzflower.clients.app import app as client_app
from byzflower.clients.data import training_data
from byzflower.clients.settings import SETTINGS
from byzflower.flower.compat import array_record, array_view
from byzflower.flower.text import error_text
from byzflower.models.build import build_model
from byzflower.numerics.randomness import seed_for
from byzflower.numerics.threads import one_thread
from byzflower.server.adversary.base import Adversary
from byzflower.server.config.checks import ConfigError
from byzflower.server.config.classification import RunConfig
from byzflower.server.engines.inline import InlineGrid
from byzflower.server.evaluation import ServerEvaluation

# Published defaults hide from a defence; these show whether there is one.
_BLUNT: list[tuple[str, str, dict[str, Any]]] = [
    ("ipm", "eps=10", {"eps": 10.0}),
    ("alie", "z=10", {"z": 10.0}),
]

MakeStrategy = Callable[[], Strategy]


@dataclass(frozen=True)
class Verdict:
    """What an attack did to a strategy.

    Attributes:
        attack: its name; "none" for the clean run.
        accuracy: final test accuracy, or None if the run ended with an error.
        error: that error.
        broken: whether more than the tolerated accuracy was lost.
    """

    attack: str
    accuracy: float | None
    error: str = ""
    broken: bool = False


def find_strategy(place: str) -> MakeStrategy:
    """Import ``module:name``: a strategy, a strategy class, or a function that makes one.

    Raises:
        ConfigError: it cannot be imported or is none of these.
    """
    module_name, _, name = place.partition(":")
    if not name:
        raise ConfigError(f"redteam: {place!r} is not of the form module:strategy")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"redteam: {place!r} cannot be imported: {error}") from None
    if isinstance(found, Strategy):
        return lambda: copy.deepcopy(found)
    if callable(found):
        return _checked(place, found)
    raise ConfigError(f"redteam: {place!r} is a {type(found).__name__}, not a Flower Message-API strategy")


def _checked(place: str, make: Callable[[], Any]) -> MakeStrategy:
    def strategy() -> Strategy:
        made = make()
        if not isinstance(made, Strategy):
            raise ConfigError(f"redteam: {place!r} made a {type(made).__name__}, not a Message-API strategy")
        return made

    return strategy


def catalogue() -> list[tuple[str, str, dict[str, Any]]]:
    """Label, attack and parameters: none, every attack as published, and blunt variants of some.

    Not those that poison an optimizer's moments, which an ordinary strategy does not send, nor those of other
    packages that cannot be loaded.
    """
    loaded = sorted(ATTACKS.keys() - ATTACKS.faults())
    names = [name for name in loaded if Need.ADAM not in ATTACKS[name].needs]
    published: list[tuple[str, str, dict[str, Any]]] = [(name, name, {}) for name in names]
    return [("none", "none", {}), *published, *((f"{name} {text}", name, own) for name, text, own in _BLUNT)]


def attack_all(
    make: MakeStrategy, config: RunConfig, tolerance: float, on_verdict: Callable[[Verdict], None]
) -> list[Verdict]:
    """Train without an attack, then under each one of the catalogue.

    Args:
        make: makes the strategy, anew for every run.
        config: data, model, clients and rounds; its attack and strategy are not looked at.
        tolerance: accuracy that an attack may cost before the strategy counts as broken.
        on_verdict: told of every run as it ends.
    """
    verdicts: list[Verdict] = []
    for label, attack, parameters in catalogue():
        options = {"attack": attack, "attack_options": parameters}
        verdict = _run(make, config.model_copy(update=options), label)
        clean = verdicts[0].accuracy if verdicts else None
        if clean is not None:
            lost = verdict.accuracy is None or clean - verdict.accuracy > tolerance
            verdict = Verdict(label, verdict.accuracy, verdict.error, lost)
        verdicts.append(verdict)
        on_verdict(verdict)
    return verdicts


def _run(make: MakeStrategy, config: RunConfig, attack: str) -> Verdict:
    strategy = make()
    if (collusive := config.collusive_attack()) is not None:
        strategy = Adversary(strategy, collusive, byzantine=config.byzantine_ids(), seed=config.seed)
    dataset, _ = training_data(config.client_settings())
    evaluate = ServerEvaluation(dataset, config.model)
    scores: list[float] = []

    def score(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        scores.append(evaluate([array_view(array) for array in arrays.values()])["accuracy"])
        return MetricRecord({"accuracy": scores[-1]})

    model = build_model(
        config.model, dataset.input_shape, dataset.num_classes, seed_for(config.seed, "model")
    )
    initial = array_record({name: t.numpy() for name, t in model.state_dict().items()})
    grid = InlineGrid(client_app, config.clients)
    settings = ConfigRecord({SETTINGS: json.dumps(config.client_settings().model_dump())})
    try:
        with one_thread():
            strategy.start(
                grid,
                initial,
                num_rounds=config.rounds,
                timeout=config.round_timeout,
                train_config=settings,
                evaluate_config=ConfigRecord(dict(settings)),
                evaluate_fn=score,
            )
    except Exception as error:  # whatever a user's strategy does with hostile input is the result
        return Verdict(attack, None, error_text(error, 200))
    finally:
        grid.close()
    return Verdict(attack, scores[-1])
