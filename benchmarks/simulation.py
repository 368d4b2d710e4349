"""Whole rounds of the same job side by side: byzfl's simulator, the inline engine, and Ray with cohorts.

20 clients of which 4 run ALIE, TrimmedMean(f=4), one local batch of 32 MNIST images, local momentum
0.9, FedSGD. Both sides read the same standardised images; byzfl's transforms are left out, in its favour.

    pip install -c constraints.txt ".[benchmark]"
    python benchmarks/simulation.py --data FOLDER_WITH_MNIST
"""

import argparse
import statistics
import tempfile
import time

import torch

from byzflower.datasets import load_dataset
from byzflower.datasets.torchvision_guard import import_torchvision
from byzflower.server.config.classification import RunConfig
from byzflower.server.engines.simulation import simulate

N, F, BATCH, MOMENTUM, LR = 20, 4, 32, 0.9, 0.1
MODELS = {"mlp": "fc_mnist", "cnn": "cnn_mnist"}
WARM_UP = 20


def byzfl_rate(model: str, data: str, rounds: int) -> float:
    """Rounds per second of byzfl's own loop (its DSGD training loop without evaluation and files)."""
    import_torchvision()  # byzfl imports it, and needs the guard beside a CPU-only torch
    from byzfl import ByzantineClient, Client, DataDistributor, Server

    x, y = load_dataset("mnist", data).train(slice(None))
    images = torch.utils.data.TensorDataset(x, y)
    images.targets = y
    parts = DataDistributor(
        {
            "data_distribution_name": "iid",
            "distribution_parameter": 1.0,
            "nb_honest": N - F,
            "data_loader": torch.utils.data.Subset(images, list(range(len(y)))),
            "batch_size": BATCH,
        }
    ).split_data()
    common = {
        "model_name": MODELS[model],
        "device": "cpu",
        "optimizer_name": "SGD",
        "learning_rate": LR,
        "weight_decay": 0.0,
        "milestones": [],
        "learning_rate_decay": 1.0,
    }
    clients = [
        Client(
            {
                **common,
                "loss_name": "CrossEntropyLoss",
                "LabelFlipping": False,
                "nb_labels": 10,
                "momentum": MOMENTUM,
                "training_dataloader": part,
                "store_per_client_metrics": False,
            }
        )
        for part in parts
    ]
    rule = {"name": "TrMean", "parameters": {"f": F}}
    server = Server({**common, "test_loader": parts[0], "aggregator_info": rule, "pre_agg_list": []})
    attack = ByzantineClient({"name": "ALittleIsEnough", "f": F, "parameters": {"tau": 1.5}})
    times = []
    for _ in range(rounds + WARM_UP):
        started = time.perf_counter()
        broadcast = server.get_dict_parameters()
        for client in clients:
            client.set_model_state(broadcast)
            client.compute_gradients()
        honest = [client.get_flat_gradients_with_momentum() for client in clients]
        server.update_model_with_gradients(honest + attack.apply_attack(honest))
        times.append(time.perf_counter() - started)
    return 1 / statistics.mean(times[WARM_UP:])


def byzflower_rate(model: str, data: str, rounds: int, engine: str) -> tuple[float, dict[str, float]]:
    """Rounds per second, from record to record, and the mean seconds of each part of a round."""
    marks: list[float] = []
    with tempfile.TemporaryDirectory() as out:
        config = RunConfig.make(
            {
                "dataset": "mnist",
                "data": data,
                "model": model,
                "clients": N,
                "byzantine": F,
                "attack": "alie",
                "strategy": "trimmedmean",
                "batches": 1,
                "batch_size": BATCH,
                "lr": LR,
                "server_lr": LR,
                "local_momentum": MOMENTUM,
                "upload": "gradient",
                "rounds": rounds + WARM_UP,
                "eval_every": rounds + WARM_UP + 1,
                "engine": engine,
                "out": out,
            }
        )
        outcome = simulate(config, lambda record: marks.append(time.perf_counter()))
        history = outcome.recorder.history[1 + WARM_UP : -1]  # the last round evaluates
    parts = {
        key: statistics.mean(record["seconds"][key] for record in history) for key in history[0]["seconds"]
    }
    return (len(history) - 1) / (marks[-2] - marks[WARM_UP + 1]), parts


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3, help="alternated; the median is printed")
    arguments = parser.parse_args()
    print("| rounds/s | byzfl | inline | inline/byzfl | Ray, cohorts | Ray/byzfl |")
    print("|---|---|---|---|---|---|")
    details: list[tuple[str, dict[str, dict[str, float]]]] = []
    for model, rounds in (("mlp", arguments.rounds), ("cnn", max(10, arguments.rounds // 3))):
        rates: dict[str, list[float]] = {"byzfl": [], "inline": [], "ray": []}
        where: dict[str, dict[str, float]] = {}
        for _ in range(arguments.repeats):
            rates["byzfl"].append(byzfl_rate(model, arguments.data, rounds))
            for engine in ("inline", "ray"):
                rate, where[engine] = byzflower_rate(model, arguments.data, rounds, engine)
                rates[engine].append(rate)
        theirs, inline, ray = (statistics.median(rates[k]) for k in ("byzfl", "inline", "ray"))
        cells = [f"{theirs:.1f}"]
        for rate in (inline, ray):
            cells += [f"{rate:.1f}", f"{rate / theirs:.2f}"]
        print(f"| {model} | {' | '.join(cells)} |", flush=True)
        details.append((model, where))
    print("\nWhere the time goes, ms a round (training is the sum over clients, which share the cores):\n")
    names = ("train", "wait", "attack", "decode", "aggregate", "round")
    print(f"| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for model, where in details:
        for engine, parts in where.items():
            print(f"| {model}, {engine} | {' | '.join(f'{1000 * parts[name]:.1f}' for name in names)} |")


if __name__ == "__main__":
    main()
