"""Doors of a run: what a resume takes and refuses, what --init hands on, who owns the folder, what is believed."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from understudy.__main__ import main
from understudy.configs.episode import Episode
from understudy.configs.owner import owned
from understudy.configs.spec import Embodiment, EmbodimentError, Window
from understudy.policies.critics.iql import IQLConfig
from understudy.policies.data.task_spec import ActionScale, TaskSpec, load_task_spec
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.learning import links
from understudy.policies.learning.checkpoint import CheckpointError, find_checkpoint, load_model
from understudy.policies.learning.doors import DoorError
from understudy.policies.learning.loop import Loop
from understudy.policies.learning.optimizer import Optimize
from understudy.policies.learning.train import Resume, Train
from understudy.policies.load import load_policy, save_mixture
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig

BODY = Embodiment(
    name="walker", action=("x", "y"), action_units=("m", "m"), limits=((-900.0, 900.0), (-900.0, 900.0)), rate=10.0,
    state=("x", "y"), state_units=("m", "m"),
)  # fmt: skip


def record(root: Path, centre=0.0, spread=1.0, body=BODY, action_centre=None, episodes=6) -> Path:
    """Short episodes of states around a centre, whose actions are 0.9 of them."""
    rng, writer = np.random.default_rng(0), DatasetWriter(root, body)
    for start in range(episodes):
        state = (centre + spread * rng.normal(size=(10, 2))).astype(np.float32)
        action = state * np.float32(0.9)
        if action_centre is not None:
            action = (action_centre + rng.normal(size=(10, 2))).astype(np.float32)
        none = np.zeros(10, np.float32)
        ends = np.arange(10) == 9
        writer.add(
            Episode(
                start=start, task="walk", obs={"observation.state": state}, action=action, sent=action, reward=none,
                progress=none, success=ends, terminated=True, truncated=False,
            )
        )  # fmt: skip
    return root


def settings(data: Path, out: Path, **changes) -> Train:
    policy = DiffusionConfig(
        window=Window(observe=(0,), horizon=4),
        n_action_steps=2,
        network=MLPConfig(width=16, depth=1, condition_width=8),
    )
    plain = Train(
        data=str(data), out=out, policy=policy, steps=20, batch=16, optimize=Optimize(warmup=5, lr=1e-3, ema=0.9),
        validation=0.2, log_every=10, validate_every=10, save_every=10, keep=9, device="cpu", threads=1,
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return record(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> Path:
    return record(tmp_path_factory.mktemp("data") / "big", 500.0, 100.0)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    """A run of 40 steps with a checkpoint every 10."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    settings(data, run, steps=40).run()
    return run


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of it, links and all."""
    return shutil.copytree(trained, tmp_path / "run", symlinks=True)


def stopped_at(run: Path, step: int) -> Path:
    """The run as if it had been killed after the checkpoint of this step."""
    for folder in (run / "checkpoints").iterdir():
        if int(folder.name) > step:
            shutil.rmtree(folder)
    for name in ("last", "best"):
        links.point(run, name, run / "checkpoints" / f"{step:08d}")
    return run


def resave(run: Path, file: str, **tensors) -> None:
    """Change tensors of a file of the last checkpoint, in a checkpoint without digests."""
    path = run / "last" / file
    (run / "last" / "digests.json").unlink(missing_ok=True)
    save_file(load_file(path) | tensors, path)


def model_bytes(run: Path, name="last") -> bytes:
    return (run / name / "model.safetensors").read_bytes()


# what a resume takes


def test_resume_trains_longer_and_says_so(run, capsys):
    assert main(["train", "--resume", str(run), "--steps", "60", "--log-every=5"]) == 0
    said = capsys.readouterr().out
    assert "learning rate" in said and "step 60" in said and "steps is 60 from here on (it was 40)" in said
    assert (run / "last").resolve().name == "00000060" and "steps: 60\n" in (run / "config.yaml").read_text()
    assert [p.name for p in run.iterdir() if p.name.endswith(".part")] == []


def test_longer_training_is_what_it_says(run, trained, data, tmp_path):
    """Resuming at 20 of 20 with 40 steps has the rates of 40 from there on: as if config.yaml had said so."""
    short = stopped_at(run, 20)
    (short / "config.yaml").write_text((short / "config.yaml").read_text().replace("steps: 40\n", "steps: 20\n"))
    Train(resume=short, steps=40).run()
    assert model_bytes(short) == model_bytes(trained)


@pytest.mark.parametrize(
    "words",
    [["--batch", "8"], ["--seed=1"], ["--optimize.lr", "0.1"], ["--policy.network.width", "32"], ["--out", "x"]],
)
def test_resume_refuses_what_it_would_drop_by_name(run, words, capsys):
    before = (run / "config.yaml").read_bytes()
    assert main(["train", "--resume", str(run), *words]) == 2
    assert words[0].partition("=")[0] in capsys.readouterr().err and (run / "config.yaml").read_bytes() == before


def test_resume_refuses_a_config_beside_it_and_fewer_steps(run, tmp_path, capsys):
    file = tmp_path / "tiny.yaml"
    shutil.copy(run / "config.yaml", file)
    assert main(["train", str(file), "--resume", str(run)]) == 2 and "tiny.yaml" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--steps", "30"]) == 2
    assert "at step 40 already" in capsys.readouterr().err and "steps: 40\n" in (run / "config.yaml").read_text()


def test_resume_takes_what_the_run_says_already(run):
    Resume(run, ("--batch", "16", "--seed", "0", "--keep", "5")).run()
    assert "keep: 5\n" in (run / "config.yaml").read_text()


def test_resume_in_python_refuses_too(run):
    with pytest.raises(DoorError, match="--batch is not changed"):
        Train(resume=run, batch=8).run()


def test_resume_refuses_other_data_and_takes_moved_ones(run, data, big, tmp_path):
    shutil.copytree(data, tmp_path / "moved")
    Resume(run, ("--data", str(tmp_path / "moved"))).run()
    with pytest.raises(DoorError, match=r"not the one that .* began with.*fingerprint"):
        Resume(run, ("--data", str(big))).run()
    more = record(tmp_path / "more", episodes=7)
    with pytest.raises(DoorError, match="episodes were 6 and are 7; frames were 60 and are 70"):
        Resume(run, ("--data", str(more))).run()


def test_a_dataset_that_grew_in_place_is_noticed(data, tmp_path):
    mine = shutil.copytree(data, tmp_path / "mine")
    settings(mine, tmp_path / "run").run()
    shutil.rmtree(mine)
    record(mine, episodes=8)
    with pytest.raises(DoorError, match="episodes were 6 and are 8.*--init"):
        Resume(tmp_path / "run", ("--steps", "40")).run()


def test_resume_refuses_another_body(run, data, tmp_path):
    (run / "begun_with.json").unlink()  # also of an earlier version's run
    config = (run / "config.yaml").read_text()
    other = record(tmp_path / "other", body=dataclasses.replace(BODY, rate=20.0))
    (run / "config.yaml").write_text(config.replace(str(data), str(other)))
    with pytest.raises(DoorError, match="embodiments differ in rate"):
        Train(resume=run).run()
    (run / "config.yaml").write_text(config)
    Train(resume=run).run()


# how a run begins


def test_a_folder_that_died_early_is_begun_anew(data, tmp_path, trained):
    early = tmp_path / "early"
    (early / "checkpoints").mkdir(parents=True)
    settings(data, early, steps=40).run()
    assert model_bytes(early) == model_bytes(trained)

    torn = tmp_path / "torn"
    (torn / "tb").mkdir(parents=True)
    (torn / "config.yaml").write_text((trained / "config.yaml").read_text()[:200])
    with pytest.raises(DoorError, match=r"config.yaml cannot be read .*begin it anew with: understudy train CONFIG"):
        Train(resume=torn).run()
    settings(data, torn, steps=40).run()
    assert model_bytes(torn) == model_bytes(trained)


def test_resume_of_nothing_says_what_begins_it(tmp_path):
    (tmp_path / "early" / "checkpoints").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"died before it was written. Begin it with: understudy train CONFIG"):
        Train(resume=tmp_path / "early").run()


def test_other_peoples_folders_and_checkpoints_without_settings_are_left_alone(data, run, tmp_path):
    (run / "config.yaml").unlink()
    with pytest.raises(FileExistsError, match="checkpoints but no config.yaml"):
        settings(data, run).run()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="it holds notes.txt"):
        settings(data, tmp_path / "mine").run()
    assert (tmp_path / "mine" / "notes.txt").exists() and (run / "last").exists()


def test_no_space_leaves_no_folder(data, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("understudy.policies.learning.possible.shutil.disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="no space left"):
        settings(data, tmp_path / "deep" / "run").run()
    assert not (tmp_path / "deep").exists()


def test_one_training_owns_a_folder(data, run, tmp_path):
    (tmp_path / "new").mkdir()
    with owned(run), owned(tmp_path / "new"):
        with pytest.raises(ValueError, match="another `understudy train` works in"):
            Train(resume=run).run()
        with pytest.raises(ValueError, match="another `understudy train` works in"):
            settings(data, tmp_path / "new").run()
    settings(data, tmp_path / "new").run()


# what --init hands on


def agrees(run: Path) -> bool:
    """Whether task_spec.yaml is the scale of the weights."""
    spec, held = load_task_spec(run).scale, load_file(run / "last" / "model.safetensors")
    low, high = torch.tensor(spec.low), torch.tensor(spec.high)
    return torch.equal(held["action_scale.mean"], (low + high) / 2) and torch.equal(
        held["action_scale.std"], (high - low) / 2
    )


def test_fine_tuning_takes_the_scales_of_its_data(big, run, tmp_path, capsys):
    settings(big, tmp_path / "tuned", init=run, steps=200).run()
    said = capsys.readouterr().out
    assert "action_scale is new" in said and "state_scales.observation_state is new" in said
    policy, _ = load_policy(tmp_path / "tuned")
    assert agrees(run) and agrees(tmp_path / "tuned") and policy.action_scale.mean.min() > 300
    plans = policy.action_scale.unscale(torch.zeros(2))
    assert (plans > 99).all() and policy.state_scales["observation_state"].mean.min() > 400
    last = json.loads((tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["validation/action_error"] < 1


def test_fine_tuning_on_other_states_only_and_with_a_constant(run, tmp_path):
    moved = record(tmp_path / "moved", centre=500.0, action_centre=0.0)
    settings(moved, tmp_path / "a", init=run).run()
    policy, _ = load_policy(tmp_path / "a")
    assert agrees(tmp_path / "a") and abs(policy.state_scales["observation_state"].mean - 500).max() < 5


def test_the_parents_scale_is_shared_on_request_where_the_data_fit(data, big, run, tmp_path):
    shared = settings(data, tmp_path / "shared", init=run, scale=f"from:{run}", seed=3, validation=0.5)
    shared.run()
    ours, theirs = (load_policy(folder)[0] for folder in (tmp_path / "shared", run))
    assert torch.equal(ours.action_scale.std, theirs.action_scale.std) and agrees(tmp_path / "shared")
    for changes in ({"scale": f"from:{run}"}, {"task_spec": TaskSpec(scale=ActionScale(low=(-1, -1), high=(1, 1)))}):
        with pytest.raises(ValueError, match="pinned scale does not hold the data: action"):
            settings(big, tmp_path / "no", init=run, **changes).run()
    assert not (tmp_path / "no").exists()


def test_a_scale_that_a_run_does_not_act_in_is_not_handed_on(data, run, tmp_path):
    text = (run / "task_spec.yaml").read_text()
    (run / "task_spec.yaml").write_text(text.replace("high:\n  - ", "high:\n  - 7"))
    with pytest.raises(ValueError, match="another action scale than its weights"):
        settings(data, tmp_path / "no", scale=f"from:{run}").run()


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 20.0}, {"action": ("y", "x")}, {"state": ("y", "x")}, {"action_units": ("mm", "mm")},
        {"state_units": ("m", "deg")}, {"frame": "tool"},
    ],
)  # fmt: skip
def test_init_refuses_another_body_and_leaves_nothing(run, tmp_path, change):
    other = record(tmp_path / "other", body=dataclasses.replace(BODY, **change))
    with pytest.raises(DoorError, match="was trained for another body"):
        settings(other, tmp_path / "no", init=run).run()
    assert not (tmp_path / "no").exists()


def test_init_refuses_other_networks_and_kinds_and_leaves_nothing(data, run, tmp_path):
    wide = dataclasses.replace(settings(data, run).policy, network=MLPConfig(width=32, depth=1, condition_width=8))
    with pytest.raises(CheckpointError, match="does not fit"):
        settings(data, tmp_path / "no", init=run, policy=wide).run()
    critic = IQLConfig(window=Window(observe=(0,), horizon=4), widths=(8,))
    with pytest.raises(CheckpointError, match="holds a policy; a critic begins with"):
        settings(data, tmp_path / "no", init=run, policy=None, critic=critic).run()
    resave(run, "model.safetensors", **{"action_scale.std": torch.tensor([float("nan")] * 2)})
    with pytest.raises(CheckpointError, match="'action_scale.std' in .* holds NaN"):
        settings(data, tmp_path / "no", init=run / "last").run()
    assert not (tmp_path / "no").exists()


def test_a_critic_is_fine_tuned_in_the_scales_of_its_data(data, big, tmp_path):
    critic = IQLConfig(window=Window(observe=(0,), horizon=4), widths=(8,))
    settings(data, tmp_path / "a", policy=None, critic=critic).run()
    settings(big, tmp_path / "b", policy=None, critic=critic, init=tmp_path / "a").run()
    held = load_file(tmp_path / "b" / "last" / "model.safetensors")
    means = {name: value for name, value in held.items() if name.endswith("action_scale.mean")}
    spec = load_task_spec(tmp_path / "b").scale
    expected = (torch.tensor(spec.low) + torch.tensor(spec.high)) / 2
    assert means and all(torch.equal(value, expected) for value in means.values())


def test_init_is_applied_again_where_the_run_died_before_its_first_checkpoint(big, run, tmp_path, monkeypatch):
    settings(big, tmp_path / "whole", init=run).run()

    def dies(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "fit", dies)
        with pytest.raises(KeyboardInterrupt):
            settings(big, tmp_path / "killed", init=run).run()
    Train(resume=tmp_path / "killed").run()
    assert model_bytes(tmp_path / "killed") == model_bytes(tmp_path / "whole")

    shutil.rmtree(run)  # a run with a checkpoint needs its parent no more
    Resume(tmp_path / "whole", ("--steps", "30")).run()


# copies and links


def test_a_copied_run_goes_on(run, trained, tmp_path):
    copy = shutil.copytree(stopped_at(run, 30), tmp_path / "copy")  # follows links
    assert not (copy / "last").is_symlink() and load_policy(copy / "last")[1]["step"] == 30
    Train(resume=copy).run()
    assert links.linked(copy, "last") == (copy / "checkpoints" / "00000040").resolve()
    assert model_bytes(copy) == model_bytes(trained) and not list(copy.glob(".*"))
    assert load_policy(copy)[1]["step"] == links.step_of(find_checkpoint(trained))


def test_a_run_without_links_goes_on(run, trained, data, tmp_path, monkeypatch):
    def no_links(self, target):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    settings(data, tmp_path / "plain", steps=30).run()
    assert (tmp_path / "plain" / "last").read_text() == "checkpoints/00000030\n"
    assert load_policy(tmp_path / "plain" / "last")[1]["step"] == 30 and find_checkpoint(tmp_path / "plain")
    settings(data, tmp_path / "whole", steps=30).run()
    monkeypatch.undo()
    Resume(tmp_path / "plain", ("--steps", "40")).run()
    assert os.readlink(tmp_path / "plain" / "last") == "checkpoints/00000040"


@pytest.mark.parametrize("text", ["../../elsewhere", "checkpoints/99", "/etc", "", "checkpoints/\0"])
def test_a_small_file_names_checkpoints_of_its_run_only(run, text):
    (run / "last").unlink()
    (run / "last").write_text(text)
    assert links.linked(run, "last") is None


def test_lost_links_and_dangling_ones(run):
    for name in ("last", "best"):
        (run / name).unlink()
    assert find_checkpoint(run).name == "00000040"
    Train(resume=run).run()
    (run / "best").unlink(missing_ok=True)  # the checkpoint says that it was the best
    os.symlink("checkpoints/00000077", run / "best")
    with pytest.raises(FileNotFoundError, match="best' names a checkpoint that is not there"):
        find_checkpoint(run)


def test_resume_from_an_older_checkpoint(run, trained):
    Train(resume=run / "checkpoints" / "00000020").run()
    assert model_bytes(run) == model_bytes(trained)


# what is believed of a checkpoint


@pytest.mark.parametrize("file", ["config.json", "embodiment.json", "model.safetensors"])
def test_every_changed_byte_of_what_acts_is_noticed(run, file):
    path = run / "last" / file
    raw = bytearray(path.read_bytes())
    place = raw.index(b"4") if file == "config.json" else len(raw) - 3
    raw[place] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=rf"{file} is .*whole is .*00000030.*--resume .*00000030"):
        load_policy(run / "last")


def test_a_checkpoint_of_an_earlier_version_loads_without_digests(run):
    (run / "last" / "digests.json").unlink()
    load_policy(run / "last")
    Train(resume=run).run()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("action_scale.std", torch.zeros(2, dtype=torch.int32), "holds int32 numbers in place of float32"),
        ("action_scale.std", torch.ones(2, dtype=torch.float16), "holds float16 numbers"),
        ("action_scale.std", torch.ones(2, dtype=torch.float64), "holds float64 numbers"),
        ("action_scale.std", torch.tensor([1.0, -1.0]), "must be positive"),
        ("action_scale.mean", torch.tensor([1.0, float("inf")]), "holds NaN or infinity"),
        ("state_scales.observation_state.std", torch.zeros(2), "must be positive"),
        ("action_scale.std", torch.ones(3), "has the shape"),
        ("more", torch.ones(3), "'more' is unknown"),
    ],
)
def test_weights_that_cannot_be(run, name, value, says):
    resave(run, "model.safetensors", **{name: value})
    with pytest.raises(CheckpointError, match=rf"(?s)(?=.*{name})(?=.*{says})(?=.*model.safetensors)(?=.*00000030)"):
        load_policy(run / "last")


def progress(run: Path, **values) -> None:
    path = run / "last" / "training_state" / "progress.json"
    path.write_text(json.dumps({k: v for k, v in (json.loads(path.read_text()) | values).items() if v != "gone"}))
    (run / "last" / "digests.json").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "values",
    [
        {"step": "gone"}, {"step": float("nan")}, {"step": 7}, {"step": -1}, {"step": True}, {"best": None},
        {"best": float("nan")}, {"seconds": -1.0}, {"seconds": "x"}, {"averaged": 1.5}, {"averaged": "gone"},
    ],
)  # fmt: skip
def test_progress_that_cannot_be(run, values):
    progress(run, **values)
    with pytest.raises(CheckpointError, match=r"progress.json.*newest older checkpoint that is whole is .*00000030"):
        Train(resume=run, steps=60).run()


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b'{"step": 4', b'{"st\0ep": 4}', b"\xff\xfe{}"])
@pytest.mark.parametrize("file", ["progress.json", "optimizer.json"])
def test_documents_of_the_state_that_are_damaged(run, file, content):
    (run / "last" / "training_state" / file).write_bytes(content)
    for digests in (True, False):
        with pytest.raises(CheckpointError, match=rf"{file}.*00000030"):
            Train(resume=run, steps=60).run()
        if digests:
            (run / "last" / "digests.json").unlink()


def test_documents_of_the_optimizer_that_are_of_another(run):
    path = run / "last" / "training_state" / "optimizer.json"
    good = json.loads(path.read_text())
    (run / "last" / "digests.json").unlink()
    for name, value in (("params", [0, 1]), ("weight_decay", 0.5), ("betas", [0.9]), ("lr", "x"), ("eps", None)):
        path.write_text(json.dumps({"param_groups": [good["param_groups"][0] | {name: value}]}))
        with pytest.raises(CheckpointError, match=rf"'{name}' in .*optimizer.json"):
            Train(resume=run, steps=60).run()


@pytest.mark.parametrize("file", ["optimizer", "rng", "weights"])
def test_tensors_of_the_state_that_are_damaged(run, file):
    place = run / "last" / "training_state" / f"{file}.safetensors"
    good = place.read_bytes()
    (run / "last" / "digests.json").unlink()
    for content in (b"", good[: len(good) // 2], b"\xff" * 100):
        place.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{file}.safetensors cannot be read.*00000030"):
            Train(resume=run, steps=60).run()
    place.unlink()
    with pytest.raises(CheckpointError, match=rf"{file}.safetensors cannot be read.*00000030"):
        Train(resume=run, steps=60).run()


def test_moments_that_cannot_be(run):
    file = "training_state/optimizer.safetensors"
    good = load_file(run / "last" / file)
    matrix = next(name for name, value in good.items() if value.ndim == 2 and len(set(value.shape)) == 2)
    second = matrix.partition(".")[0] + ".exp_avg_sq"
    bad = {
        "has the shape": {second: good[second].T.contiguous()}, "below 0": {second: -1 - good[second]},
        "NaN": {matrix: good[matrix] * float("nan")}, "float64": {matrix: good[matrix].double()},
        "at step 40": {matrix.partition(".")[0] + ".step": torch.tensor(99.0)},
        "unknown": {"999.exp_avg": torch.ones(1)},
    }  # fmt: skip
    for says, tensors in bad.items():
        resave(run, file, **tensors)
        with pytest.raises(CheckpointError, match=rf"optimizer.safetensors.*{says}|{says}"):
            Train(resume=run, steps=60).run()
        save_file(good, run / "last" / file)
    save_file({name: value for name, value in good.items() if name != second}, run / "last" / file)
    with pytest.raises(CheckpointError, match=f"'{second}' is missing"):
        Train(resume=run, steps=60).run()
    save_file({"cpu": torch.zeros(5, dtype=torch.uint8)}, run / "last" / "training_state" / "rng.safetensors")
    save_file(good, run / "last" / file)
    with pytest.raises(CheckpointError, match="rng.safetensors is no state of a generator"):
        Train(resume=run, steps=60).run()


def test_damaged_lines_of_a_log_are_left_out(run, capsys):
    log = run / "metrics.jsonl"
    raw = bytearray(log.read_bytes())
    raw[20:36] = bytes(16)
    log.write_bytes(raw + b'{"step": 40, "lo' + b'{"step": 40}\n' + b"[1]\n" + b'{"loss": 3}\n' + b'{"step": 4')
    Train(resume=run, steps=50).run()
    assert f"warning: 4 lines of {log} could not be read" in capsys.readouterr().out
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 50 and b"\0" not in log.read_bytes()


CARDS = [b"", b"null", b"[1]", b"3", b'{"action": ["x"', b'{"rate": \0}', b"\xe1", b'{"action": 3}', b'{"rate": 5}']


@pytest.mark.parametrize("content", CARDS)
def test_damaged_cards_are_named(run, data, tmp_path, content):
    mine = shutil.copytree(data, tmp_path / "mine")
    (mine / "meta" / "embodiment.json").write_bytes(content)
    with pytest.raises(EmbodimentError, match="embodiment.json"):
        Embodiment.load(mine / "meta" / "embodiment.json")
    (run / "last" / "embodiment.json").write_bytes(content)
    (run / "last" / "digests.json").unlink()
    with pytest.raises(CheckpointError, match=r"embodiment.json.*00000030"):
        load_policy(run / "last")
    with pytest.raises((CheckpointError, DoorError), match="embodiment.json"):
        Train(resume=run).run()


@pytest.mark.parametrize(
    ("key", "value"),
    [("rate", float("nan")), ("rate", float("inf")), ("rate", "x"), ("rate", -1), ("mode", "sideways"), ("mode", 3),
     ("action", "xy"), ("action", ["x"]), ("limits", [[0, 1]]), ("limits", [[0, 1], [1, 0]]), ("limits", [0, 1]),
     ("cameras", [1]), ("cameras", {"top": [0, 4]}), ("name", 3), ("state_units", {"x": "m"})],
)  # fmt: skip
def test_embodiments_that_cannot_be(tmp_path, key, value):
    values = json.loads(BODY.to_json()) | {key: value}
    (tmp_path / "card.json").write_text(json.dumps(values))
    with pytest.raises(EmbodimentError, match="card.json"):
        Embodiment.load(tmp_path / "card.json")


NAMED = b'{"kind": "policy", "type": "diffusion"'


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"7", NAMED, NAMED + b"}", NAMED + b', "config": {"widow": 1}}', b'{"kind": 3}']
)
def test_damaged_settings_of_a_checkpoint_are_named(run, content):
    (run / "last" / "config.json").write_bytes(content)
    (run / "last" / "digests.json").unlink()
    with pytest.raises(CheckpointError, match=r"config.json|holds a"):
        load_model(run / "last", "policy")


def test_mixtures_carry_digests_of_their_parents(run, tmp_path):
    from understudy.policies.compositions.mixture import Mixture

    folders = [run / "checkpoints" / "00000030", run / "checkpoints" / "00000040"]
    save_mixture(tmp_path / "mix", Mixture([load_policy(folder)[0] for folder in folders], (0.5, 0.5)), folders)
    load_policy(tmp_path / "mix")
    file = tmp_path / "mix" / "parents" / "1" / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-2] ^= 4
    file.write_bytes(raw)
    with pytest.raises(CheckpointError, match="parents/1/model.safetensors is not the file that was saved"):
        load_policy(tmp_path / "mix")
    shutil.rmtree(file.parent)
    with pytest.raises(CheckpointError, match="parents/1/"):
        load_policy(tmp_path / "mix")


def test_doctor_tells_it(run, capsys):
    assert main(["doctor", str(run)]) == 0
    assert "all files are those that were saved" in capsys.readouterr().out
    (run / "metrics.jsonl").write_bytes(b"\0\n" + (run / "metrics.jsonl").read_bytes())
    (run / "checkpoints" / ".00000050.1.half").mkdir()
    assert main(["doctor", str(run)]) == 0
    said = capsys.readouterr().out
    assert "1 cannot be read" in said and ".00000050.1.half" in said
    (run / "last" / "training_state" / "progress.json").write_text("{}")
    with pytest.raises(SystemExit):
        main(["doctor", str(run / "last")])
    assert "progress.json is not the file that was saved" in capsys.readouterr().out
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(SystemExit):
        main(["doctor", str(run)])
    assert "config.yaml cannot be read" in capsys.readouterr().out


def test_what_a_killed_training_left_half_made_is_cleared(run):
    left = run / ".best.99999999.part"  # no process has this number
    left.symlink_to("checkpoints/00000020")
    Train(resume=run).run()
    assert not left.is_symlink()
