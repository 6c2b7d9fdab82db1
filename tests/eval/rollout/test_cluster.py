"""A real cluster of two raylets here: rows as on one machine, whatever is killed; nodes that differ are refused."""

import dataclasses
import os
import signal
import time
from pathlib import Path

import pytest

from understudy.configs.settings.decode import decode
from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import World, written_out
from understudy.eval.evaluate.evaluate import Eval
from understudy.eval.ledger.table import table_of, tables_equal
from understudy.eval.rollout.cluster.foreman import Foreman
from understudy.eval.rollout.cluster.parcel import lies_here, pack, shelf, unpack
from understudy.eval.rollout.cluster.sameness import DRAWN, Needs, OtherMachineError, facts, needs_of, refuse_other
from understudy.eval.rollout.crew import Crew
from understudy.eval.rollout.recipes import PolicyRecipe
from understudy.policies.agent.open import Acting, open_agent
from understudy.policies.critics.open import critics_moved
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.sim.task import MuJoCoWorld


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placed(World):
    """A world of settings that name places."""

    of: World | None = None
    scene: str = ""
    many: tuple = ()
    keys: dict = dataclasses.field(default_factory=dict)


POINT = MuJoCoWorld(task="point", horizon=24)
STARTS = range(300, 340)


def test_a_policy_is_packed_once_and_unpacked_as_it_was(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path))
    parcel = pack(str(checkpoint))
    assert parcel.name == pack(str(checkpoint)).name and not lies_here(parcel.name)
    for _ in range(2):
        unpack(parcel.name, parcel.content)
    for name in ("config.json", "embodiment.json", "model.safetensors"):
        assert (shelf() / parcel.name / name).read_bytes() == (checkpoint / name).read_bytes()
    assert [path.name for path in shelf().iterdir()] == [parcel.name]
    (tmp_path / "alarm.json").write_text("{}")
    assert pack(str(tmp_path / "alarm.json")).name.endswith("/alarm.json")


def test_other_machines_are_refused_by_what_differs():
    ours = facts()
    refuse_other("node a", ours, ours)
    for name, value in (("Python", "3.7"), ("the code of understudy", "0" * 16), ("mujoco", "1.0")):
        with pytest.raises(OtherMachineError, match=f"node a would not compute the same: {name}: {value} there"):
            refuse_other("node a", ours | {name: value}, ours)
    with pytest.raises(OtherMachineError, match="understudy: absent"):
        refuse_other("node a", {}, ours)


def test_files_of_a_world_are_compared_and_recipes_say_what_they_read(tmp_path, checkpoint):
    @dataclasses.dataclass(frozen=True)
    class Scene:
        model: str
        name: str = "lift"

    (tmp_path / "scene.xml").write_text("<mujoco/>")
    needs = needs_of(Scene(str(tmp_path / "scene.xml")))
    assert needs.files == (str(tmp_path / "scene.xml"),)
    here = facts(Needs(files=needs.files))
    (tmp_path / "scene.xml").write_text("<mujoco model='other'/>")
    with pytest.raises(OtherMachineError, match="put them at the same place on every node"):
        refuse_other("node a", facts(Needs(files=needs.files)), here)

    critic = f"recall:5>{checkpoint}"
    recipe = PolicyRecipe(Acting(policy=str(checkpoint), critic=critic), POINT)
    moved = recipe.moved({str(checkpoint): "/there/x"})
    assert (moved.acting.policy, moved.acting.critic, moved.acting.device) == ("/there/x", "recall:5>/there/x", "cpu")
    assert critics_moved("a+0.5*a/b", {"a": "x", "a/b": "y"}) == "x+0.5*y"
    with pytest.raises(ValueError, match="server of this machine"):
        PolicyRecipe(Acting(policy="ws://localhost:1"), POINT).places()
    with pytest.raises(ValueError, match="--goal"):
        PolicyRecipe(Acting(policy=str(checkpoint), goal="goal.png"), POINT).places()


