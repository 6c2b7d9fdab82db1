"""`understudy run`: cells are ordinary commands, a killed grid goes on, other settings are refused by name."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from understudy.__main__ import main
from understudy.configs.parse import parse
from understudy.configs.plugins import discover
from understudy.configs.settings.refusals import UsageError
from understudy.eval.grid import run as grid_run
from understudy.eval.grid.cells import GridError, StepState, state
from understudy.eval.grid.grid import cells, read_shard
from understudy.eval.grid.run import Run
from understudy.eval.ledger.record import read_record
from understudy.eval.ledger.study import read_study
from understudy.policies.learning.loop import Loop

TRAINING = """
data: {folder}/demos
policy:
  type: diffusion
  needs: [observation.state, observation.environment_state]
  window: {{observe: [0], horizon: 4}}
  n_action_steps: 2
  network: {{type: mlp, width: 8, depth: 1, condition_width: 8}}
batch: 16
steps: 20
save_every: 10
log_every: 10
validation: 0
threads: 1
device: cpu
best: none
"""
GRID = """
name: widths
out: {folder}/grid
train: {{config: {folder}/train.yaml, set: {{optimize.warmup: 5}}}}
eval:
  short: {{config: {{world: {{type: point, horizon: 8}}, episodes: 3}}, set: {{seed: 2000, videos: 0}}}}
