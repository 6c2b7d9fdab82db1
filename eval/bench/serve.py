"""What a policy elsewhere adds to the time of its network: our server beside lerobot's asynchronous one, on loopback.

Both serve the same small network, each in a process of its own, to a client in this one; the sides take turns. Added
is the round trip, from an observation in hand to actions in hand, less what the network took in that round trip, which
the server writes down. On lerobot's side all is its own: `PolicyServer`, its messages, its conversions of what it
received; its processors are left out, and the pause that it makes up to `inference_latency` is switched off.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...configs.children import calling
from ...configs.spec import IMAGES, STATE, Embodiment, Window
from .robot import _processor

JOINTS = tuple(f"j{number}" for number in range(6))
CAMERAS = ("top", "wrist")
SIZE = (480, 640)
HORIZON = 16
POOL = 8  # observations that a turn shows one after the other
WARM = 5  # round trips of a turn that do not count
CASES = {"state": (), "two cameras": CAMERAS}
RESAMPLES = 2000
_DOUBLE = struct.Struct("<d")


@dataclass(frozen=True)
class Side:
    """A server with its client: `ask` an observation, `network` s of the newest answer."""

    name: str
    ask: Callable[[dict[str, np.ndarray]], Any]
    network: Callable[[], float]
    process: int  # of the server


def compare_servers(seconds: float, pairs: int) -> dict:
    """case -> {side: added ms, and processor ms of both ends; ratio}; a turn of a side lasts `seconds`."""
    return {case: _compare(cameras, seconds, pairs) for case, cameras in CASES.items()}


def _compare(cameras: tuple[str, ...], seconds: float, pairs: int) -> dict:
    added: dict[str, list[list[float]]] = {}
    networks: dict[str, list[float]] = {}
    spent: dict[str, list[float]] = {}
    with ExitStack() as stack:
        sides = [stack.enter_context(_ours(cameras, "raw"))]
        sides += [stack.enter_context(_ours(cameras, "jpeg"))] if cameras else []
        sides.append(stack.enter_context(_theirs(cameras)))
        rng = np.random.default_rng(0)
        observations = [_observation(cameras, rng) for _ in range(POOL)]
        for pair in range(pairs):
            for side in sides if pair % 2 else sides[::-1]:
                before = _spent(side)
                turn, network = _turn(side, observations, seconds)
                spent.setdefault(side.name, []).append(1000 * (_spent(side) - before) / (len(turn) + WARM))
                added.setdefault(side.name, []).append(turn)
                networks.setdefault(side.name, []).extend(network)
    names = [name for name in added if name != "lerobot"]
    result: dict = {
        name: _spread(turns) | {"network": _median(networks[name]), "processor": _median(spent[name])}
        for name, turns in added.items()
    }
    result["ratio"] = {name: _ratio(added[name], added["lerobot"], rng) for name in names}
    result["processor ratio"] = {name: _ratio(_alone(spent[name]), _alone(spent["lerobot"]), rng) for name in names}
    return result


def _alone(values: list[float]) -> list[list[float]]:
    return [[value] for value in values]


def _spent(side: Side) -> float:
    """s of processor time of this process and the server's."""
    return time.process_time() + _processor(side.process)


def _turn(side: Side, observations: list[dict[str, np.ndarray]], seconds: float) -> tuple[list[float], list[float]]:
    """Added ms of each round trip, and the network's."""
    added, network, end = [], [], None
    for number in range(10**9):
        observation = observations[number % POOL]
        begun = time.perf_counter()
        side.ask(observation)
        took = time.perf_counter() - begun
        if number >= WARM:
            end = end or time.perf_counter() + seconds
            network.append(1000 * side.network())
            added.append(1000 * took - network[-1])
            if time.perf_counter() > end:
                break
    return added, network