def test_settings_mean_on_a_node_what_they_mean_here(tmp_path, monkeypatch):
    """Variables are written out, paths begin in the folder of the command, and what draws pictures must be the same."""
    monkeypatch.setenv("PLACE", "/there")
    world = MuJoCoWorld(task="point", cameras={"top": (8, 8)})
    around = Placed(of=Placed(scene="$PLACE/w", many=("$PLACE", 1)), keys={"a": ["$PLACE"]})
    there = written_out(around)
    assert (there.of.scene, there.of.many, there.keys) == ("/there/w", ("/there", 1), {"a": ["/there"]})
    assert written_out(world) == world

    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "a.json").write_text("{}")
    (tmp_path / "point").write_text("a file that is called as the task")
    needs = needs_of(Placed(task="point", keys={"scene": "scene"}))
    assert needs.files == (str(tmp_path / "scene"),) and not needs.draws
    monkeypatch.setenv("NEW", "")
    Foreman({"NEW": "1"}, str(tmp_path / "scene"))
    assert Path.cwd() == tmp_path / "scene" and os.environ["NEW"] == "1"
    Foreman({}, str(tmp_path / "nowhere"))
    assert Path.cwd() == shelf(), "where no path of settings leads to anything"

    drawn = facts(needs_of(world))
    assert not needs_of(POINT).draws
    assert drawn.keys() - facts().keys() == {DRAWN}
    with pytest.raises(OtherMachineError, match="set MUJOCO_GL alike everywhere"):
        refuse_other("node a", drawn | {DRAWN: "something else"}, drawn)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"engine": "dask"}, "unknown engine 'dask'"),
        ({"address": "head:6379"}, "add --engine ray"),
        ({"engine": "ray", "workers": 0}, "leave --engine ray out"),
    ],
)
def test_engines_are_checked_before_anything(words, message):
    with pytest.raises((ValueError, LookupError), match=message):
        decode(Eval, {"policy": "runs/x", "out": "out/x"} | words)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    import torch

    torch.manual_seed(0)
    network = MLPConfig(width=16, depth=1, condition_width=8)
    config = DiffusionConfig(window=Window(horizon=4), inputs=(STATE, SCENE), network=network, n_action_steps=3)
    body = POINT.embodiment()
    folder = tmp_path_factory.mktemp("policies") / "policy"
    save_checkpoint(folder, config.build(body, blank_scales(body)), kind="policy", config=config)
    return folder


@pytest.fixture(scope="module")
def recipe(checkpoint):
    acting = Acting(policy=str(checkpoint), policy_seed=7)
    agent, about = open_agent(acting, POINT.embodiment, POINT.task)
    return PolicyRecipe.of(acting, agent, about, POINT)


@pytest.fixture(scope="module")
def raylets():
    """Two raylets of this machine, one core each."""
    ray = pytest.importorskip("ray")
    os.environ |= {"RAY_agent_register_timeout_ms": "120000", "RAY_USAGE_STATS_ENABLED": "0"}
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def cluster(raylets):
    from understudy.eval.rollout.cluster.connect import Cluster

    before = signal.getsignal(signal.SIGTERM)
    connected = Cluster(raylets.address)
    assert signal.getsignal(signal.SIGTERM) is before, "Ray keeps the signals"
    return connected


@pytest.mark.timeout(400)
def test_rows_are_those_of_one_machine_with_workers_killed_in_the_middle(cluster, recipe):
    """One process is killed, then one whole worker of Ray: each episode is a row once, the same to the last bit."""
    with Crew(POINT) as crew:
        plain = list(crew.run(recipe, STARTS))
    killed = []
    with Crew(POINT, 8, 2, engine=cluster) as crew:
        got = []
        for result in crew.run(recipe, STARTS):
            got.append(result)
            if len(got) in (3, 15):
                killed.append(_kill(crew, whole=len(got) == 15))
        told = crew.told()
    assert len(killed) == 2 and told["blocks_again"] >= 1 and told["engine"] == "ray" and told["nodes"] == 2
    assert [row["env_seed"] for row in _sorted(got)] == list(STARTS)
    assert tables_equal(table_of(_sorted(got)), table_of(_sorted(plain)))
    assert 0 < told["policies_mb"] < 1
    assert all(_gone(pid) for pid in killed)


def _sorted(results) -> list[dict]:
    return sorted((result.row for result in results), key=lambda row: row["env_seed"])


def _kill(crew: Crew, whole: bool) -> int:
    """Kill -9 the process that a busy worker keeps, or the worker of Ray itself."""
    hand = next(hand for hand in crew._hands if hand.order is not None and hand.known is not None)
    worker = hand.known["pid"]
    children = open(f"/proc/{worker}/task/{worker}/children").read().split()
    pid = worker if whole or not children else int(children[-1])
    os.kill(pid, signal.SIGKILL)
    return pid


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False
