"""Pictures are written, whatever the numbers, and without a display or pyplot."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from byzflower.experiments.report.plots import plot_accuracy, plot_partition

pytestmark = pytest.mark.filterwarnings("error")  # e.g. glyphs that the font lacks


def pixels(path):
    with Image.open(path) as picture:
        picture.verify()
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def counts_of(clients, classes=10):
    return np.random.default_rng(0).integers(0, 50, (clients, classes))


def history(*scores):
    return [{"round": i, "accuracy": score} for i, score in enumerate(scores)]


@pytest.mark.parametrize(
    "histories",
    [
        {"fedavg": history(0.1, 0.5, 0.9), "multikrum": history(0.1, 0.2, 0.3)},
        {"one round": history(0.5)},
        {"diverged": history(0.1, None, None), "never scored": [{"round": 0}]},
        {f"rule {i}": history(*np.linspace(0, 1, 300)) for i in range(12)},
    ],
)
def test_accuracies_are_drawn(histories, tmp_path):
    path = plot_accuracy(histories, tmp_path / "accuracy.png", "digits, 20 clients, 8 Byzantine ($ipm$_%)")
    assert path == tmp_path / "accuracy.png"
    assert len(np.unique(pixels(path).reshape(-1, 3), axis=0)) > 2


def test_higher_accuracies_are_drawn_higher(tmp_path):
    def height(score):
        picture = pixels(plot_accuracy({"rule": history(*[score] * 50)}, tmp_path / "a.png", "")).astype(int)
        blue = (picture[..., 2] - picture[..., 0]) > 100
        return blue.sum(axis=1).argmax()

    assert height(0.9) < height(0.5) < height(0.1)  # rows count from the top


@pytest.mark.parametrize(("clients", "byzantine"), [(1, 0), (1, 1), (20, 0), (20, 8), (200, 0), (200, 199)])
def test_partitions_are_drawn_with_the_byzantine_clients_marked(clients, byzantine, tmp_path):
    marked = frozenset(range(byzantine))
    path = plot_partition(counts_of(clients), tmp_path / "partition.png", marked)
    assert path == tmp_path / "partition.png"
    picture = pixels(path)
    crimson = (picture == (220, 20, 60)).all(axis=2)
    assert crimson.any() == bool(marked)


def test_more_samples_are_drawn_as_more_ink(tmp_path):
    def ink(counts):
        return (pixels(plot_partition(counts, tmp_path / "p.png")) < 200).any(axis=2).mean()

    full = np.full((20, 2), 50)
    half = full.copy()
    half[10:] = 1
    assert ink(half) < 0.75 * ink(full)


def test_clients_without_samples_do_no_harm(tmp_path):
    counts = counts_of(5)
    counts[[0, 3]] = 0
    pixels(plot_partition(counts, tmp_path / "partition.png", frozenset({0, 1})))


def test_thousands_of_clients_still_make_a_picture_that_can_be_looked_at(tmp_path):
    picture = pixels(plot_partition(counts_of(1500, 1), tmp_path / "partition.png"))
    assert picture.shape[1] < 20_000


def test_pyplot_is_never_imported(tmp_path):
    code = (
        "import sys, pathlib, numpy as np\n"
        "from byzflower.experiments.report.plots import plot_accuracy, plot_partition\n"
        "plot_accuracy({'a': [{'round': 1, 'accuracy': 0.5}]}, pathlib.Path('a.png'), 'a')\n"
        "plot_partition(np.ones((3, 2), int), pathlib.Path('b.png'), frozenset({0}))\n"
        "print('matplotlib.figure' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}
