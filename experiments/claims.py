"""Whether results show what a recipe claims."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from byzflower.experiments.recipe import SEED, Claim
from byzflower.experiments.report.results import Report, Statistic

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Verdict:
    """A claim at one place.

    Attributes:
        place: the labels that both sides share.
        lower: the side that is claimed to be lower.
        than: the lowest of the others.
        against: the labels of that other.
        holds: whether the means differ as claimed.
        seeds: on how many seeds the claim holds by itself ...
        of: ... of how many.
    """

    place: dict[str, str]
    lower: Statistic
    than: Statistic
    against: dict[str, str]
    holds: bool
    seeds: int
    of: int

    def __str__(self) -> str:
        place = ", ".join(self.place.values())
        word = "does not hold"
        if self.holds:
            word = "holds" if self.seeds == self.of else "holds on average only"
        against = f"{self.than} ({', '.join(self.against.values())})"
        seeds = f"; seed by seed in {self.seeds} of {self.of}" if self.of > 1 else ""
        return f"{f'{place}: ' if place else ''}{word}: {self.lower} against {against}{seeds}"


def verdicts(report: Report, claim: Claim) -> list[Verdict]:
    """Judge a claim by the means over seeds, wherever there are results of both sides."""
    lower = {axis: str(label) for axis, label in claim.lower.items()}
    judged = []
    for place in _places(report, claim):
        one = _by_seed(report, {**place, **lower})
        others = [(own, _by_seed(report, {**place, **own})) for own in _others(report, claim, lower)]
        others = [(own, values) for own, values in others if values]
        if one and others:
            judged.append(_judge(place, one, others, claim.by))
    return judged


def _judge(
    place: Labels,
    one: Mapping[str, float],
    others: Sequence[tuple[dict[str, str], Mapping[str, float]]],
    by: float,
) -> Verdict:
    lower = Statistic.of(list(one.values()))
    against, values = min(others, key=lambda other: Statistic.of(list(other[1].values())).mean)
    than = Statistic.of(list(values.values()))
    seeds = [seed for seed in one if all(seed in values for _, values in others)]
    alone = sum(one[seed] + by < min(values[seed] for _, values in others) for seed in seeds)
    return Verdict(dict(place), lower, than, against, lower.mean + by < than.mean, alone, len(seeds))


def _places(report: Report, claim: Claim) -> Iterator[dict[str, str]]:
    """Every combination of the axes that `lower` does not name, as far as `where` lets them be."""
    axes = {axis: labels for axis, labels in report.axes.items() if axis not in claim.lower and axis != SEED}
    for axis, wanted in claim.where.items():
        axes[axis] = [label for label in axes[axis] if label in _strings(wanted)]
    for labels in product(*axes.values()):
        yield dict(zip(axes, labels, strict=True))


def _others(report: Report, claim: Claim, lower: dict[str, str]) -> Iterator[dict[str, str]]:
    """The labels to compare with."""
    if claim.than:
        choices = {axis: _strings(claim.than.get(axis, label)) for axis, label in lower.items()}
    else:
        choices = {axis: report.axes[axis] for axis in lower}
    for labels in product(*choices.values()):
        own = dict(zip(choices, labels, strict=True))
        if own != lower:
            yield own


def _by_seed(report: Report, labels: Labels) -> dict[str, float]:
    """Seed -> the metric, of runs that have one."""
    found = {run.labels.get(SEED, ""): run.value(report.recipe.metric) for run in report.shown(labels)}
    return {seed: value for seed, value in found.items() if value is not None}


def _strings(labels: object) -> list[str]:
    return [str(label) for label in (labels if isinstance(labels, list) else [labels])]
