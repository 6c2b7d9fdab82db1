"""Judging checkpoints beside training: training does not notice, `best` goes by success, a failure is a warning."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from understudy.configs.children import last_line, start, stop
from understudy.configs.parse import parse
from understudy.configs.plugins import discover
from understudy.eval.demos.demos import Demos
from understudy.eval.evaluate.curve import read_judgements, write_curve
from understudy.policies.learning import side_evaluation
from understudy.policies.learning.checkpoint import rotate
from understudy.policies.learning.loop import Interrupted, Loop
from understudy.policies.learning.side_evaluation import SideEvaluation
from understudy.policies.learning.train import Train

TRAINING = """
data: {data}
policy:
  type: diffusion
  needs: [observation.state, observation.environment_state]
  window: {{observe: [0], horizon: 4}}
  n_action_steps: 2
  network: {{type: mlp, width: 16, depth: 1, condition_width: 8}}
batch: 16
steps: 40
validation: 0.2
validate_every: 20
threads: 1
device: cpu
optimize: {{warmup: 5}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six demonstrations of the point task, and configs to train and to judge."""
    discover(*Train.DISCOVER, "sim")
    folder = tmp_path_factory.mktemp("aside")
    parse(Demos, None, ["point", "--episodes", "6", "--out", str(folder / "demos")]).run()
    (folder / "train.yaml").write_text(TRAINING.format(data=folder / "demos"))
    (folder / "eval.yaml").write_text("policy: P\nout: O\nworld: {type: point, horizon: 10}\nepisodes: 3\nseed: 1000\n")
    return folder


def train(folder: Path, *words) -> None:
    parse(Train, str(folder / "train.yaml"), [str(word) for word in words]).run()


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "evals.jsonl").read_text().splitlines()]


def write_record(words, successes: list[bool]) -> None:
    record = Path(next(word for word in words if word.startswith("--out=")).removeprefix("--out="))
    record.mkdir(parents=True)
    table = {"success": successes, "best_progress": [0.5] * len(successes)}
    pq.write_table(pa.table(table), record / "episodes.parquet")


class Fake:
    """A judgement that ends when told to."""

    def __init__(self, words):
        self.words, self.returncode, self.signals = words, None, []

    def poll(self):
        return self.returncode

    def wait(self, timeout=None):
        return self.returncode

    def send_signal(self, number):
        self.signals.append(number)
        self.returncode = 130

    def end(self, *successes, code=0):
        self.returncode = code
        if code == 0:
            write_record(self.words, list(successes))


@pytest.fixture
def started(monkeypatch) -> list[Fake]:
    """The judgements that were started, in place of real processes; drawing ends at once."""
    processes = []

    def begin(words, log):
        process = Fake(words)
        if "eval" in words:
            processes.append(process)
        else:
            process.returncode = 0
        return process

    monkeypatch.setattr(side_evaluation, "start", begin)
    return processes


@pytest.fixture
def side(folder, tmp_path, started):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    return SideEvaluation(run, folder / "eval.yaml", every=10, steps=45)


def checkpoint(side: SideEvaluation, step: int) -> Path:
    path = side.run / "checkpoints" / f"{step:08d}"
    path.mkdir()
    return path


def test_a_run_judges_itself(folder, tmp_path, capsys):
    """The real command, in a real process."""
    run = tmp_path / "run"
    train(folder, "--out", run, "--eval", folder / "eval.yaml", "--every", "40", "--eval-episodes", "4")
    assert [(row["step"], row["n"], row["best"]) for row in rows(run)] == [(40, 4, True)]
    assert (run / "best").resolve().name == "00000040"
    text = capsys.readouterr().out
    assert "of 4 succeed (env seeds 0..3), mean best progress" in text and "warning" not in text
    assert [one.summary.n for one in read_judgements(run)] == [4]
    html = (run / "evals.html").read_text()
    assert '<span class="yes">best</span>' in html and "env seeds 0–3" in html and "<svg class=" not in html
    shutil.copytree(run / "evals" / "00000040", run / "evals" / "00000020")
    with (run / "evals.jsonl").open("a") as file:
        file.write(json.dumps(rows(run)[0] | {"step": 20}) + "\n")
    html = write_curve(run).read_text()
    assert html.count('<polyline class="success"') == html.count('<polygon class="a"') == 1


def test_training_is_the_same_with_and_without(folder, tmp_path, monkeypatch):
    """Three checkpoints are judged by processes that really run meanwhile."""
    table = {"success": [True, False], "best_progress": [1.0, 0.5]}
    pq.write_table(pa.table(table), tmp_path / "episodes.parquet")
    script = "import os, shutil, sys; out = [w[6:] for w in sys.argv if w.startswith('--out=')][0]; os.makedirs(out)"
    script += f"; shutil.copy({str(tmp_path / 'episodes.parquet')!r}, out)"

    def judge(words, log):
        return subprocess.Popen([sys.executable, "-c", script if "eval" in words else "", *map(str, words)])

    monkeypatch.setattr(side_evaluation, "start", judge)
    train(folder, "--out", tmp_path / "plain", "--keep", "9")
    train(folder, "--out", tmp_path / "judged", "--keep", "9", "--eval", folder / "eval.yaml", "--every", "10")
    for name in ("model", "training_state/weights", "training_state/optimizer", "training_state/rng"):
        plain, judged = (tmp_path / run / "last" / f"{name}.safetensors" for run in ("plain", "judged"))
        assert plain.read_bytes() == judged.read_bytes(), name
    assert {row["step"] for row in rows(tmp_path / "judged")} == {10, 20, 30, 40}
    assert "success" in rows(tmp_path / "judged")[-1]


def test_best_goes_by_success_then_progress_and_the_first_keeps_a_tie(side, started):
    for step, wins in ((10, (True, False, False)), (20, (True, True, False)), (30, (True, True, False))):
        side.submit(checkpoint(side, step))
        started[-1].end(*wins)
        side.poll()
    assert [row["best"] for row in rows(side.run)] == [True, True, False]
    assert os.readlink(side.run / "best") == "checkpoints/00000020"
    assert side.due(40) and side.due(45) and not side.due(44)


def test_validation_starts_are_asked_for(side, started):
    side.submit(checkpoint(side, 10))
    assert {"--env_seed=0", "--episodes=3", f"--policy={side.run}/checkpoints/00000010"} <= set(started[0].words)


def test_the_newest_waits_and_older_ones_are_skipped(side, started, capsys):
    for step in (10, 20, 30):
        side.submit(checkpoint(side, step))
    assert len(started) == 1 and [(row["step"], row["skipped"]) for row in rows(side.run)] == [
        (20, "step 30 came first")
    ]
    assert {path.name for path in side.held} == {"00000010", "00000030"}
    rotate(side.run, keep=1, held=side.held)
    assert sorted(path.name for path in (side.run / "checkpoints").iterdir()) == ["00000010", "00000030"]
    started[0].end(False)
    side.poll()
    assert len(started) == 2 and {path.name for path in side.held} == {"00000030"}
    assert "evaluation of step 20 skipped: step 30 came first" in capsys.readouterr().out


def test_a_failure_is_a_warning_and_the_next_one_is_judged(side, started, capsys):
    side.submit(checkpoint(side, 10))
    log = side.run / "evals" / "00000010.log"
    log.parent.mkdir()
    log.write_text("understudy eval: no world 'poimt'\n")
    started[0].end(code=2)
    side.poll()
    assert (
        "failed (understudy eval: no world 'poimt'); see evals/00000010.log. Training goes on"
        in capsys.readouterr().out
    )
    side.submit(checkpoint(side, 20))
    started[1].end(True)
    side.wait(lambda: False)
    assert (side.run / "best").resolve().name == "00000020" and not side.busy
    assert "failed: understudy eval" in write_curve_text(side.run)


def write_curve_text(run: Path) -> str:
    for record in (run / "evals").glob("0*/"):  # the records of these tests are no whole ones
        (record / "episodes.parquet").unlink()
        record.rmdir()
    return write_curve(run).read_text()


def test_an_interrupted_judgement_is_done_again(side, started, folder):
    side.submit(checkpoint(side, 10))
    started[0].end(True)
    side.poll()
    side.submit(checkpoint(side, 20))
    (side.run / "evals" / "00000020").mkdir()
    side.stop()
    assert started[1].signals == [signal.SIGINT] and not (side.run / "evals" / "00000020").exists()
    with (side.run / "evals.jsonl").open("a") as file:
        file.write('{"step": 2')  # a kill in the middle of a line
    again = SideEvaluation(side.run, folder / "eval.yaml", every=10, steps=45)
    again.resume(23)
    assert [row["step"] for row in again.rows] == [10] and len(started) == 3
    assert f"--policy={side.run}/checkpoints/00000020" in started[2].words
    started[2].end(False)
    again.poll()
    assert (side.run / "best").resolve().name == "00000010", "what was judged before the interruption counts"


def test_ctrl_c_stops_the_judgement_and_resume_owes_it(folder, tmp_path, started, monkeypatch):
    advance, run = Loop._advance, tmp_path / "run"

    def pressed(self, progress):
        if self.step == 25:
            os.kill(os.getpid(), signal.SIGINT)
        advance(self, progress)

    monkeypatch.setattr(Loop, "_advance", pressed)
    with pytest.raises(Interrupted):
        train(folder, "--out", run, "--eval", folder / "eval.yaml", "--every", "20")
    assert [process.signals for process in started] == [[signal.SIGINT]]
    monkeypatch.setattr(Loop, "_advance", advance)
    monkeypatch.setattr(SideEvaluation, "wait", lambda self, stopped: None)
    Train(resume=run).run()
    asked = [next(word for word in process.words if word.startswith("--policy=")) for process in started]
    assert [word[-8:] for word in asked] == ["00000020", "00000020"]
    assert [(row["step"], "skipped" in row) for row in rows(run)] == [], "the one of step 20 was never noted"


def test_starts_for_reporting_and_lost_configs_are_refused_before_training(folder, tmp_path):
    for words, error, message in (
        (("--eval-seed", "998"), ValueError, "env seeds 998..1000 are not for choosing"),
        (("--every", "0"), ValueError, "at least 1 step"),
        (("--eval", "gone.yaml"), FileNotFoundError, "no config 'gone.yaml'"),
    ):
        with pytest.raises(error, match=message):
            judged = () if "--eval" in words else ("--eval", folder / "eval.yaml")
            train(folder, "--out", tmp_path / "run", *judged, *words)
    assert not (tmp_path / "run").exists()


def test_a_world_that_would_refuse_the_policy_is_refused_before_training(folder, tmp_path):
    (folder / "other.yaml").write_text("world: push-and-return\n")
    with pytest.raises(ValueError, match="would refuse this policy: .*mode"):
        train(folder, "--out", tmp_path / "run", "--eval", folder / "other.yaml")
    (folder / "unknown.yaml").write_text("world: poimt\n")
    with pytest.raises(ValueError, match="would refuse this policy: .*poimt"):
        train(folder, "--out", tmp_path / "run", "--eval", folder / "unknown.yaml")
    assert not (tmp_path / "run").exists()


def test_children_end_when_asked_and_when_they_will_not_are_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "stubborn.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    (tmp_path / "polite.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)")
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    processes = [start([name], log) for name, log in zip(("stubborn", "polite"), logs, strict=True)]
    deadline = time.monotonic() + 30
    while not all(last_line(log) == "ready" for log in logs) and time.monotonic() < deadline:
        time.sleep(0.02)
    stop(processes, patience=5.0)
    assert processes[0].returncode == -signal.SIGKILL and processes[1].returncode not in (0, None, -signal.SIGKILL)
    assert "KeyboardInterrupt" in logs[1].read_text() and last_line(tmp_path / "none.log") == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_child_ends_when_its_parent_is_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "patient.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)")
    log = tmp_path / "child.log"
    code = "import sys, time, pathlib; from understudy.configs.children import start"
    code += f"; start(['patient'], pathlib.Path({str(log)!r})); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while last_line(log) != "ready" and time.monotonic() < deadline:
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    while last_line(log) != "KeyboardInterrupt" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert last_line(log) == "KeyboardInterrupt"
