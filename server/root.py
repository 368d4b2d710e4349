"""The server's own client: for rules that compare uploads with one that can be trusted."""

from collections.abc import Callable

from flwr.common import NDArrays, Scalar

from byzflower.clients.benign import BenignClient
from byzflower.clients.settings import ClientSettings
from byzflower.numerics.randomness import seed_for


def make_root_upload(
    settings: ClientSettings, samples: int, upload: str
) -> Callable[[int, NDArrays], NDArrays]:
    """A benign client of the server's, which trains as the others do, on clean data of its own.

    Its data is a random sample, as evenly mixed as the whole, of the training set: some clients may
    hold the same samples. It uploads no local momentum, but what it has trained this round.

    Args:
        settings: those of the run's clients.
        samples: size of its data.
        upload: what the clients send; of sparse models the server's own client sends everything.

    Returns:
        ``root_upload(server_round, arrays)``; see `FLTrust`. Data is loaded at the first call.
    """
    alone = {
        "clients": 1,
        "byzantine": 0,
        "attack": "none",
        "attack_options": {},
        "partition": "iid",
        "min_size": 1,
        "max_samples": samples,
        "local_momentum": 0.0,
        "seed": seed_for(settings.seed, "root"),
    }
    own = settings.model_copy(update=alone)

    def root_upload(server_round: int, arrays: NDArrays) -> NDArrays:
        config: dict[str, Scalar] = {
            "server-round": server_round,
            "upload": "gradient" if upload == "gradient" else "weights",
        }
        trained, _, _ = BenignClient(0, own).fit(arrays, config)
        return trained

    return root_upload
