"""Every kind of hostile reply, sent by real SuperNodes: quarantined by name, and the run goes on."""

import json
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from wireapp.behaviours import BEHAVIOURS, SPARSE, reply

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(400)]

APP = Path(__file__).parent / "wire-app"
HONEST = 3
HOSTILE = 4


def rounds(record):
    return [json.loads(line) for line in record.read_text().splitlines()]


def scripts(names, nodes):
    """Share behaviours out to nodes: after an honest round, one a round."""
    return [["", *names[node::nodes]] for node in range(nodes)]


UPLOADS = {
    "weights": {name: case for name, case in BEHAVIOURS.items() if name not in ("exits", "hangs")},
    "topk": SPARSE,
}


@pytest.mark.compat
@pytest.mark.parametrize("upload", UPLOADS)
def test_whatever_a_node_sends_it_is_quarantined_and_named(upload, deployment, tmp_path):
    quick = list(UPLOADS[upload])
    shared = scripts(quick, HOSTILE)
    nodes = [{}] * HONEST + [{"behaviours": ",".join(script)} for script in shared]
    deployment.start_nodes(nodes)
    last = max(map(len, shared))
    options = {"nodes": len(nodes), "rounds": last, "timeout": 60.0, "upload": upload}
    deployment.run(APP, {**options, "record": str(tmp_path / "record")}, timeout=300)
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
                assert re.search(UPLOADS[upload][name][1], said.pop(node)), (name, own["rejections"])
        assert said == {}
        assert own["skipped"] is None
        assert own["b"] == [own["round"]] * 3  # every round, the honest add one


class RawNodes:
    """Nodes 0, 1, ... that speak Flower's protocol themselves: the first few honest, the others not."""

    def __init__(self, address, honest, hostile):
        self.address = address
        self.hostile = dict(enumerate(hostile, honest))
        self.ids = {}
        self.over = threading.Event()
        self.threads = [
            threading.Thread(target=self.work, args=(i,), daemon=True) for i in range(honest + len(hostile))
        ]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self.over.set()
        for thread in self.threads:
            thread.join(10)  # Flower's client waits for ever for a SuperLink that has ended

    def work(self, number):
        from raw_node import RawNode

        trick = self.hostile.get(number, "")
        with RawNode(self.address) as node:
            self.ids[number] = node.node_id
            while not self.over.wait(0.1):
                message = node.receive(fetch=trick != "acknowledges at once")
                if message is None or trick == "acknowledges at once":
                    continue
                content = reply(
                    {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}, client_id=number
                )
                sender = self.ids[0] if trick == "forges its sender" else None
                node.reply(message, content, upload=trick != "announces only", sender=sender)


def test_what_flowers_own_nodes_would_never_do(deployment, tmp_path):
    """Each of these tricks ends, stalls or misleads a run on Flower's own grid."""
    tricks = ["forges its sender", "announces only", "acknowledges at once"]
    with RawNodes(deployment.fleet_address, HONEST, tricks) as nodes:
        count = len(nodes.threads)
        options = {"nodes": count, "rounds": 2, "timeout": 12.0, "record": str(tmp_path / "record")}
        deployment.run(APP, options, timeout=150)
    _, first, second = rounds(tmp_path / "record")
    for own in (first, second):
        assert own["clients"] == [0, 1, 2, 3]  # the forger is heard as itself
        assert own["b"] == [1, 1, 1]
        assert {client for client, _ in own["rejections"]} == {nodes.ids[4], nodes.ids[5]}
        assert all(re.match("no (usable )?reply", reason) for _, reason in own["rejections"])
