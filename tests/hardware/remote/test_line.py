"""The robot's end: what is late, another's, said twice or none at all is no plan; and the arm comes to rest."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from understudy.hardware.remote.line import Address, RemoteError
from understudy.hardware.remote.messages import Answer, Ask, Hello, Welcome
from understudy.hardware.remote.planner import SCHEMES
from understudy.hardware.remote.wire import pack, unpack
from understudy.policies.agent.agent import Agent

from .conftest import BODY, build, play


@pytest.fixture
def false_server():
    """(what to do with each ask) -> address of a server that greets rightly and then does that."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.server import serve

    servers = []
    welcome = Welcome(
        version=1,
        session="s" * 32,
        body=BODY.to_json(),
        inputs=("observation.state",),
        observe=(0,),
        recall=(),
        horizon=4,
        n_action_steps=2,
        ensemble=None,
        sizes={},
        candidates=1,
        reads_text=False,
        task="",
        lanes=8,
        most=8,
        policy={},
    )

    def start(answer, **changes):
        def talk(socket):
            try:
                unpack(socket.recv(), Hello)
                socket.send(pack(dataclasses.replace(welcome, **changes)))
                for message in socket:
                    answer(socket, unpack(message, Ask))
            except ConnectionClosed:
                pass

        server = serve(talk, "127.0.0.1", 0, compression=None, subprotocols=["understudy"])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"ws://127.0.0.1:{server.socket.getsockname()[1]}"

    yield start
    for server in servers:
        server.shutdown()


def right(ask, **changes):
    answer = Answer(
        session=ask.session,
        number=ask.number,
        past=np.zeros((1, 1, 0, 2), np.float32),
        future=np.full((1, 1, 4, 2), 0.1, np.float32),
        start=ask.now,
        waited=0.0,
        thought=0.0,
        lanes=1,
    )
    return pack(dataclasses.replace(answer, **changes))


def twice(socket, ask):
    socket.send(right(ask))
    socket.send(right(ask))


def the_one_before(socket, ask):
    socket.send(right(ask, number=max(ask.number - 1, 0)))