def _observation(cameras: tuple[str, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A state, and pictures that are smooth with a little noise, as cameras give."""
    made: dict[str, np.ndarray] = {STATE: rng.standard_normal(len(JOINTS), np.float32)}
    for name in cameras:
        slope = np.linspace(40, 200, SIZE[1], dtype=np.float32) + 30 * rng.random()
        noise = rng.integers(0, 8, (*SIZE, 3), np.uint8)
        made[IMAGES + name] = slope.astype(np.uint8)[None, :, None] + noise
    return made


def table(result: dict) -> str:
    """`compare_servers`' result, one line a case and side."""
    head = f"{'added to the network, ms':<34}{'median':>9}{'95 %':>9}{'n':>8}{'network':>9}{'lerobot / ours':>20}"
    lines = [f"{head}{'CPU':>8}{'lerobot / ours':>20}"]
    for case, sides in result.items():
        for name, side in sides.items():
            if "ratio" in name:
                continue
            wall, cpu = (_shown(sides[ratio].get(name)) for ratio in ("ratio", "processor ratio"))
            numbers = f"{side['median']:>9.2f}{side['p95']:>9.2f}{side['n']:>8}{side['network']:>9.2f}"
            lines.append(f"{case + ', ' + name:<34}{numbers}{wall:>20}{side['processor']:>8.2f}{cpu:>20}")
    lines.append("ratio: of the medians of turns, median over pairs of turns, with its 95 % bootstrap interval")
    lines.append("CPU: processor ms of client and server together a round trip, the network's included")
    return "\n".join(lines)


def _shown(ratio: list[float] | None) -> str:
    return "" if ratio is None else f"{ratio[1]:.1f} [{ratio[0]:.1f}, {ratio[2]:.1f}]"


def _spread(turns: list[list[float]]) -> dict:
    values = np.concatenate(turns)
    return {"median": _median(values), "p95": float(np.quantile(values, 0.95)), "n": len(values)}


def _median(values: Any) -> float:
    return float(np.median(values))


def _ratio(ours: list[list[float]], theirs: list[list[float]], rng: np.random.Generator) -> list[float]:
    """Low, estimate, high of how many times more theirs adds."""
    ratios = np.array([np.median(b) / np.median(a) for a, b in zip(ours, theirs, strict=True)])
    drawn = np.median(rng.choice(ratios, (RESAMPLES, len(ratios))), 1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return [float(low), float(np.median(ratios)), float(high)]


class Network(nn.Module):
    """(B, 6) states and pictures -> (B, H, 6): linear, and it looks at a pixel of every block of 40."""

    def __init__(self, cameras: tuple[str, ...], note: Path):
        super().__init__()
        torch.manual_seed(0)
        self.cameras = cameras
        self.linear = nn.Linear(len(JOINTS) + len(cameras), HORIZON * len(JOINTS))
        self._note = os.open(note, os.O_WRONLY | os.O_CREAT)

    @torch.no_grad()
    def forward(self, state: torch.Tensor, pictures: list[torch.Tensor]) -> torch.Tensor:
        begun = time.perf_counter()
        seen = [picture[..., ::40, ::40].float().flatten(1).mean(1, keepdim=True) for picture in pictures]
        actions = self.linear(torch.cat([state, *seen], 1)).unflatten(1, (HORIZON, len(JOINTS)))
        os.pwrite(self._note, _DOUBLE.pack(time.perf_counter() - begun), 0)
        return actions


@contextmanager
def _child(function: str, cameras: tuple[str, ...]) -> Iterator[tuple[str, Callable[[], float], int]]:
    """A server in a process of its own: its address, what reads the network's time, and the process's id."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "network"
        note.write_bytes(_DOUBLE.pack(0.0))
        command = calling(f"{__name__}:{function}", note, ",".join(cameras))
        places = [str(Path(place).resolve()) if place else os.getcwd() for place in sys.path]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)}
        log = Path(folder) / "log"
        with log.open("w") as said, note.open("rb") as times:
            with subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=said,
                stdin=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=folder,
            ) as process:
                assert process.stdout is not None
                try:
                    address = _address(process, log)
                    yield address, lambda: _DOUBLE.unpack(os.pread(times.fileno(), 8, 0))[0], process.pid
                finally:
                    process.kill()


def _address(process: subprocess.Popen, log: Path) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("address "):
            return line.split()[1]
    lines = log.read_text().strip().splitlines() or ["no message"]
    raise RuntimeError(f"the server did not start: {lines[-1]}")


# ours


@contextmanager
def _ours(cameras: tuple[str, ...], pictures: str) -> Iterator[Side]:
    from ...hardware.remote.line import Address
    from ...hardware.remote.planner import SCHEMES, RemotePlanner
    from ...policies.policy import LaneNoise, Past

    with _child("serve_ours", cameras) as (address, network, process):
        planner = RemotePlanner(Address.read(f"{address}?pictures={pictures}", SCHEMES))
        asked = iter(range(10**9))

        def ask(observation: dict[str, np.ndarray]) -> Any:
            now = next(asked)
            past = Past(
                obs={key: torch.from_numpy(value[None, None]) for key, value in observation.items()},
                obs_times=(0,),
                obs_valid=torch.ones(1, 1, dtype=torch.bool),
                actions=torch.zeros(1, 0, len(JOINTS)),
                action_times=(),
                action_valid=torch.zeros(1, 0, dtype=torch.bool),
                now=torch.tensor([now]),
            )
            return planner.plan(past, 1, LaneNoise(0, np.zeros(1, np.int64), np.array([now])))

        yield Side("understudy" if pictures == "raw" else f"understudy, {pictures}", ask, network, process)
        planner.close()


def serve_ours(note: str, cameras: str) -> None:
    """Serve the network by our server; runs until it is killed."""
    from ...hardware.remote.desk import Thinker
    from ...hardware.remote.limits import Limits
    from ...hardware.remote.place import Place
    from ...hardware.remote.server import PolicyServer
    from ...policies.agent.agent import Agent
    from ...policies.foreign.planner import callable_planner

    names = tuple(filter(None, cameras.split(",")))
    network = Network(names, Path(note))

    def chunks(obs: Any) -> torch.Tensor:
        return network(obs[STATE][:, 0], [obs[IMAGES + name][:, 0].movedim(-1, 1) for name in names])

    body = Embodiment(
        name="bench",
        action=JOINTS,
        action_units=("rad",) * len(JOINTS),
        limits=((-1e3, 1e3),) * len(JOINTS),
        rate=30.0,
        state=JOINTS,
        state_units=("rad",) * len(JOINTS),
        cameras={name: SIZE for name in names},
    )
    inputs = (STATE, *(IMAGES + name for name in names))
    planner = callable_planner(chunks, embodiment=body, inputs=inputs, window=Window(observe=(0,), horizon=HORIZON))
    server = PolicyServer(Thinker(Agent(planner, lanes=1)), place=Place(port=0), limits=Limits(rate=1e6))
    server.run(lambda address: print("address", address, flush=True))


# lerobot's


@contextmanager
def _theirs(cameras: tuple[str, ...]) -> Iterator[Side]:
    """Asks as its `RobotClient` does: an observation is pickled and streamed, then the actions are fetched."""
    from ...configs.compat import prepare_lerobot

    prepare_lerobot()
    import grpc
    from lerobot.async_inference.helpers import TimedObservation
    from lerobot.transport import services_pb2, services_pb2_grpc
    from lerobot.transport.utils import (
        bytes_to_python_object,
        grpc_channel_options,
        python_object_to_bytes,
        send_bytes_in_chunks,
    )

    with _child("serve_theirs", cameras) as (address, network, process):
        channel = grpc.insecure_channel(address, grpc_channel_options())
        stub = services_pb2_grpc.AsyncInferenceStub(channel)
        stub.Ready(services_pb2.Empty())
        asked = iter(range(10**9))

        def ask(observation: dict[str, np.ndarray]) -> Any:
            raw: dict[str, Any] = dict(zip(JOINTS, observation[STATE].tolist(), strict=True))
            raw |= {name: observation[IMAGES + name] for name in cameras}
            timed = TimedObservation(timestamp=time.time(), observation=raw, timestep=next(asked), must_go=True)
            message = python_object_to_bytes(timed)
            stub.SendObservations(send_bytes_in_chunks(message, services_pb2.Observation, silent=True))
            actions = bytes_to_python_object(stub.GetActions(services_pb2.Empty()).data)
            if len(actions) != HORIZON:
                raise RuntimeError(f"lerobot's server gave {len(actions)} actions, not {HORIZON}")
            return actions

        yield Side("lerobot", ask, network, process)
        channel.close()


def serve_theirs(note: str, cameras: str) -> None:
    """Serve the network by lerobot's `PolicyServer`; runs until it is killed."""
    from ...configs.compat import prepare_lerobot

    prepare_lerobot()
    from concurrent import futures
    from types import SimpleNamespace

    import grpc
    from lerobot.async_inference.configs import PolicyServerConfig
    from lerobot.async_inference.policy_server import PolicyServer
    from lerobot.transport import services_pb2_grpc

    names = tuple(filter(None, cameras.split(",")))
    network = Network(names, Path(note))
    shape = SimpleNamespace(shape=(3, *SIZE))

    def predict(observation: Any) -> torch.Tensor:
        return network(observation[STATE].float(), [observation[IMAGES + name] for name in names])

    served = PolicyServer(PolicyServerConfig(inference_latency=0.0))
    served.policy = SimpleNamespace(  # what SendPolicyInstructions would load, of a type on its list
        config=SimpleNamespace(image_features={IMAGES + name: shape for name in names}), predict_action_chunk=predict
    )
    served.preprocessor = served.postprocessor = _unchanged
    served.lerobot_features = _features(names)
    served.actions_per_chunk, served.device = HORIZON, "cpu"
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    services_pb2_grpc.add_AsyncInferenceServicer_to_server(served, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"address 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


def _features(cameras: tuple[str, ...]) -> dict:
    """What its client says of a robot with these cameras."""
    try:
        from lerobot.utils.feature_utils import hw_to_dataset_features
    except ImportError:  # 0.4.4
        from lerobot.datasets.utils import hw_to_dataset_features

    robot: dict[str, Any] = dict.fromkeys(JOINTS, float)
    return hw_to_dataset_features(robot | {name: (*SIZE, 3) for name in cameras}, "observation", use_video=False)


def _unchanged(value: Any) -> Any:
    return value