seeds: [0, 1]
vary: {{narrow: {{}}, wide: {{policy.network.width: 12}}}}
"""


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> Path:
    discover(*Run.DISCOVER)
    folder = tmp_path_factory.mktemp("grid") / "demos"
    assert main(["demos", "point", "--episodes", "4", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def folder(demos, tmp_path) -> Path:
    (tmp_path / "demos").symlink_to(demos)
    (tmp_path / "train.yaml").write_text(TRAINING.format(folder=tmp_path))
    (tmp_path / "grid.yaml").write_text(GRID.format(folder=tmp_path))
    return tmp_path


@pytest.fixture
def begun(monkeypatch) -> list[list[str]]:
    """Commands run inside this process, one after another; what was begun is listed."""
    commands = []

    def start(words, log):
        commands.append([str(word) for word in words[1:]])
        code = main(commands[-1])
        log.write_text(f"ended with {code}\n")
        if code == 130:
            raise KeyboardInterrupt
        return type("Ended", (), {"pid": os.getpid(), "returncode": code, "poll": lambda self: code})()

    monkeypatch.setattr(grid_run, "start", start)
    monkeypatch.setattr(grid_run.Evaluators, "begin", lambda self, words, log: start(["understudy", *words], log))
    monkeypatch.setattr(grid_run, "PAUSE", 0.0)
    return commands


def grid(folder: Path, *words) -> Run:
    return parse(Run, str(folder / "grid.yaml"), [str(word) for word in words])


def test_a_grid_trains_judges_counts_and_is_done(folder, begun, capsys):
    grid(folder, "--against", "narrow").run()
    assert [words[0] for words in begun] == ["train", "eval"] * 4
    assert all(state(cell, step) is StepState.done for cell in cells(grid(folder)) for step in cell.steps)
    study = read_study(folder / "grid" / "table.json")
    assert study.columns[:4] == ("setting", "evaluation", "seed 0", "seed 1") and len(study.rows) == 2
    for row in study.rows:
        records = [read_record(folder / "grid" / row[0] / f"seed{seed}" / "short") for seed in (0, 1)]
        wins = [sum(record.column("success")) for record in records]
        assert row[2:4] == tuple(f"{won / 3:.3f} ({won} of 3)" for won in wins)
        assert row[4][1] == pytest.approx(sum(wins) / 6) and row[5] == "over 2 training seeds" and row[7] == 6
        assert records[0].column("env_seed") == [2000, 2001, 2002]
    assert study.columns[8] == "minus narrow, these checkpoints" and study.rows[0][8] is None
    assert study.rows[1][8][1] == pytest.approx(study.rows[1][4][1] - study.rows[0][4][1])
    assert "| narrow | short |" in capsys.readouterr().out and "widths" in (folder / "grid" / "table.md").read_text()
    again = shlex.split(study.command)
    assert again[:2] == ["understudy", "run"] and parse(Run, None, again[2:]) == grid(folder, "--against", "narrow")
    cell = json.loads((folder / "grid" / "wide" / "seed1" / "cell.json").read_text())
    assert cell["commands"][0].startswith("understudy train") and "--policy.network.width=12" in cell["commands"][0]
    begun.clear()
    grid(folder, "--seeds", "[0, 1, 2]", "--vary", "{narrow: {}}").run()
    assert [words[0] for words in begun] == ["train", "eval"], "only the seed that was added"
    begun.clear()
    grid(folder, "--seeds", "[0]").run()
    assert begun == [] and read_study(folder / "grid" / "table.json").rows[0][4] == "for this checkpoint"


def test_a_stopped_grid_goes_on_where_it_was(folder, begun, monkeypatch):
    """Stopped in the second training after its checkpoint at step 10, and again in the evaluation after it."""
    advance = Loop._advance

    def pressed(self, progress):
        if self.step == 13 and len(begun) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        advance(self, progress)

    monkeypatch.setattr(Loop, "_advance", pressed)
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        grid(folder, "--out", folder / "stopped").run()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    before = len(begun)
    grid(folder, "--out", folder / "stopped").run()
    assert begun[before] == ["train", f"--resume={folder}/stopped/narrow/seed1/run"]
    grid(folder, "--vary", "{narrow: {}}").run()
    whole, stopped = (folder / out / "narrow" / "seed1" / "run" / "last" for out in ("grid", "stopped"))
    assert (whole / "model.safetensors").read_bytes() == (stopped / "model.safetensors").read_bytes()


def test_what_broke_off_is_resumed_or_begun_anew(folder, begun):
    one = grid(folder, "--seeds", "[0]", "--vary", "{narrow: {}}")
    one.run()
    (cell,) = cells(one)
    record = folder / "grid" / "narrow" / "seed0" / "short"
    manifest = json.loads((record / "manifest.json").read_text())
    del manifest["digests"]
    (record / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    assert state(cell, cell.steps[1]) is StepState.broken
    begun.clear()
    one.run()
    assert [(words[0], words[-1]) for words in begun] == [("eval", f"--resume={record}")]
    (record / "manifest.json").unlink()  # killed before anything was written
    begun.clear()
    one.run()
    assert [(words[0], words[-1]) for words in begun] == [("eval", f"--out={record}")]


def test_other_settings_and_other_weights_are_refused_by_name(folder, begun):
    one = ("--seeds", "[0]", "--vary", "{narrow: {}}")
    grid(folder, *one).run()
    begun.clear()
    with pytest.raises(GridError, match="narrow, seed 0: train was run with steps = 20, the grid now says 30"):
        grid(folder, *one, "--train.set", "{optimize.warmup: 5, steps: 30}").run()
    with pytest.raises(GridError, match="short was run with episodes = 3, the grid now says 4"):
        grid(folder, *one, "--eval.short.set", "{seed: 2000, videos: 0, episodes: 4}").run()
    with (folder / "grid/narrow/seed0/run/last/config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(GridError, match="judged other weights"):
        grid(folder, *one).run()
    assert begun == []


def test_data_that_were_made_anew_are_not_mixed(folder, begun):
    """The grid says the same of both cells; what lies at the name of the data is another recording."""
    grid(folder, "--seeds", "[0]", "--vary", "{narrow: {}}").run()
    (folder / "demos").unlink()
    assert main(["demos", "point", "--episodes", "4", "--env_seed", "777", "--out", str(folder / "demos")]) == 0
    before = (folder / "grid" / "table.json").read_bytes()
    both = grid(folder, "--vary", "{narrow: {}}")
    for _ in range(2):  # after the second cell has run, and before anything runs
        begun.clear()
        with pytest.raises(GridError, match="narrow, seed 1 was trained on other data .* than narrow, seed 0"):
            both.run()
    assert not begun and (folder / "grid" / "table.json").read_bytes() == before


def test_worlds_that_were_changed_are_not_mixed(folder, begun):
    (folder / "world.yaml").write_text("type: mujoco\ntask: point\nhorizon: 8\n")
    text = (folder / "grid.yaml").read_text().replace("{type: point, horizon: 8}", f"{folder}/world.yaml")
    (folder / "grid.yaml").write_text(text)
    grid(folder, "--seeds", "[0]", "--vary", "{narrow: {}}").run()
    (folder / "world.yaml").write_text("type: mujoco\ntask: point\nhorizon: 12\n")
    with pytest.raises(GridError, match="narrow, seed 1 was judged in another world than narrow, seed 0.*horizon"):
        grid(folder, "--vary", "{narrow: {}}").run()


def test_a_setting_that_came_later_had_its_default(folder, begun):
    grid(folder, "--seeds", "[0]", "--vary", "{narrow: {}}").run()
    note = folder / "grid" / "narrow" / "seed0" / "cell.json"
    document = json.loads(note.read_text())
    assert document["settings"]["short"].pop("monitor") == 0
    note.write_text(json.dumps(document))
    begun.clear()
    grid(folder, "--seeds", "[0]", "--vary", "{narrow: {}}").run()
    assert begun == []


def test_a_failing_cell_is_told_and_the_others_go_on(folder, begun, capsys):
    broken = "{lost: {data: nowhere}, narrow: {}}"
    with pytest.raises(GridError, match=r"1 of 2 cells failed: lost, seed 0 \(train ended with status 2"):
        grid(folder, "--seeds", "[0]", "--vary", broken).run()
    assert "the others go on" in capsys.readouterr().out
    lost, narrow = read_study(folder / "grid" / "table.json").rows
    assert lost[2:6] == (None, None, "nothing finished", None) and narrow[4] == "for this checkpoint"
    assert "Failed: lost, seed 0" in (folder / "grid" / "table.md").read_text()


def test_a_dry_run_lists_and_runs_nothing(folder, begun, capsys):
    grid(folder, "--dry-run").run()
    lines = capsys.readouterr().out.splitlines()
    assert begun == [] and not (folder / "grid").exists() and lines[-1] == "4 of 4 cells are not done"
    commands = [line.split(maxsplit=2)[2] for line in lines if "to run" in line]
    assert len(commands) == 8 and commands[0].startswith(f"understudy train {folder}/train.yaml --optimize.warmup=5")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--train.set", "{polcy: 3}"), "train: unknown setting 'polcy'. Did you mean 'policy'"),
        (("--vary", "{a: {steps: many}}"), "train: .*many"),
        (("--vary", "{a: {seed: 3}}"), "train: 'seed' is set by the grid itself"),
        (("--eval.short.set", "{episodes: 0}"), "short: --episodes 0"),
        (("--eval", "{train: {config: {}}}"), "'train' cannot name an evaluation"),
        (("--vary", "{a b: {}, a/b: {}}"), "'a b' and 'a/b' would share"),
        (("--train.config", "gone.yaml"), "train: no config 'gone.yaml'"),
    ],
)
def test_wrong_grids_are_named_before_anything_runs(folder, begun, words, message):
    with pytest.raises(UsageError, match=message):
        grid(folder, *words).run()
    assert begun == [] and not (folder / "grid").exists()


@pytest.mark.parametrize(
    ("world", "words", "message"),
    [
        ("{type: robot, emulate: true, task: so101-reach}", ("--jobs", "2"), "goes by the clock"),
        ("{type: robot, robot: so101, port: /dev/none}", ("--shard", "1/2"), "one arm"),
        ("{type: robot, emulate: true, task: so101-reach}, videos: 3", (), "short: --videos 3: a film plays"),
        ("{type: robot, emulate: true, task: so101-reach}, workers: 4", (), "short: --workers 4: this world goes by"),
    ],
)
def test_by_the_clock_one_evaluation_runs_at_a_time(folder, begun, world, words, message):
    with pytest.raises(GridError, match=message):
        grid(folder, "--eval.short.set", f"{{world: {world}}}", *words).run()
    assert begun == []


def test_settings_are_products_of_vary_and_cross(folder):
    one = grid(
        folder, "--cross", "{policy.prediction_type: [v, epsilon], optimize.lr: [1.0e-3, 1.0e-4]}", "--seeds", "[5]"
    )
    found = cells(one)
    assert len(found) == 8 and str(found[1]) == "narrow prediction_type=v lr=0.0001, seed 5"
    config = found[-1].steps[0].config
    assert (config.policy.prediction_type.value, config.optimize.lr, config.policy.network.width, config.seed) == (
        "epsilon", 1e-4, 12, 5,
    )  # fmt: skip
    assert [cell.setting for cell in cells(grid(folder, "--vary", "{}", "--seeds", "[0]"))] == ["plain"]


def test_two_grids_do_not_share_a_folder(folder, begun):
    one = grid(folder)
    with grid_run._alone(one, cells(one)), pytest.raises(GridError, match="another `understudy run` works in"):
        grid(folder).run()


def test_shards_are_complete_and_share_no_cell(folder, begun):
    whole = [str(cell) for cell in cells(grid(folder))]
    for number in (1, 2, 3, 4):
        ran = []
        for which in range(1, number + 1):
            part = cells(grid(folder))[which - 1 :: number]
            assert read_shard(f"{which}/{number}") == (which, number)
            ran += [str(cell) for cell in part]
        assert sorted(ran) == sorted(whole)
    with pytest.raises(ValueError, match="counted from 1"):
        grid(folder, "--shard", "0/2")

    grid(folder, "--shard", "1/2").run()
    assert len(begun) == 4 and read_study(folder / "grid" / "table.json").rows[0][7] == 3
    grid(folder, "--shard", "2/2").run()
    assert len(begun) == 8 and read_study(folder / "grid" / "table.json").rows[0][7] == 6
    first = grid(folder, "--shard", "1/2")
    with grid_run._alone(first, cells(first)[::2]):
        grid(folder, "--shard", "2/2").run()  # nobody else's cells
        for words in ([], ["--shard", "1/3"]):
            with pytest.raises(GridError, match="another `understudy run` works in"):
                grid(folder, *words).run()


def test_shipped_grids_can_be_listed(root, tmp_path):
    discover(*Run.DISCOVER)
    paths = sorted((root / "configs" / "grid").glob("*.yaml"))
    assert paths
    for path in paths:
        assert cells(parse(Run, str(path), ["--out", str(tmp_path / "out")]))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_grid_leaves_nobody_behind_and_goes_on(folder):
    """Real processes, two at a time: kill -9 in the middle of training, then the same command again."""
    (folder / "train.yaml").write_text(TRAINING.format(folder=folder).replace("steps: 20", "steps: 1000"))
    command = [sys.executable, "-m", "understudy", "run", str(folder / "grid.yaml"), "--jobs=2", "--vary={one: {}}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while len(list((folder / "grid").glob("*/*/run/last"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it was done before it could be killed"
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "resuming" in "".join(log.read_text() for log in (folder / "grid").glob("*/*/train.log"))
    assert read_study(folder / "grid" / "table.json").rows[0][7] == 6


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_shard_that_is_asked_to_end_saves_and_goes_on(folder):
    """SIGTERM, as a scheduler sends it: status 143, the training is kept, the same command goes on from there."""
    (folder / "train.yaml").write_text(TRAINING.format(folder=folder).replace("steps: 20", "steps: 2000"))
    command = [sys.executable, "-m", "understudy", "run", str(folder / "grid.yaml"), "--shard=1/2", "--vary={one: {}}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not list((folder / "grid").glob("*/*/run/last")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(100) == 128 + signal.SIGTERM
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "resuming" in "".join(log.read_text() for log in (folder / "grid").glob("*/*/train.log"))
    assert [path.parent.name for path in (folder / "grid").glob("*/*/run")] == ["seed0"]


FOREIGN = """
dataset.repo_id: local/demos
dataset.root: {folder}/demos
output_dir: {folder}/elsewhere
policy.type: act
policy.device: cpu
policy.push_to_hub: false
policy.chunk_size: 4
policy.n_action_steps: 2
policy.dim_model: 16
policy.n_heads: 2
policy.dim_feedforward: 16
policy.n_encoder_layers: 1
policy.n_vae_encoder_layers: 1
batch_size: 4
steps: 4
eval_freq: 0
num_workers: 0
wandb.enable: false
"""


def with_foreign(folder: Path, *words) -> Run:
    (folder / "act.yaml").write_text(FOREIGN.format(folder=folder))
    both = {"theirs": {"config": f"{folder}/act.yaml", "set": {"batch_size": 2}}}
    return grid(folder, "--vary", "{narrow: {}}", "--seeds", "[3]", "--foreign", json.dumps(both), *words)


def test_stock_lerobot_trains_beside_ours(folder):
    ours, theirs = cells(with_foreign(folder))
    assert ours.steps[0].words[0] == "train" and theirs.setting == "theirs"
    run = folder / "grid" / "theirs" / "seed3" / "run"
    assert theirs.steps[0].words == (
        "lerobot-train", f"{folder}/act.yaml", "--batch_size=2", "--seed=3", f"--output_dir={run}"
    )  # fmt: skip
    assert theirs.steps[0].config.steps == 4 and f"--output_dir={run}" in theirs.steps[0].config.flags
    assert theirs.steps[1].config.policy == str(run)


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"config": "", "set": {}}, "foreign.theirs needs `config`"),
        ({"config": "nowhere.yaml"}, "foreign.theirs"),
        ({"config": "configs/foreign/lift_act.yaml", "set": {"seed": 3}}, "'seed' is set by the grid itself"),
        ({"config": "configs/foreign/lift_act.yaml", "set": {"steps": "many"}}, "say how many `steps`"),
    ],
)
def test_a_foreign_setting_that_cannot_be_trained_is_refused(folder, part, why):
    with pytest.raises(UsageError, match=why):
        cells(grid(folder, "--foreign", json.dumps({"theirs": part})))


@pytest.mark.slow
def test_a_policy_of_lerobots_is_trained_and_judged_in_a_grid(folder, begun):
    pytest.importorskip("lerobot", reason="its policies are trained by it")
    one = with_foreign(folder)
    one.run()
    assert [words[0] for words in begun] == ["train", "eval", "lerobot-train", "eval"]
    cell = cells(one)[1]
    assert all(state(cell, step) is StepState.done for step in cell.steps)
    assert read_study(folder / "grid" / "table.json").rows[1][:2] == ("theirs", "short")
    begun.clear()
    one.run()
    assert begun == []
    other = json.dumps({"theirs": {"config": f"{folder}/act.yaml", "set": {"batch_size": 3}}})
    with pytest.raises(GridError, match="theirs, seed 3: train was run with flags"):
        grid(folder, "--vary", "{narrow: {}}", "--seeds", "[3]", "--foreign", other).run()
    (cell.steps[0].place / "checkpoints" / "last").unlink()  # killed before its end
    assert state(cell, cell.steps[0]) is StepState.fresh


def test_a_cell_is_judged_twice_by_one_evaluator(folder, tmp_path):
    grid, once = tmp_path / "grid.yaml", "{config: {world: {type: point, horizon: 8}, episodes: 3}, set: {videos: 0}}"
    grid.write_text(
        f"out: {tmp_path}/grid\ntrain: {{config: {folder}/train.yaml}}\neval: {{truth: {once}, again: {once}}}\n"
        "seeds: [0]\nvary: {narrow: {}}\n"
    )
    assert main(["run", str(grid)]) == 0
    (cell,) = cells(parse(Run, str(grid), []))
    assert [state(cell, step) for step in cell.steps] == [StepState.done] * 3


def test_a_training_from_pictures_is_done_when_the_grid_is_run_again(folder, tmp_path):
    """How its cameras look, and whose encoders it took over, is what the training adds to what was asked for."""
    seen, grid = tmp_path / "seen", tmp_path / "grid.yaml"
    world = "{type: point, cameras: {top: [24, 24]}}"
    assert main(["demos", "point", "--world", world, "--episodes", "2", "--out", str(seen)]) == 0
    vision = "{encoder: {type: resnet18, width: 16, blocks: [1, 1, 1], keypoints: 4, features: 8}"
    first = f"{vision}, size: [16, 16], crop: [12, 12]}}"
    second = f"{{init: {tmp_path}/grid/own/seed0/run, frozen: true}}"
    grid.write_text(
        f"out: {tmp_path}/grid\ntrain: {{config: {folder}/train.yaml, set: {{data: {seen}, steps: 2, save_every: 2, "
        "policy.needs: [observation.state, observation.images.top]}}\n"
        f"seeds: [0]\nvary: {{own: {{policy.vision: {first}}}, taken: {{policy.vision: {second}}}}}\n"
    )
    for _ in range(2):
        assert main(["run", str(grid)]) == 0
    for cell in cells(parse(Run, str(grid), [])):
        assert all(state(cell, step) is StepState.done for step in cell.steps)

    asked = grid.read_text()
    for other, differs in (("[10, 10]", "crop"), (None, "vision")):
        vision = "null" if other is None else first.replace("[12, 12]", other)
        grid.write_text(asked.replace(first, vision))
        with pytest.raises(GridError, match=f"own.*{differs}"):
            [state(cell, step) for cell in cells(parse(Run, str(grid), [])) for step in cell.steps]
