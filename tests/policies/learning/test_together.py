"""Two processes train as one with the doubled batch; they stop and go on together; one of them writes.

Each training of two processes is a start of two (gloo, CPU).
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import draccus
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from understudy.configs.episode import Episode
from understudy.configs.spec import IMAGES, STATE, Embodiment, Window
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.learning.crew import Crew, PartOrder
from understudy.policies.learning.loop import BatchOrder
from understudy.policies.learning.optimizer import Optimize
from understudy.policies.learning.train import Train, resume_run, start_run
from understudy.policies.load import load_policy
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.models.regression import RegressionConfig
from understudy.policies.networks.augment import Augment
from understudy.policies.networks.eyes import Vision
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.networks.resnet import ResNetConfig

pytestmark = pytest.mark.timeout(600)
slow = pytest.mark.slow
SIDE, STEPS, STOP = 16, 12, 6
BODY = Embodiment(
    name="dot", action=("x", "y"), action_units=("m", "m"), limits=((-1.0, 1.0), (-1.0, 1.0)), rate=10.0,
    state=("x", "y"), state_units=("m", "m"), cameras={"top": (SIDE, SIDE)},
)  # fmt: skip
STATES = {
    "window": Window(horizon=4),
    "n_action_steps": 2,
    "network": MLPConfig(width=16, depth=1, condition_width=8, dropout=0.0),
}
STILL = Augment(shift=0, brightness=0, contrast=0, saturation=0)
ENCODER = ResNetConfig(width=16, blocks=(1,), keypoints=4, features=8)
CLOSE = {"rtol": 1e-4}  # float32 sums in another order differ by 1e-7; AdamW divides small gradients by small moments
SCRIPT = """
import os, signal, sys
from understudy.configs.parse import parse
from understudy.configs.plugins import discover
from understudy.policies.learning.loop import Interrupted, Loop
from understudy.policies.learning.train import Train, resume_run, start_run

discover("policies")
own, take_step = os.environ["RANK"], Loop.take_step

def stopped(loop):
    take_step(loop)
    if own == "1" and loop.step == {stop}:
        os.kill(os.getpid(), signal.SIGTERM)

