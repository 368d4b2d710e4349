"""Attacks that see all uploads, on moments uploads: forged steps obey the rule, views are of gradients."""

import numpy as np
import pytest
import torch

from byzflower.attacks import ALIE, IPM, ROP, CollusiveAttack, MinMax
from byzflower.clients import ByzantineClient, ClientSettings
from byzflower.clients.app import app
from byzflower.models import build_model
from byzflower.server import Adversary, InlineGrid
from byzflower.server.config.classification import RunConfig
from byzflower.server.federation import ServerScoredFederation, federation
from byzflower.uploads import Layout
from byzflower.uploads.codec import decode_reply
from byzflower.uploads.moments import Moments
from byzflower.uploads.optimizers import Adam

CNN = {"model": "cnn", "max_samples": 100, "batches": 1, "lr": 0.003}
USERS = {"dataset": "synthetic-small", "model": "fism", "model_options": "dim=4", "lr": 0.02}
COMMON = {"clients": 8, "byzantine": 2, "engine": "inline", "rounds": 3, "eval_every": 3, "strategy": "arfrs"}


class Watched(Adversary):
    """Keeps the views that attacks got, what they crafted, and what then arrived at the strategy."""

    def _craft(self, attack, server_round, arrived):
        self.__dict__.setdefault("benign", []).append(arrived.benign.matrix())
        self.__dict__.setdefault("previous", []).append(self._previous)
        crafted = super()._craft(attack, server_round, arrived)
        self.__dict__.setdefault("crafted", []).append(crafted)
        return crafted

    def _rewrite(self, server_round, replies):
        replies = super()._rewrite(server_round, replies)
        uploads = [decode_reply(reply, self.kind, self.sent.layout)[0] for reply in replies]
        self.__dict__.setdefault("rounds", []).append(self.kind.rows(uploads, self.sent, 1.0))
        return replies


def watched(tmp_path, attack, options):
    """Three rounds; returns the adversary and the result."""

    class Run(ServerScoredFederation):
        def _make_adversary(self):
            return Watched(self.robust, attack, 2)

    run = Run(RunConfig.make({**COMMON, **options, "attack": "none", "out": str(tmp_path)}), 2)
    grid = InlineGrid(app, 2)
    result = run.run(grid).result
    grid.close()
    return run.adversary, result


@pytest.mark.parametrize("options", [CNN, USERS], ids=["cnn", "users"])
@pytest.mark.parametrize(
    "attack", [ALIE(z=1.0), IPM(eps=2.0), MinMax(), ALIE(z=1.0, knowledge="colluding")], ids=repr
)
def test_what_was_crafted_arrives_and_obeys_the_update_rule(attack, options, tmp_path):
    adversary, result = watched(tmp_path, attack, options)
    assert isinstance(attack, CollusiveAttack)
    assert result["quarantined"] == result["skipped"] == 0
    for arrived, crafted in zip(adversary.rounds, adversary.crafted, strict=True):
        assert arrived.rejections == []
        assert arrived.client_ids == list(range(8))
        scale = float(crafted.abs().max())
        torch.testing.assert_close(arrived.matrix()[:2], crafted, rtol=1e-3, atol=1e-5 * scale)
        assert crafted.shape == (2, adversary.kind.trained(adversary.sent.layout).d)


@pytest.mark.parametrize("options", [CNN, USERS], ids=["cnn", "users"])
def test_two_broadcasts_reveal_the_gradient_that_was_applied(options, tmp_path):
    adversary, _ = watched(tmp_path, IPM(eps=0.5), {**options, "strategy_options": "filter=none"})
    first, *later = adversary.previous
    assert first is None
    for revealed, arrived in zip(later, adversary.rounds, strict=False):
        shares = torch.from_numpy(arrived.num_examples / arrived.num_examples.sum())
        applied = shares @ arrived.matrix().double()
        torch.testing.assert_close(
            revealed.double(), applied, rtol=1e-3, atol=1e-5 * float(applied.abs().max())
        )


def test_an_interrupted_run_goes_on_with_the_last_gradient(tmp_path):
    class After:
        left = 2

        def is_set(self):
            self.left -= 1
            return self.left < 0

    def config(name):
        options = {**COMMON, **CNN, "attack": "rop", "rounds": 4, "name": name, "out": str(tmp_path)}
        return RunConfig.make(options)

    assert isinstance(config("x").make_attack(), ROP)
    whole = federation(config("whole"), 2).run(InlineGrid(app, 2)).result
    assert federation(config("parts"), 2).run(InlineGrid(app, 2), stop=After()).interrupted
    assert federation(config("parts"), 2).run(InlineGrid(app, 2)).result == whole


def test_moments_have_an_account_of_their_own(tmp_path):
    options = {**COMMON, **CNN, "attack": "alie", "diagnostics": True, "embed_rounds": "2"}
    run = federation(RunConfig.make({**options, "out": str(tmp_path)}), 2)
    records, grid = [], InlineGrid(app, 2)
    run.run(grid, records.append)
    grid.close()
    assert run.adversary.info == run.adversary.embedding == {}
    assert all(record["diagnostics"] for record in records[1:])
    assert records[2]["planes"]["byzantine"] == [0, 1]


def test_whoever_is_overwritten_leaves_batch_norm_as_it_came():
    settings = ClientSettings(model="resnet20", clients=4, byzantine=1, attack="ipm", batches=1)
    model = {k: t.numpy() for k, t in build_model("resnet20", (1, 8, 8), 10, seed=3).state_dict().items()}
    layout, kind = Layout.of(model), Moments(Adam())
    sent = kind.broadcast(model)
    client = ByzantineClient(0, settings, settings.make_attack())
    learned, _, _ = client.fit(list(sent.values()), {"server-round": 1, **kind.told()})
    row, before = layout.row(learned), layout.row(model.values())
    assert not row[: layout.d].any()
    np.testing.assert_array_equal(row[layout.d :], before[layout.d :])
    assert before[layout.d :].any()


def test_a_round_in_which_nobody_obeys_the_rule_is_skipped(tmp_path):
    options = {**COMMON, **CNN, "attack": "nan", "rounds": 1, "fraction_train": 0.1, "byzantine": 7}
    options |= {"strategy_options": "filter=none", "out": str(tmp_path)}
    config = RunConfig.make(options)
    assert config.clients_per_round == 1
    records, grid = [], InlineGrid(app, 1)
    federation(config, 1).run(grid, records.append)
    grid.close()
    assert len(records[-1]["quarantined"]) == 1  # the one that was asked is an attacker
    assert records[-1]["skipped"] == "no usable upload arrived"
