"""One case of the trial: a run of a few rounds as plain data, drawn from a seed and a number."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Mutation:
    """One thing that one node does otherwise than a benign one.

    Attributes:
        round: from 1.
        node: its position; the number of nodes is a stranger that nobody asked.
        what: name of the mutation, see `mutations`.
        args: its arguments.
    """

    round: int
    node: int
    what: str
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A run against one strategy.

    Attributes:
        kind: name of the upload kind, see `kinds`.
        rule: name of the rule; for moments that of the optimizer's strategy.
        model: name of the model, see `models`.
        nodes: how many there are.
        rounds: how many are run.
        clients: of how many logical clients the nodes host cohorts; None if each is one client.
        byzantine: f, as the rule is told.
        seed: of what benign clients send, and of the nodes' ids.
        large_ids: nodes have ids of 64 bits, as real ones do, not 101, 102, 103.
        named: nodes that are one client name themselves 0, 1, 2.
        fraction: of the nodes or clients that are asked.
        pre: names of pre-aggregations.
        options: more options of the strategy.
        mutations: what hostile, or unlucky, nodes do.
    """

    kind: str
    rule: str
    model: str
    nodes: int
    rounds: int = 1
    clients: int | None = None
    byzantine: int = 1
    seed: int = 0
    large_ids: bool = False
    named: bool = True
    fraction: float = 1.0
    pre: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    mutations: tuple[Mutation, ...] = ()

    def without(self, **changes: Any) -> "Case":
        """A copy with other values."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """As text, without what is as by default."""
        plain = {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if item.name in ("kind", "rule", "model", "nodes")
            or getattr(self, item.name) not in (item.default, (), {})
        }
        plain["mutations"] = [dataclasses.asdict(mutation) for mutation in self.mutations]
        return json.dumps(plain, indent=1)

    @staticmethod
    def from_json(text: str) -> "Case":
        """Read what `to_json` wrote."""
        plain = json.loads(text)
        plain["mutations"] = tuple(Mutation(**mutation) for mutation in plain.get("mutations", ()))
        plain["pre"] = tuple(plain.get("pre", ()))
        return Case(**plain)


def kept_cases() -> dict[str, Case]:
    """The cases that once failed, by their names."""
    return {path.stem: Case.from_json(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
