"""openpi's clients get plans from our server, and their servers plan for us."""

import threading

import numpy as np
import pytest

from understudy.configs.spec import STATE, EmbodimentError
from understudy.hardware.remote.line import RemoteError
from understudy.hardware.remote.openpi import PiKeys, pack_plain, unpack_plain
from understudy.hardware.remote.wire import WireError
from understudy.policies.agent.agent import Agent
from understudy.policies.agent.open import instruct
from understudy.policies.load import load_policy

from .conftest import BODY, build, play

NAMES = PiKeys(names={"observation/state": "observation.state", "scene": "observation.environment_state"}, steps=1)


@pytest.fixture
def their_client():
    """(address, key) -> (what is said first, infer(obs), socket), by bytes as their client writes them."""
    from websockets.sync.client import connect

    sockets = []

    def open_(address, key=None):
        headers = {"Authorization": f"Api-Key {key}"} if key else None
        socket = connect(address, compression=None, max_size=None, additional_headers=headers, proxy=None)
        sockets.append(socket)

        def infer(obs):
            socket.send(pack_plain(obs))
            answer = socket.recv(timeout=20)
            if isinstance(answer, str):
                raise RuntimeError(answer)
            return unpack_plain(answer)

        return unpack_plain(socket.recv(timeout=20)), infer

    yield open_
    for socket in sockets:
        socket.close()


def seen(number):
    rng = np.random.default_rng(number)
    return {"observation/state": rng.standard_normal(2), "scene": rng.standard_normal(1), "prompt": "go"}


def test_arrays_are_theirs_byte_by_byte():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    packed = pack_plain({"a": array, "n": np.float32(2.5)})
    assert b"\xc4\x0b__ndarray__\xc3" in packed and b"\xc4\x05dtype\xa3<f4" in packed and b"__npgeneric__" in packed
    told = unpack_plain(packed)
    assert np.array_equal(told["a"], array) and told["a"].dtype == np.float32 and told["n"] == 2.5
    with pytest.raises(WireError, match="has numbers of '|O'"):
        unpack_plain(packed.replace(b"\xa3<f4", b"\xa3|O8"))


def test_a_client_of_theirs_gets_plans(policy, serve, their_client):
    """Asked at every step, the history is the same as an agent's that executes one action of each plan."""
    server, address = serve(policy, keys=NAMES, token="a-token-of-enough-letters")
    metadata, infer = their_client(address, "a-token-of-enough-letters")
    assert metadata["server"] == "understudy" and metadata["horizon"] == 8 and metadata["actions"] == ["a", "b"]

    agent = Agent(policy, lanes=1, n_action_steps=1)
    first = {ours: np.float32(seen(0)[theirs])[None] for theirs, ours in NAMES.names.items()}
    agent.reset(np.zeros(1, np.int64), np.ones(1, bool), first)
    for number in range(6):
        answer = infer(seen(number))
        assert answer["actions"].shape == (8, 2) and answer["actions"].dtype == np.float32
        assert answer["server_timing"]["infer_ms"] > 0
        acted = agent.act()
        assert np.array_equal(answer["actions"][0], acted[0, 0])
        obs = {ours: np.float32(seen(number + 1)[theirs])[None, None] for theirs, ours in NAMES.names.items()}
        agent.observe(obs, acted, np.ones((1, 1), bool))
    assert server.served.asks == 6


def test_seed_and_ensembling_of_the_policy_are_not_passed_over(policy, serve, their_client):
    def first(**how):
        metadata, infer = their_client(serve(policy, keys=NAMES, agent=how)[1])
        return metadata, infer(seen(0))["actions"]

    (_, plain), (_, seeded), (told, same) = first(), first(seed=5), first(ensemble=0.1, n_action_steps=1)
    assert not np.array_equal(plain, seeded) and np.array_equal(plain, same)
    assert "temporal ensembling of decay 0.1, which is the client's" in told["note"]


def test_what_is_missing_is_said_as_text(policy, serve, their_client):
    _, address = serve(policy)
    metadata, infer = their_client(address)
    assert "frames at steps [-1] are read and never sent" in metadata["note"]
    with pytest.raises(RuntimeError, match="reads 'observation.state', but the observation holds .*--openpi FILE"):
        infer(seen(0))


