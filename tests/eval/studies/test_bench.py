"""A bench's JSON becomes a study with ratios and their range."""

import json

import pytest

from understudy.__main__ import main
from understudy.eval.ledger.study import StudyError, read_study
from understudy.eval.studies.bench import bench_study

MACHINE = {"processor": "one", "cores": 2, "load": None}
CASE = {"understudy": {"steps_per_s": 40.0}, "robosuite": {"steps_per_s": 10.0}, "speedup": 4.0, "speedups": [3, 4, 5]}
ROLLOUT = {
    "bench": "rollout",
    "machine": MACHINE,
    "result": {
        "task": "lift",
        "size": 84,
        "n_action_steps": 8,
        "rest": "a step takes 2 ms",
        "cases": {"physics alone": {"ms_per_step": 0.5}, "state": CASE},
    },
}


def test_a_rollout_s_cases_are_rows(tmp_path):
    (tmp_path / "bench.json").write_text(json.dumps(ROLLOUT))
    assert main(["study", "bench", str(tmp_path / "bench.json"), "--out", str(tmp_path / "study.json")]) == 0
    study = read_study(tmp_path / "study.json")
    assert study.rows == (("state", 40.0, 10.0, (3.0, 4.0, 5.0)),) and study.columns[2] == "robosuite"
    assert study.command == "understudy bench rollout --task lift"
    assert study.notes[1:] == ("A step takes 2 ms.", "Machine: processor one, cores 2.")


def test_a_race_s_sides_are_columns():
    race = {"sides": [{"ms": 1.0}, {"ms": 10.0}], "ratio": 0.1, "ratios": [0.09, 0.1, 0.2]}
    study = bench_study({"bench": "latency", "machine": MACHINE, "result": {"one step": race}})
    assert study.rows == (("one step", 1.0, 10.0, (0.09, 0.1, 0.2)),)


def test_learning_and_stages_have_tables_and_commands_of_their_own():
    curves = {"understudy": [(5.0, 9, 0.2)], "lerobot": [(20.0, 9, 0.3)]}
    learnt = {"curves": curves, "loss": 0.3, "lerobot_s": 20.0, "ours_s": 5.0, "ratio": 4.0}
    learnt |= {"batch": 8, "pictures": 96, "noise_draws": 4}
    command = "understudy bench learn --data out/pusht_images --pictures 96"
    study = bench_study({"bench": "learn", "command": command, "machine": MACHINE, "result": learnt})
    assert study.command == command and study.rows == (("turn 1", 5.0, 0.2, 20.0, 0.3),)
    assert "ours is there after 5 CPU s, 4 times sooner" in study.notes[0]
    sides = [{"name": "embeddings", "ms": 1.0}, {"name": "end to end", "ms": 12.0}]
    race = {"sides": sides, "ratio": 0.1, "ratios": [0.1, 0.2], "cpu_ratio": 0.125}
    race |= {"context": 16, "pictures": 84, "batch": 8, "peak_mib": {"embeddings": 1.0, "end to end": 2.0}}
    study = bench_study({"bench": "stages", "machine": MACHINE, "result": race})
    assert study.rows[1] == ("end to end", 12.0, 2.0) and "10 times as long (5 to 10 in 2" in study.notes[0]


def test_a_bench_without_a_table_is_refused():
    with pytest.raises(StudyError, match="no table for bench 'all'"):
        bench_study({"bench": "all", "machine": MACHINE, "result": {}})


def test_a_loader_s_rates_are_set_beside_lerobot_s():
    def side(peak, **rates):
        rows = [{"batch": int(name[1:]), "per_second": 1.0, "per_cpu_second": rate} for name, rate in rates.items()]
        return {"keys": ["observation.state"], "windows": 9, "rates": rows, "imports_mib": 1.0, "peak_mib": peak}

    result = {"ours": side(10.0, b64=200.0, b256=500.0), "lerobot": side(20.0, b64=2.0)}
    study = bench_study({"bench": "loader", "machine": MACHINE, "result": result})
    assert study.rows == (
        ("ours", 64, 200.0, 100.0, 10.0),
        ("ours", 256, 500.0, 250.0, 10.0),
        ("lerobot", 64, 2.0, 1.0, 20.0),
    )
