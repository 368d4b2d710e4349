"""Whether the parts of a configuration go together: their parameters are looked at, then they are tried."""

import numpy as np
import torch

from byzflower.attacks import (
    ATTACKS,
    MASK_ATTACKS,
    Attack,
    AttackView,
    CollusiveAttack,
    Knowledge,
    Need,
    TensorColumns,
)
from byzflower.models import MODELS, STATELESS
from byzflower.server.config.checks import unknown_options, unmet_needs
from byzflower.server.config.classification import RunConfig, parse_calls
from byzflower.strategies import ARFRS, PRE_AGGREGATIONS, STRATEGIES, MomentsStrategy, TooFewClients
from byzflower.uploads.registry import UPLOADS


def faults(config: RunConfig) -> list[str]:
    """What is wrong with a configuration whose names are all known."""
    wrong = [*_wrong_parameters(config), *_mismatches(config)]
    return wrong or [*_attack_faults(config), *_rule_faults(config)]


def _wrong_parameters(config: RunConfig) -> list[str]:
    models = STATELESS if config.recommends else MODELS
    masks = MASK_ATTACKS.get(config.mask_attack)
    return [
        *(
            f"pre: {fault}"
            for name, options in parse_calls(config.pre)
            for fault in unknown_options(name, PRE_AGGREGATIONS[name], options)
        ),
        *unknown_options("attack-options", ATTACKS.get(config.attack), config.attack_options),
        *unknown_options("mask-attack-options", masks, config.mask_attack_options),
        *unknown_options("model-options", models[config.model], config.model_options),
        *unknown_options("upload-options", UPLOADS[config.upload], config.upload_options),
        *unknown_options("strategy-options", STRATEGIES[config.strategy], config.strategy_options),
    ]


def _mismatches(config: RunConfig) -> list[str]:
    """Data set, strategy and attack that do not go together."""
    mistakes = []
    strategy = STRATEGIES[config.strategy]
    if config.recommends and not issubclass(strategy, MomentsStrategy):
        mistakes.append(f"data set {config.dataset} needs a strategy that keeps moments, as arfrs")
    offers = config.offers | ({Need.ADAM} if issubclass(strategy, ARFRS) else frozenset())
    return mistakes + unmet_needs(config.attack, ATTACKS.get(config.attack, Attack), offers)


def _attack_faults(config: RunConfig) -> list[str]:
    """Try the attack on as many (tiny) uploads as a full round brings."""
    n = config.clients_per_round
    f = round(n * config.byzantine / config.clients)
    try:
        config.make_upload()
    except ValueError as error:
        return [f"upload-options: {error}"]
    try:
        config.make_mask_attack()
    except ValueError as error:
        return [f"mask-attack-options: {error}"]
    try:
        attack = config.make_attack()
        if isinstance(attack, CollusiveAttack) and f:
            colluding = attack.knowledge is Knowledge.COLLUDING
            known = not colluding and config.strategy_options.get("inspect") != "parameters"
            attack.craft(
                AttackView(
                    benign=torch.zeros(f if colluding else n - f, 1),
                    num_byzantine=f,
                    num_clients=n,
                    previous_aggregate=None,
                    round=1,
                    generator=torch.Generator(),
                    tensors=(TensorColumns("weight", (1, 1), slice(0, 1)),),
                    aggregate=(lambda crafted: crafted[0]) if known else None,
                )
            )
    except (TypeError, ValueError) as error:
        return [f"attack-options: {error}"]
    return []


def _rule_faults(config: RunConfig) -> list[str]:
    """Try the rule on as many (tiny) uploads as a full round brings."""
    n = config.clients_per_round
    try:
        config.make_pre()
    except (TypeError, ValueError) as error:
        return [f"pre: {error}"]
    try:
        rule = config.make_strategy(root_upload=lambda server_round, arrays: arrays)
        rule.set_global(1, {"weight": np.zeros(1, np.float32)})
        rule.apply(torch.zeros(n, 1), torch.full((n,), 1 / n, dtype=torch.float64))
    except TooFewClients as error:
        return [f"strategy {config.strategy}: {error}"]
    except (TypeError, ValueError) as error:
        return [f"strategy-options: {error}"]
    return []
