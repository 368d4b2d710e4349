"""The start of a run: the first global model, and how models are scored."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byzflower.clients.data import training_data
from byzflower.clients.recommender.moments import divided_feedback, recommender_of, set_tables
from byzflower.models.build import build_model, build_stateless
from byzflower.numerics.randomness import seed_for
from byzflower.server.config.classification import RunConfig
from byzflower.server.evaluation import ServerEvaluation
from byzflower.server.recommender_evaluation import rank_all_items

Evaluate = Callable[[Sequence[NDArray[Any]]], dict[str, float]]


class Beginning(NamedTuple):
    """The start of a run.

    Attributes:
        arrays: the first global model, by name.
        evaluate: scores a model's arrays.
    """

    arrays: dict[str, NDArray[Any]]
    evaluate: Evaluate


def beginning(config: RunConfig) -> Beginning:
    """Make the first model and load what to score models on."""
    model, evaluate = (_recommender if config.recommends else _classifier)(config)
    return Beginning({name: t.numpy() for name, t in model.state_dict().items()}, evaluate)


def _classifier(config: RunConfig) -> tuple[Any, Evaluate]:
    dataset, _ = training_data(config.client_settings())
    seed = seed_for(config.seed, "model")
    model = build_model(config.model, dataset.input_shape, dataset.num_classes, seed, config.model_options)
    return model, ServerEvaluation(dataset, config.model, options=config.model_options)


def _recommender(config: RunConfig) -> tuple[Any, Evaluate]:
    """Users are scored by those of their items that were held back; Byzantine ones are not asked."""
    settings = config.client_settings()
    train, test = divided_feedback(settings)
    model = build_stateless(
        config.model, train.num_items, seed_for(config.seed, "model"), config.model_options
    )
    benign = np.array(sorted(set(range(config.clients)) - settings.byzantine_ids()))

    def evaluate(arrays: Sequence[NDArray[Any]]) -> dict[str, float]:
        scorer = recommender_of(settings, train.num_items)
        set_tables(scorer, arrays)
        return rank_all_items(scorer, train, test, benign)

    return model, evaluate
