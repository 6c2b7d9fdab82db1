"""A world of two dots whose dynamics are known: the first goes to where the action says, the second never moves."""

from dataclasses import dataclass

import numpy as np
import pytest

from understudy.configs.episode import Episode
from understudy.configs.lanes.lane import Lane
from understudy.configs.rng import rng_of
from understudy.configs.spec import IMAGES, STATE, Embodiment
from understudy.configs.world import World
from understudy.policies.data.writer import DatasetWriter

SIDE, REACH, SPEED = 32, 12.0, 20.0  # px of the picture; units that count as reached; units a step, of 0..100
TOP = f"{IMAGES}top"


def draw(place: np.ndarray, goal: np.ndarray, side: int = SIDE) -> np.ndarray:
    """(side, side, 3) uint8."""
    axis = (np.arange(side) + 0.5) * 100 / side
    picture = np.full((side, side, 3), 230.0)
    for middle, radius, colour in ((goal, 10, (90, 200, 90)), (place, 8, (30, 60, 200))):
        away = np.hypot(axis[None] - middle[0], axis[:, None] - middle[1])
        alpha = np.clip((radius - away) / 3 + 0.5, 0, 1)[..., None]
        picture += alpha * (np.array(colour) - picture)
    return picture.round().astype(np.uint8)


@World.register_subclass("test_dots")
@dataclass(frozen=True, kw_only=True)
class Dots(World):
    task: str = "dots"
    scene: str = "plain"  # plain | strange: on a chessboard of other colours

    def embodiment(self) -> Embodiment:
        body = Embodiment(
            name="dots", action=("x", "y"), action_units=("px", "px"), limits=((0.0, 100.0),) * 2, rate=10.0,
            state=("x", "y"), state_units=("px", "px"),
        )  # fmt: skip
        return body.with_cameras(self.cameras)

    def lane(self):
        return DotsLane(self)

    def steps(self) -> int:
        return self.horizon or 24

    def views(self):
        return ("top",)

    def fingerprint(self) -> dict:
        return {"type": "test_dots"}


class DotsLane(Lane):
    def __init__(self, world):
        super().__init__(world)
        self.scene = world.scene

    goal = np.array([30.0, 70.0])

    def begin(self, seed, options):
        self.place, self.goal = rng_of(seed, 7).uniform(12, 88, (2, 2))
        self.goal = np.array([30.0, 70.0])

    def act(self, action):
        way = action - self.place
        self.place = self.place + way * min(1.0, SPEED / max(np.hypot(*way), 1e-9))
        return self.judge()[1]

    def sense(self):
        side = self.embodiment.cameras.get("top", (SIDE, SIDE))[0]
        picture = draw(self.place, self.goal, side)
        if self.scene == "strange":
            board = np.indices((side, side)).sum(0) // 3 % 2
            picture = np.where((board > 0)[..., None], 255 - picture, [200, 40, 10]).astype(np.uint8)
        pictures = {TOP: picture} if self.embodiment.cameras else {}
        return {STATE: np.asarray(self.place, np.float32)} | pictures

    def draw(self, states):
        return {"top": draw(states[STATE], self.goal)}

    def score(self, states):
        self.place = states[STATE]
        return self.judge()

    def judge(self):
        away = float(np.hypot(*(self.place - self.goal)))
        return away < REACH, 1.0 if away < REACH else float(np.clip(1 - away / 120, 0, 0.99))

    def render(self):
        return draw(self.place, self.goal)


def episode(seed: int, steps: int = 24) -> Episode:
    """Random targets, each held for some steps; it does not end at success."""
    lane, rng = Dots(cameras={"top": (SIDE, SIDE)}, horizon=10_000).lane(), rng_of(seed, 1)
    obs, _ = lane.reset(seed=seed)
    target, rows = rng.uniform(5, 95, 2), []
    for _ in range(steps):
        if rng.random() < 0.3:
            target = lane.goal if rng.random() < 0.3 else rng.uniform(5, 95, 2)
        action = np.asarray(target, np.float32)
        seen = obs
        obs, reward, _, _, info = lane.step(action)
        rows.append((seen, action, info, reward))
    column = {name: np.array([row[2][name] for row in rows]) for name in ("success", "progress")}
    return Episode(
        start=seed, task="dots", action=np.array([row[1] for row in rows]), sent=np.array([row[1] for row in rows]),
        obs={key: np.array([row[0][key] for row in rows]) for key in (STATE, TOP)},
        reward=np.array([row[3] for row in rows], np.float32), progress=column["progress"].astype(np.float32),
        success=column["success"], terminated=False, truncated=True,
    )  # fmt: skip


@pytest.fixture(scope="session")
def dots_data(tmp_path_factory):
    """40 episodes of 24 steps with pictures of 32x32."""
    root = tmp_path_factory.mktemp("dots") / "data"
    writer = DatasetWriter(root, Dots(cameras={"top": (SIDE, SIDE)}).embodiment())
    for seed in range(100_000, 100_040):
        writer.add(episode(seed))
    return root


STAGES = """\
out: {out}
data: {data}
seed: 0
log_every: 50
validate_every: 1000
device: cpu
validation: 0.1
optimize: {{lr: 2.0e-3, warmup: 20, ema: 0.98, weight_decay: 0.0}}
scale: {scale}
stages:
  codec:
    steps: 200
    batch: 24
    world_model:
      type: codec
      codec:
        {{size: [32, 32], width: 24, inner: 32, keypoints: 8, state_maps: {{observation.state: {{high: [100, 100]}}}}}}
  video:
    steps: 320
    batch: 32
    world_model:
      {{type: video, run: "stage:codec", horizon: 4, width: 32, blocks: 2, condition: 32, own_after: 100, {video}}}
"""
MAPS = "action_maps: [{take: [0, 1], high: [100, 100]}]"


def train_dots(folder, data, video=MAPS, **changes):
    """Train both stages; the run of the dynamics."""
    from understudy.__main__ import main

    scale = folder / "scale.yaml"
    scale.write_text("scale: {low: [0, 0], high: [100, 100]}\n")
    text = STAGES.format(out=folder / "run", data=data, scale=scale, video=video)
    for before, after in changes.items():
        text = text.replace(before, after)
    (folder / "dream.yaml").write_text(text)
    assert main(["train", str(folder / "dream.yaml")]) == 0
    return folder / "run" / "video"


@pytest.fixture(scope="session")
def dots_run(tmp_path_factory, dots_data):
    """A trained world model of the dots."""
    return train_dots(tmp_path_factory.mktemp("dots_run"), dots_data)
