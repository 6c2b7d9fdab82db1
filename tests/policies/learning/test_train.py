"""The one training loop: exact resume after kill -9, atomic checkpoints, refusals before hours are lost."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import draccus
import numpy as np
import pytest
import torch

from understudy.configs.episode import Episode
from understudy.configs.spec import Embodiment, EmbodimentError, Window
from understudy.policies.data.dataset import DatasetError
from understudy.policies.data.task_spec import ActionScale, Mirror, Reflection, TaskSpec, load_task_spec
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.learning import checkpoint as checkpoints
from understudy.policies.learning.checkpoint import CheckpointError, find_checkpoint, rotate
from understudy.policies.learning.doors import held_out_in
from understudy.policies.learning.examine import examine_run
from understudy.policies.learning.loop import BatchOrder, Best, Interrupted, Loop
from understudy.policies.learning.optimizer import Optimize
from understudy.policies.learning.train import Train
from understudy.policies.load import load_policy
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig

EMBODIMENT = Embodiment(
    name="walker", action=("x", "y"), action_units=("m", "m"), limits=((-1.0, 1.0), (-1.0, 1.0)), rate=10.0,
    state=("x", "y"), state_units=("m", "m"),
)  # fmt: skip


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> Path:
    """12 short episodes of a point that walks to the origin."""
    root, rng = tmp_path_factory.mktemp("walk") / "demos", np.random.default_rng(0)
    writer = DatasetWriter(root, EMBODIMENT)
    for start in range(12):
        state = rng.uniform(-1, 1, 2) * 0.8 ** np.arange(20)[:, None]
        action = (0.8 * state).astype(np.float32)
        none = np.zeros(20, np.float32)
        writer.add(
            Episode(
                start=start,
                task="walk",
                obs={"observation.state": state.astype(np.float32)},
                action=action,
                sent=action,
                reward=none,
                progress=none,
                success=none.astype(bool),
                terminated=False,
                truncated=True,
            )  # fmt: skip
        )
    return root


def settings(demos: Path, out: Path, **changes) -> Train:
    policy = DiffusionConfig(
        window=Window(horizon=4), n_action_steps=2, network=MLPConfig(width=16, depth=1, condition_width=8, dropout=0.1)
    )
    plain = Train(
        data=str(demos), out=out, policy=policy, steps=60, batch=32, optimize=Optimize(warmup=5), validation=0.2,
        log_every=10, validate_every=20, save_every=20, device="cpu", threads=1,
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def weights(run: Path, link="last") -> bytes:
    return (run / link / "model.safetensors").read_bytes()


def spawn(config: Train, folder: Path, *prelude: str) -> subprocess.Popen:
    """`understudy train` in a process of its own, after the lines of `prelude`."""
    file = folder / f"{config.out.name}.yaml"
    file.write_text(draccus.dump(config))
    script = "\n".join(
        [*prelude, "import sys", "from understudy.__main__ import main", f"sys.exit(main(['train', {str(file)!r}]))"]
    )
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def records(run: Path) -> list[dict]:
    """What the run measured, without its clocks."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in ("rate", "seconds")} for line in lines]


def wait_for(path: Path, process: subprocess.Popen, seconds=100.0) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists(), process.communicate()


@pytest.mark.parametrize("wrote", ["0.10", "0.11"])
def test_a_checkpoint_loads_whichever_draccus_wrote_it(tmp_path, monkeypatch, wrote):
    """0.11 leaves out the type of the outermost choice, unless it is told the base class."""
    encode = draccus.encode

    def as_of(config, *declared):
        plain = {name: value for name, value in encode(config, *declared).items() if name != "type"}
        return {"type": config.get_choice_name(type(config))} | plain if wrote == "0.10" else plain

    monkeypatch.setattr(checkpoints.draccus, "encode", as_of)
    config = DiffusionConfig(window=Window(horizon=4), n_action_steps=2, network=MLPConfig(width=16, depth=1))
    policy = config.build(EMBODIMENT, checkpoints.blank_scales(EMBODIMENT))
    checkpoints.save_checkpoint(tmp_path / "run", policy, kind="policy", config=config)
    document = json.loads((tmp_path / "run" / "config.json").read_text())
    assert list(document["config"])[0] == "type" and document["config"]["type"] == document["type"] == "diffusion"
    assert document["config"]["network"]["type"] == "mlp"
    assert load_policy(tmp_path / "run")[0].config == config

    del document["config"]["type"]  # written beside 0.11 before this was known
    (tmp_path / "run" / "digests.json").unlink()
    (tmp_path / "run" / "config.json").write_text(json.dumps(document))
    assert load_policy(tmp_path / "run")[0].config == config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"validation": 0.0}, "no episode is held out (validation is 0)"),
        ({"episodes": "3", "batch": 8}, "no episode is held out (the data have one episode alone)"),
    ],
)
def test_a_training_that_holds_nothing_out_says_so_before_it_begins(demos, tmp_path, capsys, changes, words):
    settings(demos, tmp_path / "run", steps=2, **changes).run()
    said = capsys.readouterr().out
    assert said.index(words) < said.index("trained to step 2")
    assert held_out_in(tmp_path / "run") == 0
    assert any("(none held out)" in finding.detail for finding in examine_run(tmp_path / "run"))
    settings(demos, tmp_path / "other", steps=2).run()
    assert "no episode is held out" not in capsys.readouterr().out and held_out_in(tmp_path / "other") == 2


