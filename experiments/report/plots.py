"""Pictures of runs and partitions."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from byzflower.experiments.report import escape
from byzflower.server.adversary.diagnostics import Similarity
from byzflower.server.results import Record


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own: pyplot's global state, and any display, stay untouched."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plot_accuracy(
    histories: Mapping[str, Sequence[Record]], path: Path, title: str, metric: str = "accuracy"
) -> Path:
    """Draw a score in [0, 1] over rounds, one line per name; returns the picture's path."""
    figure = new_figure(7, 4)
    axes = figure.add_subplot()
    for name, history in histories.items():
        scored = [record for record in history if record.get(metric) is not None]
        rounds, scores = [r["round"] for r in scored], [r[metric] for r in scored]
        axes.plot(rounds, scores, marker="o", markersize=3, label=escape.label(name))
    score = escape.label(f"test {metric}")
    axes.set(xlabel="round", ylabel=score, ylim=(0, 1), title=escape.label(title))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    return path


def plot_partition(counts: NDArray[np.int64], path: Path, byzantine: frozenset[int] = frozenset()) -> Path:
    """Draw how many samples of each class every client has; Byzantine clients are marked.

    Args:
        counts: (num_clients, num_classes).
        path: of the picture.
        byzantine: ids to mark.
    """
    figure = new_figure(min(max(6.0, 0.22 * len(counts)), 50.0), 4)
    axes = figure.add_subplot()
    clients: Any = np.arange(len(counts))
    bottom = np.zeros(len(counts))
    for label in range(counts.shape[1]):
        axes.bar(clients, counts[:, label], bottom=bottom, width=0.85, label=str(label))
        bottom += counts[:, label]
    for client in sorted(byzantine):
        axes.text(client, bottom[client], "✕", ha="center", va="bottom", color="crimson")
    marked = " (✕: Byzantine)" if byzantine else ""
    axes.set(xlabel="client" + marked, ylabel="training samples")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(title="class", ncols=2, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=150)
    return path


def write_partition(counts: NDArray[np.int64], path: Path, byzantine: frozenset[int] = frozenset()) -> Path:
    """Write the same as a CSV table: a row per client, a column per class."""
    classes = [f"class {label}" for label in range(counts.shape[1])]
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["client", "byzantine", "samples", *classes])
        for client, row in enumerate(counts.tolist()):
            table.writerow([client, int(client in byzantine), sum(row), *row])
    return path


def plot_similarity(folder: Path, byzantine: frozenset[int]) -> Path | None:
    """Draw how alike masks and signs of a run's last sparse uploads were (SafeSparse, figures 3 and 4).

    Args:
        folder: of the run; similarity.png is written beside the numbers.
        byzantine: ids that come first, with a line after them.

    Returns:
        The picture's path; None where the run measured nothing of the kind.
    """
    similarity = Similarity.load(folder)
    if similarity is None:
        return None
    panels = {"jaccard": similarity.jaccard, "sign-cosine": similarity.cosine}
    ids = similarity.clients
    order = sorted(range(len(ids)), key=lambda i: (ids[i] not in byzantine, ids[i]))
    attackers = sum(client in byzantine for client in ids)
    figure = new_figure(10, 4.4)
    for axes, (name, values) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        others = values[~np.eye(len(ids), dtype=bool)]
        image = axes.imshow(
            values[np.ix_(order, order)], vmin=others.min(initial=1), vmax=others.max(initial=0)
        )
        figure.colorbar(image, ax=axes)
        if 0 < attackers < len(ids):
            axes.axhline(attackers - 0.5, color="white", linewidth=1)
            axes.axvline(attackers - 0.5, color="white", linewidth=1)
        if len(ids) <= 40:
            axes.set_xticks(range(len(ids)), [str(ids[i]) for i in order], fontsize="xx-small")
            axes.set_yticks(range(len(ids)), [str(ids[i]) for i in order], fontsize="xx-small")
        axes.set(title=name, xlabel="client" + (" (Byzantine first)" if attackers else ""))
    figure.savefig(folder / "similarity.png", dpi=150)
    return folder / "similarity.png"
