"""What a round's record says of who was caught."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzflower.server.config.classification import RunConfig
from byzflower.server.description import describe
from byzflower.strategies.record import RoundRecord
from byzflower.uploads import Ignored, Rejection

CLIENTS, BYZANTINE = 6, 2
NODE = 2**63 + 5  # nobody knows which client it is
FATES = st.sampled_from(["kept", "excluded", "quarantined", "absent"])


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    options = {"clients": CLIENTS, "byzantine": BYZANTINE, "attack": "ipm", "strategy": "median"}
    config = RunConfig.make({**options, "out": str(tmp_path_factory.mktemp("runs"))})
    return lambda **happened: describe(1, RoundRecord(1, **happened), config)


@given(st.lists(FATES, min_size=CLIENTS, max_size=CLIENTS), FATES, st.booleans())
def test_precision_and_recall_are_of_the_clients_that_are_known(described, fates, nodes, selects):
    fate = dict(enumerate(fates)) | {NODE: nodes}
    if not selects:
        fate = {client: "kept" if what == "excluded" else what for client, what in fate.items()}
    record = described(
        clients=[client for client, what in fate.items() if what in ("kept", "excluded")],
        selected=[client for client, what in fate.items() if what == "kept"] if selects else None,
        rejections=[Rejection(client, "why") for client, what in fate.items() if what == "quarantined"],
    )
    present = [client for client in range(BYZANTINE) if fate[client] != "absent"]
    out = [client for client in range(CLIENTS) if fate[client] in ("excluded", "quarantined")]
    caught = [client for client in out if client in present]
    judged = selects or any(what == "quarantined" for client, what in fate.items() if client != NODE)
    assert record["precision"] == (len(caught) / len(out) if judged and out else None)
    assert record["recall"] == (len(caught) / len(present) if judged and present else None)
    assert len(record["quarantined"]) == list(fate.values()).count("quarantined")


def test_what_had_no_effect_is_recorded_where_there_is_any(described):
    assert "ignored" not in described(clients=[0, 1])
    record = described(clients=[0, 1], ignored=[Ignored(7, "was not asked this round")])
    assert record["ignored"] == [{"node": 7, "reason": "was not asked this round"}]
