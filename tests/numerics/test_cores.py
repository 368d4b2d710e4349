"""How many cores a process takes for itself."""

import os

import pytest

from byzflower.numerics import cores as sharing


@pytest.mark.parametrize(("cores", "processes", "own"), [(8, 1, 8), (8, 2, 4), (8, 3, 2), (2, 5, 1)])
def test_cores_are_shared_among_processes_side_by_side(monkeypatch, cores, processes, own):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setattr(sharing, "_sharers", 1)
    sharing.share_cores(processes)
    assert sharing.usable_cores() == own


def test_without_affinity_all_cores_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert sharing.usable_cores() == 1