def test_their_package_gets_plans(policy, serve):
    client = pytest.importorskip("openpi_client.websocket_client_policy", reason="pip install openpi-client")
    _, address = serve(policy, keys=NAMES, token="a-token-of-enough-letters")
    theirs = client.WebsocketClientPolicy(address, api_key="a-token-of-enough-letters")
    assert theirs.get_server_metadata()["rate"] == 10.0
    actions = [theirs.infer(seen(number))["actions"] for number in range(3)]
    assert actions[0].shape == (8, 2) and not np.array_equal(actions[0], actions[1])
    theirs._ws.close()


@pytest.fixture
def their_server():
    """(obs -> answer) -> address of a server that speaks as theirs."""
    from websockets.sync.server import serve

    servers = []

    def start(answer):
        def talk(socket):
            socket.send(pack_plain({"model": "pi"}))
            for message in socket:
                reply = answer(unpack_plain(message))
                socket.send(reply if isinstance(reply, str) else pack_plain(reply))

        server = serve(talk, "127.0.0.1", 0, compression=None, max_size=None)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"openpi://127.0.0.1:{server.socket.getsockname()[1]}"

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture
def body_file(tmp_path):
    """A file that says who acts, and how their server names things."""
    import json

    file = tmp_path / "body.yaml"
    theirs = {"names": {STATE: "observation/state"}, "prompt": "prompt", "horizon": 6, "n_action_steps": 3}
    file.write_text(json.dumps(json.loads(BODY.to_json()) | {"openpi": theirs}))
    return str(file)


def test_their_server_is_a_policy(their_server, body_file):
    asked = []

    def answer(obs):
        asked.append(obs)
        return {"actions": np.tile(obs["observation/state"], (10, 1)).astype(np.float64), "server_timing": {}}

    planner, about = load_policy(their_server(answer), body_file)
    planner.language.instruct("pick it up")
    actions = play(Agent(planner, lanes=2), 3, 2)
    assert about["type"] == "openpi" and actions.shape == (2, 9, 2) and len(asked) == 6
    assert asked[0]["prompt"] == "pick it up" and np.allclose(
        actions[0, 0], np.clip(asked[0]["observation/state"], [-1, -2], [1, 2])
    )


def test_a_prompt_that_nobody_said_is_refused(their_server, body_file):
    """An empty one was sent, and acted by."""
    asked = []
    planner, _ = load_policy(their_server(asked.append), body_file)
    for act in (lambda: instruct(planner, ""), lambda: play(Agent(planner, lanes=1), 1)):
        with pytest.raises(ValueError, match=r"reads the text of its task.*--task_text here, or leave openpi\.prompt"):
            act()
    assert not asked


def test_a_client_of_theirs_that_says_no_prompt_is_refused(policy, serve, their_client):
    _, address = serve(policy, keys=NAMES, task="", tell=lambda text: None)
    with pytest.raises(RuntimeError, match="reads the text of its task: send one, or give --task_text"):
        their_client(address)[1]({key: value for key, value in seen(0).items() if key != "prompt"})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Traceback\nKeyError: 'x'", "it refuses: KeyError: 'x'"),
        ({"other": 1}, "holds no array 'actions'"),
        ({"actions": np.zeros((3, 2))}, "at least 6 actions of 2 numbers"),
        ({"actions": np.full((6, 2), np.inf)}, "planned NaN or infinity"),
    ],
)
def test_what_their_server_gets_wrong_is_no_plan(their_server, body_file, answer, reason):
    planner, _ = load_policy(their_server(lambda obs: answer), body_file)
    planner.language.instruct("pick it up")
    with pytest.raises(RemoteError, match=reason):
        play(Agent(planner, lanes=1), 1)


def test_who_acts_must_be_said(their_server, tmp_path):
    with pytest.raises(EmbodimentError, match="does not say for whom it acts: give --embodiment FILE"):
        load_policy("openpi://127.0.0.1:9")
    (tmp_path / "body.json").write_text(build().embodiment.to_json())
    with pytest.raises(EmbodimentError, match="does not say how the server names observations"):
        load_policy(their_server(lambda obs: {}), str(tmp_path / "body.json"))