def test_a_run_learns_and_keeps_its_records(demos, tmp_path, capsys):
    run = tmp_path / "run"
    settings(demos, run, steps=300, optimize=Optimize(lr=3e-3, warmup=5)).run()
    losses = [record["loss"] for record in records(run) if "loss" in record]
    errors = [r["validation/action_error"] for r in records(run) if "validation/action_error" in r]
    assert losses[-1] < 0.6 * losses[0] and errors[-1] < 0.8 * errors[0]
    assert (run / "last").resolve().name == "00000300" and os.readlink(run / "last") == "checkpoints/00000300"
    assert list((run / "tb").iterdir()) and (run / "task_spec.yaml").exists()
    assert "trained to step 300" in capsys.readouterr().out
    policy, info = load_policy(run / "last")
    assert info["step"] == 300 and policy.embodiment == EMBODIMENT
    assert not any(p.name.endswith((".pkl", ".pt", ".bin")) for p in run.rglob("*"))


def test_best_is_the_least_held_out_error_or_not_marked(demos, tmp_path):
    settings(demos, tmp_path / "marked", keep=9).run()
    errors = {r["step"]: r["validation/action_error"] for r in records(tmp_path / "marked") if "validation/loss" in r}
    assert load_policy(tmp_path / "marked")[1]["step"] == min(errors, key=errors.get)
    settings(demos, tmp_path / "unmarked", best=Best.none).run()
    assert not (tmp_path / "unmarked" / "best").exists() and load_policy(tmp_path / "unmarked")[1]["step"] == 60


@pytest.mark.parametrize("has_it", (False, True))
def test_precision_auto_is_settled_by_the_device_and_kept(demos, tmp_path, monkeypatch, capsys, has_it):
    for module in ("configs.devices", "policies.learning.train"):
        monkeypatch.setattr(f"understudy.{module}.computes_bf16", lambda device: has_it)
    for word in ("auto", "bf16"):
        settings(demos, tmp_path / word, precision=word, steps=2).run()
    said, kept = capsys.readouterr(), [(tmp_path / word / "config.yaml").read_text() for word in ("auto", "bf16")]
    assert [
        ("precision: bf16" in text, "no instructions for bf16" in told) for text, told in zip(kept, said, strict=True)
    ] == [
        (has_it, not has_it),
        (True, not has_it),
    ]
    with pytest.raises(ValueError, match="--precision half: known are no, bf16, auto"):
        settings(demos, tmp_path / "half", precision="half").run()


