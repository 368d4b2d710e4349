"""The project's strategies as the trial makes them, and what is promised of each."""

import inspect
from typing import Any

from byzflower.strategies import PRE_AGGREGATIONS, STRATEGIES, MomentsStrategy, RobustStrategy
from byzflower.strategies.items import ITEM_STRATEGIES

from .cases import Case
from .kinds import PACK_SIZE

RULES = [name for name, rule in STRATEGIES.items() if not issubclass(rule, MomentsStrategy)]
MOMENT_RULES = [name for name, rule in STRATEGIES.items() if issubclass(rule, MomentsStrategy)]
MOMENT_FILTERS = ["none", "none", "multikrum", "geometricmedian", "krum"]
ITEM_RULES = ["mean", "median", "mean", "median", *ITEM_STRATEGIES]
# They take more than a few milliseconds, however few rows there are.
SLOW = {"signguard", "smea", "lasa", "flguardian", "dnc", "caf", "mda", "aksel"}
# Rows of any length may enter these; FLGuardian counts in how many layers a row is ordinary.
_NOT_BOUNDED = {"fedavg", "fedsign", "robustdpfl", "flguardian"}
# The largest of several extreme rows hides the others from these.
_ONE_SCALE = {"dnc"}
# The fewest clients with f Byzantine ones; others need a majority of benign ones only.
_FEWEST = {
    "bulyan": lambda f: 4 * f + 3,
    **dict.fromkeys(("krum", "multikrum"), lambda f: 2 * f + 3),
    "flguardian": lambda f: 2,
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "fltrust": {
        "root_upload": lambda server_round, arrays: [array - array.dtype.type(0.25) for array in arrays]
    },
    "normclipping": {"max_norm": 3.0},
    "centeredclipping": {"tau": 3.0},
    "signmajority": {"step": 0.1},
}
_PRE_OPTIONS: dict[str, dict[str, Any]] = {"clip": {"max_norm": 2.0}, "sparsify": {"top_k": 0.5}}


def takes_f(rule: type[RobustStrategy]) -> bool:
    """Whether a rule asks for a number of Byzantine clients."""
    return "num_byzantine" in inspect.signature(rule.__init__).parameters


def can_contribute(name: str) -> bool:
    """Whether a rule can aggregate each pack over its contributors alone."""
    return name == "fedavg" or STRATEGIES[name].coordinate_wise


def make_strategy(case: Case) -> RobustStrategy:
    """The strategy of a case."""
    options: dict[str, Any] = {
        "num_clients": case.clients,
        "seed": case.seed,
        "fraction_train": case.fraction,
    }
    f = {"num_byzantine": case.byzantine}
    if case.kind == "items":
        item_rule = ITEM_STRATEGIES[case.rule]
        return item_rule(**options, **case.options, **(f if takes_f(item_rule) else {}))
    rule = STRATEGIES[case.rule]
    if issubclass(rule, MomentsStrategy):
        chosen = case.options["filter"]
        return rule(**f, filter=None if chosen == "none" else chosen, **options)
    if case.kind in ("weights", "gradient", "apply"):
        options["upload"] = "gradient" if case.kind == "gradient" else "weights"
    else:
        options |= {"upload": "topk", "pack_size": PACK_SIZE}
    if case.kind == "contributors":
        options["densify"] = "contributors"
    if case.pre:
        options["pre"] = [PRE_AGGREGATIONS[name](**_PRE_OPTIONS.get(name, {})) for name in case.pre]
        if not takes_f(rule):  # pre-aggregations that need it cannot ask the rule
            options["pre"] = [
                type(step)(**f) if "num_byzantine" in vars(step) else step for step in options["pre"]
            ]
    return rule(**_OPTIONS.get(case.rule, {}), **options, **(f if takes_f(rule) else {}))


def known_rule(case: Case) -> str:
    """The rule whose result the trial can compute by itself; "" if it cannot."""
    if "moments" in case.kind:
        return str(case.options["filter"])
    plain = not case.pre and case.options.get("server_optimizer", "sgd") == "sgd"
    return case.rule if plain and case.rule in ("fedavg", "mean", "median") else ""


def is_bounded(case: Case, n: int, hostile: int, weight: float = 0.0) -> bool:
    """Whether hostile uploads must not move the model farther than benign ones could.

    Args:
        case: with one row for every client; not where packs or items count by themselves.
        n: clients whose uploads were aggregated.
        hostile: those among them that are not benign.
        weight: their share of the sizes that clients claim, which the geometric median goes by.
    """
    f = case.byzantine
    if case.kind not in ("weights", "gradient", "topk", "apply") or case.rule in _NOT_BOUNDED:
        return False
    if set(case.pre) & {"bucketing", "sparsify"}:  # fewer rows, and others
        return False
    if case.rule == "geometricmedian" and weight > 0.4:
        return False
    if case.rule in _ONE_SCALE and hostile > 1:
        return False
    fewest = _FEWEST.get(case.rule, lambda f: 2 * f + 1)(f)
    return hostile <= f and 2 * hostile < n and n >= fewest
