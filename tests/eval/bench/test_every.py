"""`bench all`: what is there is left alone, what fails or lacks something is said, targets reached or not."""

import json
import subprocess
import sys
import time

import pytest

from understudy.configs.children import start
from understudy.eval.bench import every
from understudy.eval.bench.bench import KINDS, Bench
from understudy.eval.bench.every import PLAN, BenchError, Planned, is_there, measure_all, missing
from understudy.eval.bench.headlines import HEADLINES, reached
from understudy.eval.bench.quiet import MOST, BusyError, check_quiet, others_while
from understudy.eval.bench.settings import READS
from understudy.eval.ledger.study import read_study

REPORT = Planned("report", "report", "", {})
ABSENT = Planned("train-gpu", "train --device cuda", "", {"no_such_module": "pip install it"}, gpu=True)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(folder, why it ended as it did): one bench that fails, one that works, one that lacks something."""
    folder = tmp_path_factory.mktemp("all")
    broken = Planned("rollout-lift", "rollout --envs 0", "", {})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(BenchError) as told:
        patch.setattr(every, "PLAN", (broken, REPORT, ABSENT))
        measure_all(folder, busy=True)
    return folder, str(told.value)


def test_every_plan_is_a_command_that_is_read():
    names = [planned.name for planned in every.PLAN]
    assert len(set(names)) == len(names) and {line.bench for line in HEADLINES} <= set(names)
    assert READS.keys() - {planned.words.split()[0] for planned in every.PLAN} == {"learn", "all"}
    for planned in every.PLAN:
        assert every._command(planned, False) != every._command(planned, True) or not planned.quick


def test_a_bench_that_fails_is_said_and_the_others_go_on(measured):
    folder, why = measured
    assert why.startswith("1 of 2 benches failed: rollout-lift: ended with status 2: ") and "at least 1" in why
    document = json.loads((folder / "report.json").read_text())
    assert document["bench"] == "report" and (document["others"] is None or document["others"] >= 0)
    study = read_study(folder / "records" / "all.json")
    notes = " ".join(study.notes)
    assert study.rows == () and "Not measured: train-gpu: needs no_such_module: pip install it." in notes
    assert "Not measured: rollout-lift: ended with status 2" in notes and "Machine: " in study.notes[-1]
    assert not list(folder.glob(".*.json")) and (folder / "rollout-lift.log").is_file()


def test_whose_processes_leave_the_family_are_not_taken_for_other_work(tmp_path, monkeypatch):
    """The nodes of its own cluster made a bench one that is not to be trusted."""
    monkeypatch.setattr(every, "PLAN", (Planned("report", "report", "", {}, detached=True),))
    measure_all(tmp_path, busy=True)
    assert json.loads((tmp_path / "report.json").read_text())["others"] is None
    assert [planned.name for planned in PLAN if planned.detached] == ["cluster"]


def test_what_is_there_is_left_alone(measured, monkeypatch, capsys):
    folder, _ = measured
    monkeypatch.setattr(every, "PLAN", (REPORT, ABSENT))
    stamp = (folder / "report.json").stat().st_mtime_ns
    measure_all(folder)  # nothing to measure, so nobody asks how busy the machine is
    assert (folder / "report.json").stat().st_mtime_ns == stamp
    said = capsys.readouterr().out
    assert "understudy bench report" not in said and "needs no_such_module" in said


def test_a_bench_that_hangs_is_stopped(monkeypatch, tmp_path):
    """A server that waits for ever stands for it."""
    monkeypatch.setattr(every, "LONGEST", 0.3)
    monkeypatch.setattr(every, "start", lambda words, log: start(["http.server", "--bind", "127.0.0.1", "0"], log))
    assert every._run(tmp_path, REPORT, False, busy=True).startswith("hung: ")
    assert not (tmp_path / "report.json").exists()


def test_a_result_of_other_settings_or_code_is_not_taken(tmp_path):
    loader = every.PLAN[0]
    document = {"bench": "loader", "command": every._command(loader, True), "result": {}, "others": 0.0}
    document |= {"code": every._code(), "machine": every._here() | {"load": 1.5}}
    (tmp_path / "loader.json").write_text(json.dumps(document))
    assert is_there(tmp_path, loader, True) and not is_there(tmp_path, loader, False)
    (tmp_path / "loader.json").write_text(json.dumps(document | {"code": {"commit": "another"}}))
    assert not is_there(tmp_path, loader, True)
    (tmp_path / "loader.json").write_text(json.dumps(document)[:30])
    assert not is_there(tmp_path, loader, True)


def test_the_table_has_ratios_targets_and_what_was_busy(tmp_path):
    machine = {"processor": "p", "cores": 2, "load": 0.1}
    race = {"ratios": [0.8, 1.0, 1.25], "ratio": 1.0}
    cases = ("equal network", "our default network")
    found = {
        "train": {"result": dict.fromkeys(cases, race), "machine": machine, "others": 1.5},
        "loader": {"result": {"ratio": 40.0}, "machine": machine | {"load": 3}, "others": 0.0},
    }
    study = every.tabulate(found, {"dream": "needs x"}, True, tmp_path)
    rows = {row[1]: row[2:] for row in study.rows}
    assert rows["training step, equal network"] == ("lerobot", (0.8, 1.0, 1.25), 0.95, "in the median", 1.5)
    assert rows["windows a CPU second, equal batch"] == ("lerobot", 40.0, 100, "no", 0.0)
    notes = " ".join(study.notes)
    assert "during train: not to be trusted" in notes and "quick run" in notes and "Not measured: dream" in notes
    assert notes.count("Machine: ") == 1 and "load" not in notes


def test_headlines_of_dreams_are_read_where_the_bench_writes_them():
    """They stopped the table of a whole run: the bench nests its cases."""
    pytest.importorskip("robosuite")
    _, shown = KINDS["dream"](Bench(what="dream", seconds=0.02, pairs=1, batch=1, threads=1))
    for line in (line for line in HEADLINES if line.bench == "dream"):
        low, times, high = line.times(shown)
        assert 0 < low <= times <= high


def test_a_target_is_reached_by_the_slow_end():
    assert [reached(times, 2) for times in ((2.0, 3.0, 4.0), (1.0, 3.0, 4.0), (1.0, 1.5, 4.0), 2.0, 1.9)] == [
        "yes", "in the median", "no", "yes", "no"
    ]  # fmt: skip
    assert reached(3.0, None) == "no target"


def test_other_work_is_counted_and_refused():
    spin = "import time; end = time.time() + 1.5\nwhile time.time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", spin]):
        _, busy = others_while(lambda: time.sleep(1.0))
        if busy is None:
            pytest.skip("this system does not count")
        assert busy > MOST
        with pytest.raises(BusyError, match="cores are busy with other work"):
            check_quiet(seconds=0.3)
        check_quiet(allowed=True)
    own = others_while(lambda: sum(range(10_000_000)))[1]
    assert own is not None and own >= 0


def test_what_a_machine_lacks_is_told():
    assert missing(ABSENT) == "needs no_such_module: pip install it" and missing(REPORT) == ""
    assert Bench(what="all").out is None