def test_two_runs_of_one_seed_are_equal_and_of_two_seeds_not(demos, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        settings(demos, tmp_path / name, seed=seed, steps=20).run()
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


def test_resume_after_kill_is_exact(demos, tmp_path):
    """200 steps equal 100 steps, kill -9 and resume: weights bit for bit, metrics without a gap or a repeat."""
    plan = {"steps": 200, "save_every": 100, "validate_every": 50, "keep": 9}
    settings(demos, tmp_path / "whole", **plan).run()
    waits = f"""
import pathlib, time, understudy.policies.data.windows as w
gather, last, after = w.Windows.gather, pathlib.Path({str(tmp_path / "killed" / "last")!r}), []
def slowly(self, i):
    after.extend([1] * (last.resolve().name == "00000100"))
    if len(after) > 20:
        pathlib.Path({str(tmp_path / "waits")!r}).touch()
        time.sleep(100)
    return gather(self, i)
w.Windows.gather = slowly"""
    process = spawn(settings(demos, tmp_path / "killed", **plan), tmp_path, waits)
    wait_for(tmp_path / "waits", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "killed" / "last").resolve().name == "00000100"
    Train(resume=tmp_path / "killed").run()
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    for name in ("weights", "optimizer", "rng"):
        ours, theirs = ((tmp_path / r / "last" / "training_state" / f"{name}.safetensors") for r in ("killed", "whole"))
        assert ours.read_bytes() == theirs.read_bytes(), name
    whole, killed = (
        [json.loads(line) for line in (tmp_path / r / "metrics.jsonl").read_text().splitlines()]
        for r in ("whole", "killed")
    )
    drop = ("rate", "seconds")
    assert [{k: v for k, v in r.items() if k not in drop} for r in killed] == [
        {k: v for k, v in r.items() if k not in drop} for r in whole
    ]


def test_a_checkpoint_half_written_never_becomes_last(demos, tmp_path):
    """The process is killed in the middle of writing its second checkpoint."""
    dying = """
import os, signal, safetensors.torch as st
save, calls = st.save_file, []
def dying(tensors, path, *a, **k):
    calls.append(path)
    if len(calls) == 6:
        open(path, 'wb').write(b'half')
        os.kill(os.getpid(), signal.SIGKILL)
    return save(tensors, path, *a, **k)
st.save_file = dying"""
    config = settings(demos, tmp_path / "run")
    process = spawn(config, tmp_path, dying)
    assert process.wait(60) == -signal.SIGKILL
    run = tmp_path / "run"
    assert sorted(p.name for p in (run / "checkpoints").glob("0*")) == ["00000020"]
    assert (run / "last").resolve().name == "00000020" and load_policy(run)[1]["step"] == 20
    Train(resume=run).run()
    assert load_policy(run / "last")[1]["step"] == 60
    assert not list((run / "checkpoints").glob(".*"))


def test_ctrl_c_saves_and_says_how_to_go_on(demos, tmp_path, monkeypatch):
    advance, handler = Loop._advance, signal.getsignal(signal.SIGINT)

    def pressed(self, progress):
        if self.step == 13:
            os.kill(os.getpid(), signal.SIGINT)
        advance(self, progress)

    monkeypatch.setattr(Loop, "_advance", pressed)
    with pytest.raises(Interrupted, match="saved; go on with: understudy train --resume"):
        settings(demos, tmp_path / "run").run()
    assert (tmp_path / "run" / "last").resolve().name == "00000014"
    assert signal.getsignal(signal.SIGINT) is handler


def test_loss_that_is_not_finite_names_the_batch_and_spares_the_checkpoint(demos, tmp_path, monkeypatch):
    advance = Loop._advance

    def spoiled(self, progress):
        if self.step == 30:
            next(self.model.parameters()).data.fill_(float("nan"))
        advance(self, progress)

    monkeypatch.setattr(Loop, "_advance", spoiled)
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 30; dataset rows \[\d+.*episodes \[\d+"):
        settings(demos, tmp_path / "run").run()
    assert (tmp_path / "run" / "last").resolve().name == "00000020"


def test_full_disk_is_told_and_costs_nothing_saved(demos, tmp_path):
    """The files may grow no more after the first checkpoint, as on a full disk."""
    limited = """
import resource, understudy.policies.learning.loop as loop
save, calls = loop.save_checkpoint, []
def limited(*a, **k):
    calls.append(1)
    if len(calls) == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
    return save(*a, **k)
loop.save_checkpoint = limited"""
    process = spawn(settings(demos, tmp_path / "run"), tmp_path, limited)
    _, errors = process.communicate(timeout=110)
    assert process.returncode not in (0, None)
    assert "could not be written" in errors and "earlier checkpoints are untouched" in errors
    assert load_policy(tmp_path / "run")[1]["step"] == 20
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_no_space_is_refused_before_training(demos, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("understudy.policies.learning.possible.shutil.disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="no space left for checkpoints"):
        settings(demos, tmp_path / "run").run()


def test_bad_input_is_refused_by_name(demos, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("mine")
    with pytest.raises(FileExistsError, match="exists; choose another --out"):
        settings(demos, tmp_path / "taken").run()
    with pytest.raises(ValueError, match="give the dataset and one thing to train"):
        Train().run()
    scene = dataclasses.replace(settings(demos, tmp_path / "x").policy, inputs=("observation.environment_state",))
    with pytest.raises(DatasetError, match="observation.environment_state"):
        settings(demos, tmp_path / "x", policy=scene).run()
    wrong = TaskSpec(scale=ActionScale(low=(0.0,), high=(1.0,)))
    with pytest.raises(ValueError, match="scale.low has 1 numbers, the action has 2"):
        settings(demos, tmp_path / "x", task_spec=wrong).run()
    with pytest.raises(FileNotFoundError, match="not a run"):
        Train(resume=tmp_path / "nothing").run()
    assert not (tmp_path / "x").exists()


def test_scale_is_pinned_and_can_be_taken_from_a_run(demos, tmp_path):
    settings(demos, tmp_path / "first", steps=1).run()
    spec = load_task_spec(f"from:{tmp_path / 'first'}")
    assert len(spec.scale.low) == 2 and spec.scale.low[0] < 0 < spec.scale.high[0]
    settings(demos, tmp_path / "second", steps=1, scale=f"from:{tmp_path / 'first'}", seed=5).run()
    first, second = (load_policy(tmp_path / name)[0] for name in ("first", "second"))
    assert torch.equal(first.action_scale.std, second.action_scale.std)
    with pytest.raises(FileNotFoundError, match="no task spec at"):
        load_task_spec(f"from:{tmp_path / 'third'}")


def test_fine_tuning_starts_from_the_given_weights(demos, tmp_path):
    settings(demos, tmp_path / "first").run()
    still = Optimize(lr=0.0, warmup=1, ema=0.0)
    settings(demos, tmp_path / "second", steps=1, init=tmp_path / "first", optimize=still).run()
    assert weights(tmp_path / "first", "best") == weights(tmp_path / "second")


def test_a_damaged_or_foreign_checkpoint_is_refused(demos, tmp_path):
    settings(demos, tmp_path / "run", steps=1).run()
    folder = find_checkpoint(tmp_path / "run")
    document = json.loads((folder / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match="not a run or checkpoint"):
        load_policy(tmp_path / "other")

    def rewrite(**changes):
        (folder / "config.json").write_text(json.dumps(document | changes))
        (folder / "digests.json").unlink(missing_ok=True)

    rewrite(kind="critic")
    with pytest.raises(CheckpointError, match="holds a critic, not a policy"):
        load_policy(folder)
    rewrite(format=99)
    with pytest.raises(CheckpointError, match="newer understudy"):
        load_policy(folder)
    rewrite(type="telepathy")
    with pytest.raises(LookupError, match="unknown policy type 'telepathy'.*diffusion"):
        load_policy(folder)
    rewrite()
    blob = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(blob[: len(blob) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_policy(folder)


def test_policy_refuses_another_embodiment(demos, tmp_path):
    settings(demos, tmp_path / "run", steps=1).run()
    policy, _ = load_policy(tmp_path / "run")
    policy.embodiment.check(EMBODIMENT, policy.inputs)
    with pytest.raises(EmbodimentError, match="differ in rate: 'walker' has 10.0, 'walker' has 20.0"):
        policy.embodiment.check(dataclasses.replace(EMBODIMENT, rate=20.0), policy.inputs)
    with pytest.raises(EmbodimentError, match="'observation.state' is needed but"):
        policy.embodiment.check(dataclasses.replace(EMBODIMENT, state=(), state_units=()), policy.inputs)
    with pytest.raises(EmbodimentError, match="unit of 'x' differs"):
        policy.embodiment.check(dataclasses.replace(EMBODIMENT, action_units=("mm", "m")), policy.inputs)


def test_rotation_keeps_last_best_newest_and_milestones(tmp_path):
    for step in range(10, 70, 10):
        (tmp_path / "checkpoints" / f"{step:08d}").mkdir(parents=True)
    checkpoints.point(tmp_path, "best", tmp_path / "checkpoints" / "00000010")
    rotate(tmp_path, keep=2, every=30)
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [10, 30, 50, 60]


def test_every_window_comes_once_an_epoch_in_an_order_of_its_own():
    order = BatchOrder(count=100, batch=10, seed=3)
    epochs = [torch.cat([order.indices(e * 10 + i) for i in range(10)]) for e in range(3)]
    assert all(sorted(epoch.tolist()) == list(range(100)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(order.indices(4), BatchOrder(count=100, batch=10, seed=3).indices(4))
    assert len(BatchOrder(count=7, batch=256, seed=0).indices(5)) == 7


def test_learning_rate_rises_then_falls_to_its_end():
    optimize = Optimize(lr=1.0, warmup=10, min_lr_ratio=0.1)
    rates = [optimize.rate(step, 110) for step in range(111)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.55) and rates[110] == pytest.approx(0.1)


def test_mirror_reflects_half_of_the_windows_as_a_whole():
    swap = Reflection(take=(1, 0), sign=(-1.0, -1.0), plus=(2.0, 2.0))
    mirror = Mirror({"action": swap, "observation.state": swap}, ("observation.state",))
    batch = {"action": torch.rand(64, 3, 2), "observation.state": torch.rand(64, 1, 2), "index": torch.arange(64)}
    torch.manual_seed(0)
    seen = mirror(batch)
    flipped = (seen["action"] != batch["action"]).any(-1).any(-1)
    assert torch.equal(flipped, (seen["observation.state"] != batch["observation.state"]).any(-1).any(-1))
    assert 20 < int(flipped.sum()) < 44
    assert torch.allclose(seen["action"][flipped], 2 - batch["action"][flipped].flip(-1))
    with pytest.raises(ValueError, match="says nothing about 'observation.state'"):
        Mirror({"action": swap}, ("observation.state",))


def test_nothing_observed_is_refused_by_name(demos, tmp_path):
    config = settings(demos, tmp_path / "run")
    with pytest.raises(DatasetError, match="`inputs` is empty: nothing would be observed"):
        dataclasses.replace(config, policy=dataclasses.replace(config.policy, inputs=())).run()
    assert not (tmp_path / "run").exists()
