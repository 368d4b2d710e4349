"""Every kind of hostile reply, sent by real SuperNodes: quarantined by name, and the run goes on."""

import json
import re
from pathlib import Path

import pytest
from wireapp.behaviours import BEHAVIOURS

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(400)]

APP = Path(__file__).parent / "wire-app"
HONEST = 3
HOSTILE = 4


def rounds(record):
    return [json.loads(line) for line in record.read_text().splitlines()]


def scripts(names, nodes):
    """Share behaviours out to nodes: after an honest round, one a round."""
    return [["", *names[node::nodes]] for node in range(nodes)]


@pytest.mark.compat
def test_whatever_a_node_sends_it_is_quarantined_and_named(deployment, tmp_path):
    quick = [name for name in BEHAVIOURS if name not in ("exits", "hangs")]
    shared = scripts(quick, HOSTILE)
    nodes = [{}] * HONEST + [{"behaviours": ",".join(script)} for script in shared]
    deployment.start_nodes(nodes)
    last = max(map(len, shared))
    options = {"nodes": len(nodes), "rounds": last, "timeout": 60.0, "record": str(tmp_path / "record")}
    deployment.run(APP, options, timeout=300)
    initial, first, *others = rounds(tmp_path / "record")
    assert initial["b"] == [0, 0, 0]
    assert first["clients"] == list(range(len(nodes)))
    assert [own["round"] for own in others] == list(range(2, last + 1))
    for own in others:
        said = dict(own["rejections"])
        for node, script in enumerate(shared, HONEST):
            name = script[own["round"] - 1] if own["round"] <= len(script) else None
            if name is None:
                assert node in own["clients"]
            else:
                assert re.search(BEHAVIOURS[name][1], said.pop(node)), (name, own["rejections"])
        assert said == {}
        assert own["skipped"] is None
        assert own["b"] == [own["round"]] * 3  # every round, the honest add one
