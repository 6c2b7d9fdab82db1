"""No verb moves a real arm before the person at it was asked: its world asks, whoever acts in it."""

import dataclasses
import json

import pytest

import understudy
from understudy.__main__ import main
from understudy.configs.world import World, read_world
from understudy.eval.inspect.policy import where
from understudy.eval.inspect.settings import Settings
from understudy.eval.rollout.crew import Crew
from understudy.hardware.consent import Refused
from understudy.hardware.emulator.arm import find_kind, write_calibration
from understudy.world_models.gate import DreamError


@pytest.fixture
def arm(tmp_path) -> dict:
    """Keys of an arm that is not there."""
    write_calibration(tmp_path / "so101.json", find_kind("so101").calibration())
    return {"type": "so101", "port": str(tmp_path / "port"), "calibration": str(tmp_path / "so101.json"), "rate": 60}


def worlds(arm: dict, tmp_path) -> dict[str, World]:
    """Of each kind that moves a real arm."""
    file = tmp_path / "arm.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in arm.items()))
    follows = {"type": "twin", "of": {"type": "mujoco", "task": "so101-pusht"}, "robot": str(file), "pace": "wall"}
    return {
        "about to move": read_world({"type": "robot", "task": "table", "robot": arm}),
        "about to follow its twin": read_world(follows | {"correct": False}),
    }


def test_a_world_with_a_real_arm_asks_before_anything_is_opened(arm, tmp_path, monkeypatch):
    for said, world in worlds(arm, tmp_path).items():
        with pytest.raises(Refused, match=rf"(?s){said}\. Nobody is there.*say yes: true in the world"):
            Crew(world)
        Crew(dataclasses.replace(world, yes=True)).close()
        assert world.moves_arm
        asked = []
        monkeypatch.setattr("understudy.hardware.consent.on_terminal", lambda: True)
        monkeypatch.setattr("sys.stdin.readline", lambda asked=asked: asked.append(1) or "no\n", raising=False)
        with pytest.raises(Refused, match="the arm was not moved"):
            Crew(world)
        assert asked == [1]
        monkeypatch.undo()


def test_an_offline_twin_of_an_arm_is_that_arm(arm):
    """It said that nothing moves, and asked nobody."""
    world = read_world({"type": "twin", "of": {"type": "robot", "task": "table", "robot": arm}})
    assert world.moves_arm and world.by_the_clock
    with pytest.raises(Refused, match="about to move"):
        Crew(world)
    emulated = {"type": "twin", "of": {"type": "robot", "emulate": True, "task": "so101-reach"}}
    assert read_world(emulated).by_the_clock and not read_world(emulated).moves_arm


def test_python_asks_as_the_verbs_do(arm, tmp_path):
    """`make` opened the arm, and `rollout` moved it, without a question."""
    for world in worlds(arm, tmp_path).values():
        with pytest.raises(Refused):
            understudy.make(world)
        with pytest.raises(Refused):
            understudy.make(world, 1)
        with pytest.raises(ValueError, match="nothing happens twice"):
            understudy.rollout("a policy", world, films=2)


def test_nobody_inspects_or_dreams_on_an_arm(arm, tmp_path):
    """Eight were opened at a time; a dream had the arm moved to its first frames."""
    file = tmp_path / "world.yaml"
    file.write_text(json.dumps({"type": "robot", "task": "table", "robot": arm, "yes": True}))
    with pytest.raises(ValueError, match="simulated time"):
        where(Settings(policy=("run",), world=str(file)))
    with pytest.raises(DreamError, match="is an arm"):
        read_world({"type": "dream", "model": "run", "starts": str(file)}).truth  # noqa: B018


def test_an_emulated_arm_is_not_asked_for():
    world = read_world({"type": "robot", "emulate": True, "task": "so101-reach", "clock": "simulated"})
    Crew(world).close()
    assert not world.moves_arm


def test_who_was_asked_is_no_part_of_a_record(arm, tmp_path):
    for world in worlds(arm, tmp_path).values():
        assert dataclasses.replace(world, yes=True).fingerprint() == world.fingerprint()


def test_twin_run_asks_too(arm, tmp_path, capsys):
    worlds(arm, tmp_path)
    file = tmp_path / "twin.yaml"
    of = "{type: mujoco, task: so101-pusht}"
    file.write_text(f"type: twin\nof: {of}\nrobot: {tmp_path / 'arm.yaml'}\npace: wall\ncorrect: false\n")
    assert main(["twin", "run", "--world", str(file)]) != 0
    assert "about to follow its twin. Nobody is there to allow it" in capsys.readouterr().err
