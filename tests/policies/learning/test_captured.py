"""The fast path: data on the device, a recorded step. The same training as before, and what cannot is named."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from understudy.configs.episode import Episode
from understudy.configs.spec import ACTION, IMAGES, STATE, Embodiment, Window
from understudy.policies.data.task_spec import ActionScale, Flip, Mirror, Reflection, TaskSpec
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.learning.captured import WARM, CaptureWarning
from understudy.policies.learning.checkpoint import TRAINING
from understudy.policies.learning.feed import Feed
from understudy.policies.learning.loop import BatchOrder, Loop
from understudy.policies.learning.optimizer import Optimize
from understudy.policies.learning.train import Train, resume_run, start_run
from understudy.policies.load import load_policy
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.models.one_step import OneStepConfig
from understudy.policies.networks.eyes import Vision
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.networks.resnet import ResNetConfig

pytestmark = pytest.mark.usefixtures("cache")

TOP, SIDE = IMAGES + "top", 16
BODY = Embodiment(
    name="walker", action=("x",), action_units=("m",), limits=((-1.0, 1.0),), rate=10.0, state=("x",),
    state_units=("m",), cameras={"top": (SIDE, SIDE)},
)  # fmt: skip
STATES = {
    "window": Window(observe=(-1, 0), horizon=4),
    "n_action_steps": 2,
    "network": MLPConfig(width=16, depth=1, condition_width=8),
}
ENCODER = ResNetConfig(width=16, blocks=(1,), keypoints=4, features=4)


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """A point that walks to the origin."""
    root, rng = tmp_path_factory.mktemp("walk") / "demos", np.random.default_rng(0)
    writer = DatasetWriter(root, BODY, pictures="image")
    for start in range(8):
        state = (rng.uniform(-1, 1) * 0.8 ** np.arange(12)[:, None]).astype(np.float32)
        none, pictures = np.zeros(12, np.float32), rng.integers(0, 255, (12, SIDE, SIDE, 3), np.uint8)
        quiet = {"reward": none, "progress": none, "success": none > 0, "terminated": False, "truncated": True}
        obs = {STATE: state, TOP: pictures}
        writer.add(Episode(start=start, task="walk", obs=obs, action=0.8 * state, sent=0.8 * state, **quiet))
    return root


def settings(demos, out, policy=None, **changes) -> Train:
    plain = Train(
        data=str(demos), out=out, policy=policy or DiffusionConfig(**STATES), steps=20, batch=16, validation=0.2,
        optimize=Optimize(warmup=5), log_every=5, validate_every=10, save_every=10, device="cpu", threads=1,
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def weights(run) -> bytes:
    return (run / "last" / "model.safetensors").read_bytes()


def records(run) -> list[dict]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in ("rate", "seconds")} for line in lines]


class Repeated:
    """Records a step on the CPU: what replays it runs it again."""

    def __init__(self, replay=None, error=None):
        self.replay, self.error, self.replays = replay, error, 0

    def run(self, body):
        body()

    def record(self, body):
        if self.error:
            raise RuntimeError(self.error)

        def replay():
            self.replays += 1
            (self.replay or (lambda body: body()))(body)

        return replay


@pytest.fixture
def recorded(monkeypatch):
    """Make the next trainings replay what this recorder records."""

    def use(recorder):
        init = Loop.__init__
        monkeypatch.setattr(Loop, "__init__", lambda self, *a, **k: init(self, *a, **k, recorder=recorder))
        return recorder

    return use


@pytest.mark.parametrize("room", [1.0, 3e-6])
def test_training_on_data_that_are_held_is_the_same_to_the_last_bit(demos, tmp_path, capsys, room):
    policy = DiffusionConfig(**STATES, inputs=(STATE, TOP), vision=Vision(encoder=ENCODER))
    start_run(settings(demos, tmp_path / "before", policy))
    start_run(settings(demos, tmp_path / "held", policy, resident_gb=room))
    told = "held on cpu: columns, observation.images.top" if room == 1 else "do not fit: observation.images.top"
    assert told in capsys.readouterr().out
    assert weights(tmp_path / "held") == weights(tmp_path / "before")
    assert records(tmp_path / "held") == records(tmp_path / "before")


def test_batches_gathered_ahead_are_those_of_their_steps():
    order = BatchOrder(7, 3, 0)
    ahead, plain = (
        Feed(lambda indices: {"index": indices.clone()}, BatchOrder(7, 3, 0), torch.device("cpu"), ahead=ahead)
        for ahead in (True, False)
    )
    for step in (0, 1, 2, 3, 9, 10, 4):  # a resumed run begins anywhere
        assert torch.equal(ahead(step)["index"], order.indices(step))
        assert torch.equal(plain(step)["index"], order.indices(step))


def test_a_replayed_step_trains_what_a_step_as_always_does(demos, tmp_path, recorded):
    start_run(settings(demos, tmp_path / "before"))
    recorder = recorded(Repeated())
    start_run(settings(demos, tmp_path / "replayed", resident_gb=1.0))
    assert recorder.replays == 20 - WARM  # one of them to compare, in place of the recorded step's own
    before, after = (load_policy(tmp_path / name)[0].state_dict() for name in ("before", "replayed"))
    assert all(torch.allclose(before[name], after[name], atol=1e-5) for name in before)
    for one, other in zip(records(tmp_path / "before"), records(tmp_path / "replayed"), strict=True):
        assert one == pytest.approx(other, rel=1e-3)

    # and goes on as always from what it saved
    resume_run(tmp_path / "replayed", {"steps": 22, "captured": False})
    assert (tmp_path / "replayed" / "last").resolve().name == "00000022"
    document = json.loads((tmp_path / "replayed" / "last" / TRAINING / "optimizer.json").read_text())
    assert all(type(group["lr"]) is float and not group["capturable"] for group in document["param_groups"])


def test_a_step_that_cannot_be_recorded_trains_as_always_and_is_named(demos, tmp_path, recorded):
    start_run(settings(demos, tmp_path / "before"))
    recorded(Repeated(error="operation not permitted when stream is capturing"))
    with pytest.warns(CaptureWarning, match="recorded and replayed: operation not permitted .*--captured false"):
        start_run(settings(demos, tmp_path / "refused"))
    before, after = (load_policy(tmp_path / name)[0].state_dict() for name in ("before", "refused"))
    assert all(torch.allclose(before[name], after[name], atol=1e-5) for name in before)


def test_a_replay_that_does_something_else_is_found_out(demos, tmp_path, recorded):
    recorder = recorded(Repeated(replay=lambda body: None))
    with pytest.warns(CaptureWarning, match="replayed it does something else: .* differs by up to"):
        start_run(settings(demos, tmp_path / "idle"))
    assert recorder.replays == 1 and (tmp_path / "idle" / "last").resolve().name == "00000020"


def test_a_model_that_reads_numbers_at_every_step_is_not_recorded(demos, tmp_path, recorded):
    policy = OneStepConfig(**STATES, adaptive=0.5)
    start_run(settings(demos, tmp_path / "before", policy))
    recorded(Repeated())
    with pytest.warns(CaptureWarning, match="its loss also gives squared_error, read from the device"):
        start_run(settings(demos, tmp_path / "read", policy))
    assert weights(tmp_path / "read") == weights(tmp_path / "before")  # what was drawn in trying is put back


def test_a_loss_that_is_not_finite_is_named_when_it_is_read_and_nothing_of_it_is_saved(
    demos, tmp_path, recorded, monkeypatch
):
    recorded(Repeated())
    train = Loop.take_step

    def spoiled(self):
        if self.step == 12:
            next(self.model.parameters()).data.fill_(float("nan"))
        train(self)

    monkeypatch.setattr(Loop, "take_step", spoiled)
    with pytest.raises(FloatingPointError, match=r"loss is not finite at step 12; dataset rows \[\d+.*episodes \[\d"):
        start_run(settings(demos, tmp_path / "run"))
    assert (tmp_path / "run" / "last").resolve().name == "00000010"


def test_a_mirror_moves_its_numbers_to_the_device_once_and_mirrors_as_before():
    turn = {"take": (0,), "sign": (-1.0,)}
    reflections = {STATE: Reflection(**turn, plus=(0.5,)), ACTION: Reflection(**turn, plus=(0.0,))}
    mirror = Mirror(reflections, (STATE, TOP), {TOP: Flip.horizontal})
    batch = {
        STATE: torch.rand(6, 2, 1),
        ACTION: torch.rand(6, 4, 1),
        TOP: torch.randint(0, 255, (6, 2, 3, 4, 3), dtype=torch.uint8),
    }
    torch.manual_seed(1)
    out = mirror(batch)
    torch.manual_seed(1)
    flip = torch.rand(6) < 0.5
    assert flip.any() and not flip.all()
    for row, turned in enumerate(flip.tolist()):
        assert torch.equal(out[TOP][row], batch[TOP][row].flip(-2) if turned else batch[TOP][row])
        assert torch.equal(out[STATE][row], 0.5 - batch[STATE][row] if turned else batch[STATE][row])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU: CUDA graphs cannot be recorded")
def test_a_step_is_recorded_as_a_cuda_graph(demos, tmp_path, recwarn, capsys):
    turned = Reflection(take=(0,), sign=(-1.0,), plus=(0.0,))
    mirror = {STATE: turned, ACTION: turned}
    spec = TaskSpec(scale=ActionScale(low=(-1.0,), high=(1.0,)), mirror=mirror, mirror_pictures={TOP: Flip.horizontal})
    policy = DiffusionConfig(**STATES, inputs=(STATE, TOP), vision=Vision(encoder=ENCODER), noise_draws=2)
    for name, captured in (("as-always", False), ("replayed", True)):
        changes = {"device": "cuda", "precision": "bf16", "task_spec": spec, "mirror": True, "captured": captured}
        start_run(settings(demos, tmp_path / name, policy, **changes))
    assert not [one for one in recwarn if one.category is CaptureWarning]
    assert "held on cuda: columns, observation.images.top" in capsys.readouterr().out
    one, other = (load_policy(tmp_path / name)[0].state_dict() for name in ("as-always", "replayed"))
    assert all(torch.allclose(one[name].float(), other[name].float(), atol=2e-2) for name in one)
