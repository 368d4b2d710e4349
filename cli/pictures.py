"""The pictures that a comparison leaves in its runs' folders."""

from collections.abc import Sequence
from pathlib import Path

from byzflower.cli.console import console, say
from byzflower.clients.data import training_data
from byzflower.datasets import class_counts
from byzflower.experiments.report.figures import ROUND_PICTURES, to_png, to_svg
from byzflower.experiments.report.plots import plot_accuracy, plot_partition, plot_similarity, write_partition
from byzflower.experiments.report.vulnerability import plot_popularity, vulnerability
from byzflower.server.config.recommendation import RecommendationConfig
from byzflower.server.config.tasks import Config
from byzflower.server.results import Record


def draw(configs: Sequence[Config], results: Sequence[Record], title: str) -> None:
    """Draw the scores over the rounds, what was observed of them, and the data; say where.

    Args:
        configs: of the runs.
        results: theirs.
        title: of the pictures.
    """
    first = configs[0]
    folders = [config.folder() for config in configs]
    names = [config.strategy for config in configs]
    histories = {name: result["history"] for name, result in zip(names, results, strict=True)}
    picture = plot_accuracy(histories, folders[-1] / "accuracy.png", title, first.metrics[0])
    for config, folder, result in zip(configs, folders, results, strict=True):
        _draw_rounds(folder, result, f"{title}, {config.strategy}")
        if (similarity := plot_similarity(folder, config.byzantine_ids())) is not None:
            say(f"similarity: {similarity}")
    files = [
        *(("results", folder) for folder in folders),
        ("plot", picture),
        *_about_data(first, folders[-1]),
    ]
    for what, path in files:
        say(f"{what}: {path}")


def _about_data(config: Config, folder: Path) -> list[tuple[str, Path]]:
    """Pictures and tables of the data that the clients had."""
    if isinstance(config, RecommendationConfig):
        report = vulnerability(config.feedback.train.popularity, config.num_byzantine())
        console.print(report.text(), soft_wrap=True)
        return [("popularity", plot_popularity(report, folder / "popularity.png"))]
    if config.recommends:
        return []
    dataset, parts = training_data(config.client_settings())
    counts, byzantine = class_counts(parts, dataset.train_y, dataset.num_classes), config.byzantine_ids()
    return [
        ("partition", plot_partition(counts, folder / "partition.png", byzantine)),
        ("partition", write_partition(counts, folder / "partition.csv", byzantine)),
    ]


def _draw_rounds(folder: Path, result: Record, title: str) -> None:
    """Draw the rounds that were to be laid out in the plane."""
    for name, draw in ROUND_PICTURES.items():
        if (figure := draw(result["history"], title, "black")) is not None:
            (folder / f"{name}.png").write_bytes(to_png(figure))
            (folder / f"{name}.svg").write_text(to_svg(figure), encoding="utf-8")
            path = folder / f"{name}.png"
            say(f"{name}: {path}, {name}.svg")