for job in sys.argv[1:]:
    what, _, path = job.partition(":")
    Loop.take_step = stopped if what == "stop" else take_step
    try:
        path = path.replace("RANK", own)
        resume_run(path) if what == "resume" else start_run(parse(Train, path, []))
    except (Interrupted, ValueError) as stop:
        print("rank", own, "says:", stop, flush=True)
    except SystemExit as end:
        print("rank", own, "ends", end.code, file=sys.stderr, flush=True)
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A folder with the training `states` by one process (states-1) and by two (states-2), and `said.txt`."""
    folder = tmp_path_factory.mktemp("together")
    with _surroundings(folder):
        _demos(folder / "demos")
        start_run(_train(folder, "states-1", POLICIES["states"], batch=16))
        job = _file(_train(folder, "states-2", POLICIES["states"], batch=8))
        (folder / "said.txt").write_text(_together(folder, [job]))
    return folder


@pytest.fixture(scope="module")
def runs(pair):
    """The folder with all others, too, of one process (NAME-1) and of two (NAME-2)."""
    folder = pair
    with _surroundings(folder):
        states, noisy, others = POLICIES["states"], POLICIES["noisy"], [name for name in POLICIES if name != "states"]
        for name in others:
            start_run(_train(folder, f"{name}-1", POLICIES[name], batch=16))
        jobs = [_file(_train(folder, f"{name}-2", POLICIES[name], batch=8)) for name in others]
        jobs += [_file(_train(folder, "parts-2", states, batch=4, accumulate=2))]
        jobs += [_file(_train(folder, "shared-2", states, batch=8, shard=True))]
        jobs += [_file(_train(folder, "stopped-2", noisy, batch=8), "stop"), f"resume:{folder / 'stopped-2'}"]
        shared = _train(folder, "stopped-shared-2", noisy, batch=8, shard=True)
        jobs += [_file(shared, "stop"), f"resume:{shared.out}"]
        jobs += [_file(_train(folder, "noisy-shared-2", noisy, batch=8, shard=True))]
        with (folder / "said.txt").open("a") as said:
            said.writelines(_together(folder, [job]) for job in jobs)
    return folder


@contextmanager
def _surroundings(folder: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDERSTUDY_CACHE", str(folder / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("UNDERSTUDY_TRACEBACK", raising=False)
        yield


POLICIES = {
    "states": RegressionConfig(inputs=(STATE,), **STATES),
    "pictures": RegressionConfig(inputs=(IMAGES + "top",), vision=Vision(encoder=ENCODER, augment=STILL), **STATES),
    "varied": RegressionConfig(inputs=(IMAGES + "top",), vision=Vision(encoder=ENCODER), **STATES),
    "noisy": DiffusionConfig(inputs=(STATE,), **STATES),
}


def _demos(root: Path) -> None:
    rng, writer = np.random.default_rng(0), DatasetWriter(root, BODY, pictures="image")
    none = np.zeros(10, np.float32)
    quiet = {"reward": none, "progress": none, "success": none > 0, "terminated": False, "truncated": True}
    for start in range(8):
        places = rng.uniform(-0.9, 0.9, (10, 2)).astype(np.float32)
        pictures = rng.integers(0, 255, (10, SIDE, SIDE, 3)).astype(np.uint8)
        obs = {STATE: places, IMAGES + "top": pictures}
        writer.add(Episode(start=start, task="point", obs=obs, action=places, sent=places, **quiet))


def _train(folder: Path, name: str, policy, **changes) -> Train:
    pace = {"log_every": 1, "validate_every": STOP, "save_every": STEPS, "validation": 0.2, "threads": 1}
    return Train(
        data=str(folder / "demos"), out=folder / name, policy=policy, steps=STEPS, device="cpu",
        optimize=Optimize(warmup=3), **pace, **changes,
    )  # fmt: skip


def _file(config: Train, what: str = "start") -> str:
    file = config.out.with_suffix(".yaml")
    file.write_text(draccus.dump(config))
    return f"{what}:{file}"


def _together(folder: Path, jobs: list[str]) -> str:
    script = folder / "together.py"
    script.write_text(SCRIPT.replace("{stop}", str(STOP)))
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*start, str(script), *jobs], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def _rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _curve(run: Path, key: str = "loss") -> list[float]:
    return [row[key] for row in _rows(run) if key in row]


@pytest.mark.parametrize("name", ["states", pytest.param("pictures", marks=slow)])
def test_two_processes_learn_as_one_with_the_doubled_batch(request, name):
    folder = request.getfixturevalue("pair" if name == "states" else "runs")
    one, two = (folder / f"{name}-{count}" for count in (1, 2))
    for key in ("loss", "gradient_norm", "lr", "validation/loss"):
        assert len(_curve(one, key)) in (2, STEPS)
        np.testing.assert_allclose(_curve(two, key), _curve(one, key), **CLOSE)


@slow
@pytest.mark.parametrize("name", ["varied", "noisy"])
def test_what_is_drawn_differs_and_the_rest_is_equal(runs, name):
    one, two = (runs / f"{name}-{count}" for count in (1, 2))
    assert _curve(two, "lr") == _curve(one, "lr")
    assert _curve(two) != _curve(one)
    assert np.mean(_curve(two)) == pytest.approx(np.mean(_curve(one)), rel=0.2)
    states = load_file(two / "last" / "training_state" / "rng.safetensors")
    assert not torch.equal(states["cpu"], states["1/cpu"])


@slow
@pytest.mark.parametrize("name", ["parts", "shared"])
def test_accumulated_and_shared_out_it_is_the_same_curve(runs, name):
    np.testing.assert_allclose(_curve(runs / f"{name}-2"), _curve(runs / "states-1"), **CLOSE)
    one, two = (load_file(runs / run / "last" / "model.safetensors") for run in ("states-1", f"{name}-2"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-5)


@slow
@pytest.mark.parametrize(("stopped", "whole"), [("stopped-2", "noisy-2"), ("stopped-shared-2", "noisy-shared-2")])
def test_stopped_by_a_signal_to_one_and_resumed_it_ends_with_the_same_bits(runs, stopped, whole):
    for file in ("model.safetensors", "training_state/weights.safetensors", "training_state/rng.safetensors"):
        assert (runs / stopped / "last" / file).read_bytes() == (runs / whole / "last" / file).read_bytes()
    assert [row["step"] for row in _rows(runs / stopped)] == [row["step"] for row in _rows(runs / whole)]
    assert _curve(runs / stopped) == _curve(runs / whole)


@slow
def test_the_first_process_alone_speaks_and_writes_what_one_can_open(runs):
    said = (runs / "said.txt").read_text()
    assert said.count("stopped at step 6 and saved") == 2 and "rank 1 says" not in said
    assert said.count("16 windows a step: 2 x 2 x 4") == 1 and "weights shared out" in said
    assert len(_curve(runs / "states-2")) == STEPS
    assert sorted(path.name for path in (runs / "states-2" / "checkpoints").iterdir()) == ["00000006", "00000012"]
    policy, _ = load_policy(runs / "shared-2")
    assert policy.window.horizon == 4


def test_another_number_of_processes_is_refused(pair):
    with pytest.raises(ValueError, match="asks for 2 processes, and one is here"):
        resume_run(pair / "states-2")
    with pytest.raises(ValueError, match="--processes asks for 3 processes, and one is here"):
        start_run(dataclasses.replace(_train(pair, "none", POLICIES["states"]), processes=3))


def test_processes_with_other_data_or_settings_do_not_train_together(pair):
    other, config = pair / "other", _train(pair, "unlike", POLICIES["states"], batch=8)
    shutil.copytree(pair / "demos", other / "demos")
    file = min((other / "demos" / "data").rglob("*.parquet"))
    table = pq.read_table(file)
    place = table.column_names.index("action")
    pq.write_table(table.set_column(place, table.field(place), table["action"].take([*range(len(table))][::-1])), file)
    _file(config)
    (pair / "unlike.yaml").rename(pair / "unlike-0.yaml")
    unlike = dataclasses.replace(config, data=str(other / "demos"), seed=1)
    (pair / "unlike-1.yaml").write_text(draccus.dump(unlike))
    with _surroundings(pair):
        said = _together(pair, [f"start:{pair / 'unlike-RANK.yaml'}"])
    assert "process 1 has another dataset, process 1 has another value of a setting than the first" in said
    assert "rank 1 ends 2" in said and not config.out.exists()


def test_a_step_that_would_find_too_few_windows_is_refused(pair):
    config = _train(pair, "none", POLICIES["states"], batch=40, accumulate=2)
    with pytest.raises(ValueError, match="a step takes 80 windows .*and there are 60"):
        start_run(config)
    assert not config.out.exists()


def test_every_window_of_a_step_is_of_one_process():
    order = BatchOrder(50, 16, seed=0)
    parts = [PartOrder(order, Crew(rank, 4)).indices(2).tolist() for rank in range(4)]
    assert sorted(sum(parts, [])) == sorted(order.indices(2).tolist()) and len({*sum(parts, [])}) == 16