WRONG = {
    "late": (lambda socket, ask: time.sleep(0.8) or socket.send(right(ask)), "no answer within 0.4 s"),
    "gone": (lambda socket, ask: socket.close(), "it is gone"),
    "twice": (twice, "nobody asked for|is number 0 where 1 was asked"),
    "replayed": (the_one_before, "number 0 where 1 was asked"),
    "too early": (lambda socket, ask: socket.send(right(ask, number=ask.number + 1)), "number 1 where 0 was asked"),
    "another session": (lambda socket, ask: socket.send(right(ask, session="0" * 32)), "is number 0 where 0"),
    "not finite": (
        lambda socket, ask: socket.send(right(ask, future=np.full((1, 1, 4, 2), np.nan, np.float32))),
        "planned NaN",
    ),
    "too short": (
        lambda socket, ask: socket.send(right(ask, future=np.zeros((1, 1, 3, 2), np.float32))),
        r"its future is <f4 \[1, 1, 3, 2\]",
    ),
    "of another step": (lambda socket, ask: socket.send(right(ask, start=ask.now + 3)), "begin at .3., not now"),
    "no message": (lambda socket, ask: socket.send(b"\x80\x04K\x01."), "are no message"),
    "text": (lambda socket, ask: socket.send("hello"), "bytes, not text"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_answer_is_no_plan(false_server, connect, name):
    answer, reason = WRONG[name]
    planner = connect(f"{false_server(answer)}?patience=0.4")
    begun = time.monotonic()
    with pytest.raises(RemoteError, match=f"({reason}).*Nothing of it is executed"):
        play(Agent(planner, lanes=1), 2)
    assert time.monotonic() - begun < 3
    with pytest.raises(RemoteError, match=reason):  # and so it stays
        play(Agent(planner, lanes=1), 1)


def test_a_server_that_reads_nothing_does_not_hold_the_robot():
    """A send that cannot end is cut off, too."""
    from understudy.hardware.remote.line import Line

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=greet_and_read_no_more, args=(server,), daemon=True).start()
        line = Line(Address.read(f"ws://127.0.0.1:{server.getsockname()[1]}?patience=0.5", SCHEMES), subprotocol=None)
        begun = time.monotonic()
        with pytest.raises(RemoteError, match="no answer within 0.5 s"):
            line.ask(bytes(60 * 2**20), lambda data: data)
        assert time.monotonic() - begun < 3


def greet_and_read_no_more(server):
    from websockets.utils import accept_key

    connection, _ = server.accept()
    request = connection.recv(65536).decode()
    key = next(line.split(": ")[1] for line in request.split("\r\n") if line.lower().startswith("sec-websocket-key"))
    head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade"
    connection.sendall(f"{head}\r\nSec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode())
    time.sleep(10)


def test_addresses():
    read = Address.read("wss://arm:9000?token_file=t&patience=2&pictures=jpeg", SCHEMES)
    assert (read.url, read.patience, read.pictures) == ("wss://arm:9000", 2.0, "jpeg")
    for text, reason in (
        ("ws://arm", "is no address of a policy server"),
        ("ws://arm:x", "is no address of a policy server"),
        ("ws://arm:1?token=secret", "'token' is not known; token_file, ca"),
        ("ws://arm:1?patience=soon", "patience cannot be 'soon'"),
        ("ws://arm:1?pictures=png", "raw or jpeg, not 'png'"),
    ):
        with pytest.raises(ValueError, match=reason):
            Address.read(text, SCHEMES)


def test_nobody_there(connect):
    with pytest.raises(RemoteError, match="no policy server at ws://127.0.0.1:9.*understudy serve POLICY"):
        connect("ws://127.0.0.1:9")


@pytest.fixture
def arm(tmp_path):
    """An emulated SO-101 behind its guard, connected."""
    pytest.importorskip("lerobot", reason="the Feetech bus is lerobot's")
    pytest.importorskip("daqp", reason="the guard's quadratic program")
    from understudy.hardware.emulator.arm import find_kind, make_chain, write_calibration
    from understudy.hardware.emulator.bus import Bus
    from understudy.hardware.emulator.feetech import Feetech
    from understudy.hardware.guarded import open_robot
    from understudy.hardware.so101 import SO101Config

    kind = find_kind("so101")
    write_calibration(tmp_path / "so101.json", kind.calibration())
    with Bus(make_chain(kind), Feetech()) as bus:
        robot = open_robot(SO101Config(port=bus.port, calibration=str(tmp_path / "so101.json"), rate=30.0))
        robot.connect()
        try:
            yield robot
        finally:
            robot.disconnect()


def arm_policy(folder, body):
    """A policy that swings around the arm's home."""
    import torch

    from understudy.configs.spec import STATE, Window
    from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
    from understudy.policies.models.diffusion import DiffusionConfig
    from understudy.policies.policy import Scale
    from understudy.sim.arms import find_arm

    from .conftest import NETWORK

    torch.manual_seed(0)
    config = DiffusionConfig(
        window=Window(observe=(-1, 0), horizon=16), inputs=(STATE,), network=NETWORK, n_action_steps=8
    )
    policy = config.build(body, blank_scales(body)).eval()
    home = torch.tensor(find_arm("so101").home, dtype=torch.float32)
    policy.action_scale.load_state_dict(Scale.between(home - 0.25, home + 0.25).state_dict())
    save_checkpoint(folder, policy, kind="policy", config=config)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stalled"])
def test_an_arm_whose_server_ends_comes_to_rest(arm, connect, tmp_path, number):
    from understudy.configs.spec import STATE

    arm_policy(tmp_path / "policy", dataclasses.replace(arm.embodiment, cameras={}))
    words = [sys.executable, "-m", "understudy", "serve", tmp_path / "policy", "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            address = next(word for word in server.stdout.readline().split() if word.startswith("ws://")).strip(";")
            planner = connect(f"{address}?patience=0.5")
            planner.embodiment.check(arm.embodiment, planner.inputs)
            agent = Agent(planner, lanes=1)
            sent, reason, ended = drive(arm, agent, lambda chunk: chunk == 4 and server.send_signal(number))
        finally:
            server.send_signal(signal.SIGKILL)
    assert "Nothing of it is executed" in reason
    moved = np.ptp(np.array(sent)[:, :5], 0).max()
    assert moved > 0.02 and len(sent) == 40  # it moved, and got the plans before the end alone

    time.sleep(max(0.0, ended + 0.8 - time.monotonic()))
    poses = []
    for _ in range(10):
        poses.append(arm.get_observation()[STATE])
        time.sleep(0.03)
    assert np.ptp(poses, 0).max() < 0.004  # within two counts of a servo


def drive(robot, agent, happens):
    """Act chunk by chunk until the planner gives no more; (what was sent, why it ended, when)."""
    from understudy.configs.spec import STATE

    sent, steps = [], agent.n_action_steps
    agent.reset(np.zeros(1, np.int64), np.ones(1, bool), {STATE: robot.get_observation()[STATE][None]})
    for chunk in range(50):
        try:
            actions = agent.act()[0]
        except RemoteError as error:
            return sent, str(error), time.monotonic()
        seen = []
        for step, action in enumerate(actions):
            if step == steps // 2:
                happens(chunk)
            sent.append(robot.send_action(action))
            seen.append(robot.get_observation()[STATE])
        obs = {STATE: np.stack([seen[steps - 1 + offset] for offset in agent.look])[None]}
        agent.observe(obs, np.stack(sent[-steps:])[None], np.ones((1, steps), bool))
    raise AssertionError("the server never ended")


def test_ctrl_c_says_what_was_served(tmp_path):
    from understudy.policies.learning.checkpoint import save_checkpoint
    from understudy.policies.models.diffusion import DiffusionConfig

    planner = build()
    assert isinstance(planner.config, DiffusionConfig)
    save_checkpoint(tmp_path / "policy", planner, kind="policy", config=planner.config)
    words = [
        sys.executable,
        "-m",
        "understudy",
        "serve",
        tmp_path / "policy",
        "--port",
        "0",
        "--token_file",
        tmp_path / "t",
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes) as server:
        try:
            assert server.stdout.readline().startswith("wrote a new token to")
            assert "clients: --policy 'ws://127.0.0.1:" in server.stdout.readline()
            server.send_signal(signal.SIGINT)
            said = server.communicate(timeout=60)[1]
        finally:
            server.kill()
    assert server.returncode == 130 and "served 0 asks of 0 clients; refused 0 messages" in said
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o600
