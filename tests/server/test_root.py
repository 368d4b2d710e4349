"""The server's own client, for rules that compare uploads with one that can be trusted."""

import numpy as np
import pytest

from byzflower.clients.settings import ClientSettings
from byzflower.models import build_model
from byzflower.server.config.checks import ConfigError
from byzflower.server.config.classification import RunConfig
from byzflower.server.engines.simulation import simulate
from byzflower.server.root import make_root_upload

SETTINGS = ClientSettings(clients=4, byzantine=2, attack="labelflip", epochs=1, local_momentum=0.5)


def model():
    return [t.numpy() for t in build_model("cnn", (1, 8, 8), 10, 1).state_dict().values()]


def test_it_trains_anew_every_round_and_alike_when_asked_again():
    arrays = model()
    before = [array.copy() for array in arrays]
    train = make_root_upload(SETTINGS, 30, "weights")
    first, again, second = train(1, arrays), train(1, arrays), train(2, arrays)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, arrays, strict=True))


def test_with_one_step_the_model_moves_by_lr_times_the_gradient():
    arrays = model()
    settings = SETTINGS.model_copy(update={"batch_size": 50, "lr": 0.25})
    gradient = make_root_upload(settings, 50, "gradient")(3, arrays)
    trained = make_root_upload(settings, 50, "weights")(3, arrays)
    for w, g, new in zip(arrays, gradient, trained, strict=True):
        np.testing.assert_allclose(w - new, 0.25 * g, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("upload", ["weights", "gradient"])
def test_fltrust_learns_under_attack_from_the_command_lines_options(upload, tmp_path):
    options = {"clients": 10, "byzantine": 4, "attack": "ipm", "attack_options": "eps=10", "rounds": 4}
    options |= {"strategy": "fltrust", "root_samples": 60, "engine": "inline", "out": str(tmp_path)}
    options |= {"upload": upload, "server_lr": 1.0 if upload == "weights" else 0.3, "clip_norm": 10.0}
    result = simulate(RunConfig.make(options)).result
    history = [record["accuracy"] for record in result["history"]]
    assert history[-1] > history[0] + 0.2


def test_the_servers_client_is_no_option():
    with pytest.raises(ConfigError, match="strategy-options: FLTrust has no parameters, got root_upload"):
        RunConfig.make({"strategy": "fltrust", "strategy_options": "root_upload=3"})
    with pytest.raises(ConfigError, match="root-samples"):
        RunConfig.make({"strategy": "fltrust", "root_samples": 0})
