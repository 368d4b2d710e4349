"""Cases drawn at random: each from its own generator, made of a seed and the case's number."""

import inspect
from collections.abc import Callable
from itertools import accumulate
from random import Random
from typing import Any

from byzflower.uploads.limits import MAX_NORM

from .cases import Case, Mutation
from .kinds import KINDS
from .mutations import EDITS, ID, SIZE, TRAINING
from .rules import ITEM_RULES, MOMENT_FILTERS, MOMENT_RULES, RULES, SLOW, can_contribute
from .world import node_ids

_VALUES = [
    *(float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1.0, -1.0, 1e-45, 1e-310, 1e3, -1e5, 65504.0),
    *(1e9, 1e15, -1e18, 1e19, -1e19, 1e25, -1e25, 1e30, 1e38, 3.4028234e38, -3.4e38, 1e154, 1e200, -1e300),
    1.7e308,
]
_NUMBERS: list[Any] = [
    *(0, -1, 1, 7, 10**9, 10**9 + 1, 10**15, 2**63, 2**64 - 1, -(2**63), 0.5, 1e-300, 5e-324, 1e308),
    *(float("nan"), float("inf"), float("-inf"), [], [1], [1, 2], [0.5], [float("nan")], None),
]
_TEXTS = [
    *("", " ", "w", "b", "rows", "values", "mask", "items", "splits", "dense", "touched", "x" * 300),
    *(
        "line\nbreak",
        "\r\n\x1b[31mred\x07",
        "nul\x00",
        "\u202eevil",
        "\u2028",
        "名前",
        "é",
        "<script>",
        "..//",
    ),
    *("arrays", "metrics", "config", "failed-clients", "client-id", "num-examples", "moments/m/w"),
    "\ud7ff" * 1000,
]
_HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 0), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f4', 'shape': (3,), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1, " * 60 + "), }",
    "__import__('os')" + " " * 5000,
    "",
]
_DTYPES = [">f4", "<f8", "<f2", "<i4", "<i8", "<c8", "|b1", "|u1", ">i4", ">i8", "<u8", "|S3", "<M8[s]"]
_SHAPES = [[], [0], [1], [9], [3], [2, 3], [3, 2], [1, 3], [6, 1], [1, 1, 6], [0, 2], [5, 9]]
_KEYS = [ID, SIZE, "loss"]
# In every coordinate of a tiny model, it makes a row about as long as any that a rule is ever given: longer
# ones are quarantined before.
_LONGEST = MAX_NORM / 4


class _Draw:
    """Arguments of one case's mutations."""

    def __init__(self, random: Random, case: Case) -> None:
        self.random, ids = random, node_ids(case)
        own = [*range(case.clients or case.nodes)]
        known = [*ids, *own]
        self.identities: list[Any] = [*known, *known, *_NUMBERS, 2**62, len(own), [0], [0, 1], own, [*own, 0]]
        self.failures = [*map(str, known), "-1", "0.5", "", "x", "²", str(2**64), "9" * 400, "00", " 1"]

    def argument(self, name: str) -> Any:
        """A value for the argument of this name."""
        draw = self.random
        choices: dict[str, Callable[[], Any]] = {
            "at": lambda: draw.choice((0, draw.randrange(8), draw.randrange(400), draw.randrange(10**6))),
            "array": lambda: draw.randrange(4),
            "client": lambda: draw.randrange(4),
            "bit": lambda: draw.randrange(8),
            "much": lambda: draw.randrange(3),
            "count": lambda: draw.choice((1, 3, 4, 8, 24, 100, 5000)),
            "value": lambda: draw.choice(_VALUES),
            "text": lambda: draw.choice(_TEXTS),
            "dtype": lambda: draw.choice(_DTYPES),
            "shape": lambda: draw.choice(_SHAPES),
            "number": lambda: draw.choice(_NUMBERS),
            "identity": lambda: draw.choice(self.identities),
            "keys": lambda: draw.sample(self.failures, draw.choice((1, 1, 2, 4, len(self.failures)))),
            "key": lambda: draw.choice(_KEYS),
            "part": lambda: draw.choice(("arrays", "metrics")),
            "code": lambda: draw.choice((0, 201, 204, 206, -1, 9999)),
        }
        return choices[name]()

    def mutation(self, server_round: int, node: int, what: str) -> Mutation:
        """One mutation with arguments."""
        arguments = {name: self.argument(name) for name in _ARGUMENTS[what]}
        if what == "header":
            arguments["text"] = self.random.choice(_HEADERS)
        return Mutation(server_round, node, what, arguments)


