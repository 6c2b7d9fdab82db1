"""How many workers a machine has room for."""

import pytest

from understudy.configs import cores
from understudy.configs.cores import choose_workers


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of so many cores and so much free memory, and the folder of its control group."""

    def made(allowed=8, free=64e9):
        monkeypatch.delenv(cores.CORES, raising=False)
        monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(allowed)), raising=False)
        monkeypatch.setattr(cores, "_available", lambda: free)
        monkeypatch.setattr(cores, "GROUP", tmp_path)
        return tmp_path

    return made


@pytest.mark.parametrize(
    ("about", "count", "why"),
    [
        ({}, 8, "8 cores"),
        ({"asked": 3}, 3, "as asked"),
        ({"asked": 0}, 0, "as asked"),
        ({"blocks": 5}, 5, "5 blocks"),
        ({"blocks": 1}, 0, "1 blocks"),
        ({"threads": 4}, 2, "8 cores for 4 threads each"),
        ({"steps": 300}, 0, "at most 300 control steps"),
        ({"weights": 8e9}, 3, "64.0 GB of free memory"),
    ],
)
def test_as_many_as_there_is_room_and_work_for(machine, about, count, why):
    machine()
    chosen = choose_workers(**{"asked": None, "blocks": 100, "steps": 100_000} | about)
    assert chosen.count == count and why in chosen.why and str(chosen).startswith(str(count))


def test_a_control_group_is_the_machine(machine):
    group = machine()
    (group / "cpu.max").write_text("250000 100000\n")
    assert cores.cores() == 2.5 and choose_workers(None, blocks=99, steps=10**6).count == 2
    (group / "cpu.max").write_text("max 100000\n")
    for name, text in (("memory.max", "5000000000"), ("memory.current", "3000000000")):
        (group / name).write_text(text + "\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 1000000000\n")
    assert cores.free_memory() == 3e9
    assert choose_workers(None, blocks=99, steps=10**6).count == 3
    assert choose_workers(None, blocks=99, steps=10**6, draws=True).count == 2


def test_cores_may_be_shared_with_others_of_ours(machine, monkeypatch):
    machine()
    monkeypatch.setenv(cores.CORES, "3")
    assert cores.cores() == 3
    monkeypatch.setenv(cores.CORES, "12")
    assert cores.cores() == 8


def test_a_number_below_zero_is_refused():
    with pytest.raises(ValueError, match="at least 0"):
        choose_workers(-1, blocks=1, steps=1)
