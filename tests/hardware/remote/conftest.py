"""What the tests of the policy server share: small policies, a server in a thread, and a client that can misbehave."""

import dataclasses

import numpy as np
import pytest
import torch

from understudy.configs.spec import SCENE, STATE, Embodiment, Window
from understudy.policies.agent.agent import Agent
from understudy.policies.learning.checkpoint import blank_scales
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig

pytest.importorskip("websockets", reason="the policy server: pip install 'understudy[serve]'")
pytest.importorskip("msgpack", reason="the policy server: pip install 'understudy[serve]'")

from understudy.eval.studies.server_fuzz import blank_ask  # noqa: E402
from understudy.hardware.remote.desk import Thinker  # noqa: E402
from understudy.hardware.remote.line import Address  # noqa: E402
from understudy.hardware.remote.messages import SUBPROTOCOL, VERSION, Answer, Hello, Refusal, Welcome  # noqa: E402
from understudy.hardware.remote.place import Place  # noqa: E402
from understudy.hardware.remote.planner import SCHEMES, RemotePlanner  # noqa: E402
from understudy.hardware.remote.server import PolicyServer, serving  # noqa: E402
from understudy.hardware.remote.wire import pack, unpack  # noqa: E402

BODY = Embodiment(
    name="two joints",
    action=("a", "b"),
    action_units=("rad", "rad"),
    limits=((-1.0, 1.0), (-2.0, 2.0)),
    rate=10.0,
    state=("a", "b"),
    state_units=("rad", "rad"),
    scene=("x",),
    scene_units=("m",),
    cameras={"top": (48, 64), "wrist": (48, 64)},
)
NETWORK = MLPConfig(width=16, depth=1, condition_width=8)


def build(pictures=False, **changes):
    """An untrained policy that reads history and past actions, and predicts these again."""
    torch.manual_seed(0)
    seen = {}
    if pictures:
        from understudy.policies.networks.augment import Augment
        from understudy.policies.networks.eyes import Vision
        from understudy.policies.networks.resnet import ResNetConfig

        encoder = ResNetConfig(width=16, blocks=(1,), keypoints=4, features=8)
        augment = Augment(shift=0, brightness=0, contrast=0, saturation=0)
        seen = {"vision": Vision(size=(24, 32), encoder=encoder, augment=augment)}
    cameras = ("observation.images.top", "observation.images.wrist") if pictures else (SCENE,)
    settings = {"window": Window(observe=(-4, -1, 0), recall=(-3, -2, -1), horizon=8), "n_action_steps": 4}
    config = DiffusionConfig(inputs=(STATE, *cameras), network=NETWORK, **seen | settings | changes)
    made = config.build(BODY, blank_scales(BODY)).eval()
    for weights in made.parameters():  # a fresh network does not look at what it is told
        weights.data += 0.1 * torch.randn_like(weights)
    return made


@pytest.fixture(scope="session")
def policy():
    return build()


@pytest.fixture(scope="session")
def seeing_policy():
    return build(pictures=True)


@pytest.fixture
def serve():
    """(planner, **settings) -> (server, address text); the server ends with the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(planner, agent=None, **settings):
            place = Place(port=0, token=settings.pop("token", None), tls=settings.pop("tls", None))
            thinker = Thinker(Agent(planner, lanes=1, **agent or {}))
            server = PolicyServer(thinker, place=place, **settings)
            return server, stack.enter_context(serving(server))

        yield start


@pytest.fixture
def connect():
    """(address text) -> a `RemotePlanner`, closed with the test."""
    made = []

    def open_(text):
        made.append(RemotePlanner(Address.read(text, SCHEMES)))
        return made[-1]

    yield open_
    for planner in made:
        planner.close()


def play(agent, chunks, lanes=1, seed=0, starts=None):
    """Actions (B, chunks * E, D) of an agent in a world of noise keyed by `seed`; lane 0 begins anew half-way."""
    rng = np.random.default_rng(seed)
    steps = agent.n_action_steps

    def seen():
        body = agent.planner.embodiment
        sizes = {STATE: 2, SCENE: 1}
        made = {key: rng.standard_normal((lanes, sizes[key]), np.float32) for key in agent.inputs if key in sizes}
        pictures = [key for key in agent.inputs if key not in sizes]
        size = body.cameras["top"]
        return made | {key: rng.integers(0, 256, (lanes, *size, 3), np.uint8) for key in pictures}

    starts = np.arange(lanes) if starts is None else starts
    agent.reset(starts, np.ones(lanes, bool), seen())
    done = []
    for chunk in range(chunks):
        actions = agent.act()
        done.append(actions)
        frames = [seen() for _ in agent.look]
        obs = {key: np.stack([frame[key] for frame in frames], 1) for key in agent.inputs}
        sent = actions + rng.normal(0, 0.01, actions.shape).astype(
            np.float32
        )  # what was executed is not what was asked
        agent.observe(obs, sent, np.ones((lanes, steps), bool))
        if chunk == chunks // 2:
            agent.reset(starts + 100, np.arange(lanes) == 0, seen())
    return np.concatenate(done, 1)


class Raw:
    """A client that sends what it likes."""

    def __init__(self, address, token=None, **settings):
        from websockets.sync.client import connect

        headers = {"Authorization": f"Bearer {token}"} if token else None
        self.socket = connect(
            address, subprotocols=[SUBPROTOCOL], compression=None, max_size=None, additional_headers=headers, proxy=None
        )
        self.number = 0

    def greet(self, **changes):
        self.socket.send(pack(Hello(**{"version": VERSION, "client": "a test"} | changes)))
        self.welcome = unpack(self.socket.recv(timeout=20), Welcome, Refusal)
        return self.welcome

    def say(self, message):
        self.socket.send(message if isinstance(message, (bytes, str)) else pack(message))
        return unpack(self.socket.recv(timeout=20), Answer, Refusal)

    def close(self):
        self.socket.close()


def first_ask(welcome, number=0, **changes):
    """An ask of one lane that has seen zeros, of the policy without pictures."""
    return dataclasses.replace(blank_ask(welcome, number), **changes)


@pytest.fixture
def raw():
    """(address, token=None) -> a `Raw` client, closed with the test."""
    made = []

    def open_(address, **settings):
        made.append(Raw(address, **settings))
        return made[-1]

    yield open_
    for client in made:
        client.close()