_ARGUMENTS = {
    name: [p for p in inspect.signature(function).parameters if p not in ("reply", "locals_")]
    for name, function in (TRAINING | EDITS).items()
}
# Values and ids are where the subtle faults are; what is plainly damaged is drawn less often.
_WEIGHTS = {
    **dict.fromkeys(_ARGUMENTS, 2),
    **dict.fromkeys(("update", "update_all", "value", "fill", "claim", "claim_at"), 8),
    **dict.fromkeys(("grow", "touch", "failed", "size", "size_at", "wire_flip"), 4),
    "absent": 1,
}
_WHAT, _CUMULATED = list(_WEIGHTS), list(accumulate(_WEIGHTS.values()))
# Clustering takes SafeSparse longer than everything else takes together.
_KINDS = [*[kind for kind in KINDS if kind != "safesparse"] * 2, "safesparse", "weights", "items"]
_MODELS = {
    "items": ["table", "table-dense"],
    "moments": ["plain", "norm", "double", "mixed", "table", "table-dense"],
    "rows": ["plain", "plain", "norm", "half", "double", "mixed", "table-dense"],
}


def draw_case(seed: int, number: int) -> Case:
    """The case of this number; one in sixteen is of `draw_extreme`."""
    random = Random(f"{seed}/{number}")
    if number % 16 == 15:
        return draw_extreme(random)
    case = _setting(random)
    draw = _Draw(random, case)
    hostile = random.sample(range(case.nodes), random.choice((1, 1, 1, 2, 2, min(3, case.nodes - 1))))
    mutations = []
    for _ in range(random.choice((1, 1, 2, 3, 4))):
        node = case.nodes if random.random() < 0.03 else random.choice(hostile)
        server_round = random.randint(1, case.rounds)
        if case.rounds > 1 and random.random() < 0.5:
            server_round = 1
        (what,) = random.choices(_WHAT, cum_weights=_CUMULATED)
        mutations.append(draw.mutation(server_round, node, what))
    return case.without(mutations=tuple(mutations))


def _setting(random: Random) -> Case:
    kind = random.choice(_KINDS)
    family = "moments" if "moments" in kind else "items" if kind == "items" else "rows"
    nodes = random.choice((2, 3, 3, 4, 4, 5, 5, 7))
    cohort = random.random() < 0.4
    options: dict[str, Any] = {}
    if family == "moments":
        rule, options = random.choice(MOMENT_RULES), {"filter": random.choice(MOMENT_FILTERS)}
    elif family == "items":
        rule = random.choice(ITEM_RULES)
        options = {"server_optimizer": "adam"} if random.random() < 0.25 else {}
    else:
        rule = random.choice(("fedavg", "median") * 5 + tuple(RULES))
        if kind == "safesparse":
            rule = "safesparse"
        elif (kind == "contributors" and not can_contribute(rule)) or (
            rule in SLOW and random.random() < 0.8
        ):
            rule = "median"
    return Case(
        kind,
        rule,
        random.choice(_MODELS[family]),
        nodes,
        rounds=random.choice((1,) * 10 + (2, 3, 3)),
        clients=random.randint(nodes, 9) if cohort else None,
        byzantine=random.choice((1, 1, 2)) if nodes >= 5 else random.choice((0, 1)),
        seed=random.randrange(2**32),
        large_ids=random.random() < 0.5,
        named=random.random() < 0.6,
        fraction=0.6 if random.random() < 0.15 else 1.0,
        options=options,
    )


def draw_extreme(random: Random) -> Case:
    """Extreme finite rows, in well-formed uploads, for any rule, pre-aggregation and precision."""
    rule = random.choice(RULES)
    f = random.choice((1, 1, 1, 2, 3))
    nodes = 4 * f + 3 + random.randrange(2)
    pre: list[str] = []
    if rule != "safesparse" and random.random() < 0.5:
        pre = random.choices(
            ("adaptiveclip", "bucketing", "clip", "nnm", "sparsify"), k=random.choice((1, 1, 2))
        )
    case = Case(
        random.choice(("weights", "gradient", "apply", "topk"))
        if not pre
        else random.choice(("weights", "apply")),
        rule,
        random.choice(("plain", "half", "double", "mixed")),
        nodes,
        rounds=random.choice((1, 1, 2)),
        byzantine=f,
        seed=random.randrange(2**32),
        pre=tuple(pre),
    )
    limit = 6e4 if case.model == "half" else _LONGEST if case.kind == "apply" else 1e308
    extremes = [v for v in (*_VALUES, _LONGEST, -_LONGEST) if abs(v) <= limit]
    many = nodes if random.random() < 0.1 else f
    mutations = []
    for node in random.sample(range(nodes), many):
        what = random.choice(("update", "update_all", "grow"))
        arguments = {"client": 0, "value": random.choice(extremes)}
        if what == "update":
            arguments["at"] = random.randrange(9)
        mutations.append(Mutation(1, node, what, arguments))
    return case.without(mutations=tuple(mutations))
