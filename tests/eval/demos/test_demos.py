"""Demonstrations: the expert in the rollout loop, into a dataset that holds successes only."""

import json

import numpy as np
import pytest

from understudy.configs.files import replace_file
from understudy.configs.owner import InUseError, owned
from understudy.configs.spec import SCENE, STATE
from understudy.configs.world import read_world, start_set
from understudy.eval.demos.demos import Demos
from understudy.eval.demos.recording import RecordingError, written_starts
from understudy.eval.demos.starts import starts_of
from understudy.eval.ledger.record import RecordWriter
from understudy.eval.rollout.recipes import ExpertRecipe
from understudy.eval.rollout.standing import crew_for
from understudy.policies.data.open import open_dataset
from understudy.policies.data.writer import DatasetWriter
from understudy.sim.testing import REACH

FAST = {"type": "point", "horizon": 14}  # too short for the farthest targets


def demonstrate(folder, **changes):
    Demos(**{"task": "point", "episodes": 12, "out": str(folder)} | changes).run()
    return open_dataset(folder)


def test_the_expert_reaches_every_target(tmp_path, capsys):
    dataset = demonstrate(tmp_path / "d")
    assert "12 episodes" in capsys.readouterr().out
    assert len(dataset.lengths) == 12 and dataset.embodiment.name == "point"
    columns, last = dataset.columns, dataset.starts + dataset.lengths - 1
    assert columns["next.success"][last].all() and columns["next.done"][last].all()
    assert columns["next.success"].sum() == 12
    gaps = np.linalg.norm(columns[STATE] - columns[SCENE], axis=1)
    assert (gaps >= REACH).all()  # every row is the view before an action, and the first success ended the episode
    assert np.array_equal(columns["action"], columns["action.sent"])


def test_workers_give_the_same_dataset(tmp_path):
    one, two = demonstrate(tmp_path / "a"), demonstrate(tmp_path / "b", workers=2)
    assert one.fingerprint == two.fingerprint


def test_failures_are_left_out_and_counted(tmp_path, capsys):
    kept = demonstrate(tmp_path / "kept", world=FAST)
    text = capsys.readouterr().out
    everything = demonstrate(tmp_path / "all", world=FAST, keep_failures=True)
    assert 0 < len(kept.lengths) < len(everything.lengths) == 12
    assert f"{len(kept.lengths)} of 12" in text


def test_shaking_disturbs_what_is_sent_and_noise_what_is_asked(tmp_path):
    shaken = demonstrate(tmp_path / "shaken", action_noise=0.3).columns
    assert np.abs(shaken["action"] - shaken["action.sent"]).max() > 0.1
    noisy = demonstrate(tmp_path / "noisy", noise=0.3).columns
    assert np.array_equal(noisy["action"], noisy["action.sent"])
    aim = 4 * (noisy[SCENE] - noisy[STATE])
    aim /= np.maximum(1, np.linalg.norm(aim, axis=1, keepdims=True))
    assert 0.1 < (noisy["action"] - aim).std() < 0.4


def test_pictures_are_recorded(tmp_path):
    dataset = demonstrate(tmp_path / "d", episodes=2, cameras={"top": (48, 64)}, pictures="image")
    assert dataset.features["observation.images.top"]["shape"] == [48, 64, 3]


def test_nothing_is_left_where_nobody_succeeds(tmp_path):
    with pytest.raises(ValueError, match="0 of 12(.|\n)*no episode succeeded"):
        demonstrate(tmp_path / "d", world={"type": "point", "horizon": 2})
    assert not (tmp_path / "d").exists()


def test_a_used_folder_and_a_task_without_expert_are_refused(tmp_path):
    with pytest.raises(FileExistsError, match="exists already"):
        demonstrate(tmp_path)
    with pytest.raises(LookupError, match="unknown expert 'Wipe'"):
        demonstrate(tmp_path / "d", task="robosuite/Wipe")


ARM = {"type": "robot", "task": "so101-reach", "emulate": True, "clock": "simulated"}  # an SO-101 behind the guard


def test_the_expert_leads_an_emulated_arm_and_what_the_guard_let_through_is_recorded(tmp_path):
    dataset = demonstrate(tmp_path / "d", task="so101-reach", world=ARM, episodes=3, env_seed=100_001)
    asked, sent = dataset.columns["action"], dataset.columns["action.sent"]
    assert len(dataset.lengths) > 0 and np.abs(asked - sent).max() > 0.01, "it asks for more than an arm can"
    faster = np.abs(np.diff(sent[: dataset.lengths[0]], axis=0)).max() * dataset.embodiment.rate
    assert faster < 3.5, "rad/s: what is recorded, an arm can do"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clock": "wall"}, "in simulated time alone"),
        ({"emulate": False, "robot": "so101", "clock": "wall"}, "led by a person: --robot"),
        ({"task": ""}, "names no task"),
    ],
)
def test_an_arm_whose_scene_nobody_knows_is_led_by_no_expert(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        demonstrate(tmp_path / "d", task="so101-reach", world=ARM | changes)


def content(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


KILLED_AT = (  # which writing of which file is cut off
    ("meta/info.json", 3), ("meta/stats.json", 2), ("meta/episodes", 2), ("meta/tasks", 2), ("file-001.", 1),
    ("file-000.parquet", 1),
)  # fmt: skip


@pytest.mark.parametrize(
    "changes", [{}, {"world": FAST}, {"cameras": {"top": (32, 32)}, "pictures": "image", "episodes": 3}]
)
def test_a_killed_recording_goes_on_to_the_same_files(tmp_path, monkeypatch, changes):
    changes = {"episodes": 8, "block": 4, "noise": 0.1} | changes
    demonstrate(tmp_path / "whole", **changes)
    whole = content(tmp_path / "whole")
    for place, (name, turn) in enumerate(KILLED_AT[:: 5 if "cameras" in changes else 1]):
        part, turns = tmp_path / f"killed{place}", []

        def killed(path, write, name=name, turn=turn, turns=turns):
            turns += [1] * (name in path.as_posix())
            if len(turns) == turn:
                raise Kill
            return replace_file(path, write)

        monkeypatch.setattr("understudy.policies.data.writer.replace_file", killed)
        monkeypatch.setattr(DatasetWriter, "discard", lambda *_: None)  # a dead process tidies nothing up
        with pytest.raises(Kill):
            demonstrate(part, **changes)
        monkeypatch.undo()
        assert content(part) != whole
        (part / "data/chunk-000").mkdir(parents=True, exist_ok=True)
        (part / "data/chunk-000/.file-002.parquet.999999999.part").write_text("half")
        (tmp_path / f".{part.name}.999999999.half").mkdir()
        demonstrate(part, resume=True, **changes)
        assert content(part) == whole
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


class Kill(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def test_an_interrupted_recording_says_how_to_go_on(tmp_path, monkeypatch):
    whole = demonstrate(tmp_path / "whole")
    write = DatasetWriter._write_stats

    def interrupted(self):
        if self.episodes == 3:
            raise KeyboardInterrupt
        write(self)

    monkeypatch.setattr(DatasetWriter, "_write_stats", interrupted)
    monkeypatch.setattr(DatasetWriter, "_forget_the_next", lambda self: monkeypatch.undo())
    with pytest.raises(KeyboardInterrupt, match="3 episodes are kept in .*part; the same command with --resume"):
        demonstrate(tmp_path / "part")
    assert json.loads((tmp_path / "part/meta/info.json").read_text())["total_episodes"] == 3
    with pytest.raises(FileExistsError, match="or --resume to go on"):
        demonstrate(tmp_path / "part")
    with pytest.raises(RecordingError, match="another recording: its how.noise was"):
        demonstrate(tmp_path / "part", resume=True, noise=0.1)
    assert demonstrate(tmp_path / "part", resume=True).fingerprint == whole.fingerprint
    assert demonstrate(tmp_path / "part", resume=True).fingerprint == whole.fingerprint  # nothing is left to do


def test_a_start_without_an_episode_is_begun_again_and_one_process_records(tmp_path):
    (tmp_path / "d").mkdir()
    DatasetWriter(tmp_path / "e", demonstrate(tmp_path / "d", resume=True).embodiment)
    assert len(demonstrate(tmp_path / "e", resume=True).lengths) == 12
    with pytest.raises(RecordingError, match="holds no recording to go on with"):
        demonstrate(tmp_path / "f", resume=True)
    with owned(tmp_path / "e"), pytest.raises(InUseError, match="being written by another process"):
        demonstrate(tmp_path / "e", resume=True)


def tried(folder, first, count=12, manifest=None, errors=(), finished=True):
    """A record of the expert in a world that is too short for it; returns the env seeds at which it failed."""
    world = read_world(FAST)
    told = {"starts": {"set": start_set(world), "first": first, "count": count}} | (manifest or {})
    with RecordWriter(folder, told) as writer, crew_for(world, 0, episodes=count) as crew:
        crew.start(needs_torch=False)
        for result in crew.run(ExpertRecipe(), range(first, first + count), initial_conditions=start_set(world)):
            lost = result.row["env_seed"] in errors
            writer.add(result.row | ({"error": "the simulator diverged", "success": False} if lost else {}))
        writer.close(complete=finished)
    return sorted(row["env_seed"] for row in writer.rows.values() if not row["success"] and not row["error"])


def test_where_a_policy_failed(tmp_path, capsys):
    """The record's failures become starts, each once however many are asked for; the account says so."""
    failed = tried(tmp_path / "tried", 100_000)
    assert 0 < len(failed) < 12
    dataset = demonstrate(tmp_path / "d", starts=str(tmp_path / "tried"), episodes=50)
    assert sorted(written_starts(tmp_path / "d")) == failed and len(dataset.lengths) == len(failed)
    told = capsys.readouterr().out
    assert f"{len(failed)} of {len(failed)} failures in 12 episodes" in told
    assert "fewer than the 50 of --episodes; none is demonstrated twice" in told
    settings = Demos(task="point", out="x", starts=str(tmp_path / "tried"), episodes=1)
    assert list(starts_of(settings, read_world(FAST)).seeds) == failed[:1]


def test_failures_that_cannot_be_starts_are_refused(tmp_path):
    tried(tmp_path / "tried", 100_000)
    tried(tmp_path / "reported", 1000)
    with pytest.raises(ValueError, match="for choosing or reporting"):
        demonstrate(tmp_path / "e", starts=str(tmp_path / "reported"))
    with pytest.raises(ValueError, match="scripted expert"):
        demonstrate(tmp_path / "f", starts=str(tmp_path / "tried"), by="keyboard")
    with pytest.raises(ValueError, match="leave one of them out"):
        demonstrate(tmp_path / "f", starts=str(tmp_path / "tried"), env_seed=100_500)
    with pytest.raises(ValueError, match="--starts is of the scripted expert: leave --robot out"):
        demonstrate(tmp_path / "f", starts=str(tmp_path / "tried"), robot="so101")
    for flag in ("workers", "block"):
        with pytest.raises(ValueError, match=f"--{flag} is of a simulator's environments: leave --robot out"):
            demonstrate(tmp_path / "f", robot="so101", **{"workers": None, "block": 8} | {flag: 2})
    with pytest.raises(ValueError, match="an env seed is another initial condition there"):
        demonstrate(tmp_path / "f", task="so101-reach", starts=str(tmp_path / "tried"))
    tried(tmp_path / "half", 100_000, finished=False)
    with pytest.raises(ValueError, match="is not finished.*understudy eval --resume"):
        demonstrate(tmp_path / "f", starts=str(tmp_path / "half"))
    assert not (tmp_path / "e").exists() and not (tmp_path / "f").exists()


def test_an_error_is_no_failure_of_the_policy(tmp_path, capsys):
    failed = tried(tmp_path / "whole", 100_000)
    assert tried(tmp_path / "tried", 100_000, errors=failed[:1]) == failed[1:]
    demonstrate(tmp_path / "d", starts=str(tmp_path / "tried"))
    assert written_starts(tmp_path / "d") == frozenset(failed[1:])
    assert "1 episode ended in an error, which is no failure of the policy" in capsys.readouterr().out
    tried(tmp_path / "lost", 100_000, errors=failed)
    with pytest.raises(ValueError, match=f"failed nowhere .{len(failed)} episodes ended in an error"):
        demonstrate(tmp_path / "e", starts=str(tmp_path / "lost"))


def test_failures_at_what_was_learnt_from_are_told(tmp_path, recwarn):
    """The default seeds of `demos` are the first for data, which a policy is likely to be tried on."""
    demonstrate(tmp_path / "data")
    demonstrate(tmp_path / "apart", env_seed=100_500)
    failed = tried(tmp_path / "again", 100_000, manifest={"policy": {"train": {"data": f"gone,{tmp_path / 'data'}"}}})
    tried(tmp_path / "new", 100_000, manifest={"policy": {"train": {"data": str(tmp_path / "apart")}}})
    demonstrate(tmp_path / "d", starts=str(tmp_path / "new"))
    assert not recwarn
    with pytest.warns(UserWarning, match=f"{len(failed)} starts? of {len(failed)} .*{tmp_path / 'data'}.*once more"):
        demonstrate(tmp_path / "e", starts=str(tmp_path / "again"))


def test_a_recording_of_failures_goes_on_and_is_not_taken_for_one_of_seeds_in_a_row(tmp_path):
    failed = tried(tmp_path / "tried", 100_000)
    two = {"starts": str(tmp_path / "tried"), "episodes": 2}
    whole = demonstrate(tmp_path / "d", **two)
    assert demonstrate(tmp_path / "d", **two, resume=True).fingerprint == whole.fingerprint
    row = {"env_seed": failed[0], "episodes": failed[1] - failed[0]}
    with pytest.raises(RecordingError, match="holds another recording: its starts"):
        demonstrate(tmp_path / "d", **row, resume=True)
    with pytest.raises(RecordingError, match="holds another recording: its starts"):
        demonstrate(tmp_path / "d", **two | {"episodes": 3}, resume=True)


def test_a_world_of_another_task_is_refused(tmp_path):
    """It would have been the world's task that is demonstrated, without a word."""
    with pytest.raises(ValueError, match="of the task point, not so101-reach"):
        demonstrate(tmp_path / "d", task="so101-reach", world=FAST)
    with pytest.raises(LookupError, match="pint"):
        demonstrate(tmp_path / "d", task="pint", world=FAST)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("n_action_steps", 4, "of policies"),
        ("ensemble", 0.1, "of policies"),
        ("policy_seed", 3, "of policies"),
        ("seconds", 5.0, "of a robot"),
        ("keep_late", True, "of a robot"),
        ("port", "/dev/ttyACM0", "of a robot"),
    ],
)
def test_settings_of_who_does_not_act_are_refused(tmp_path, flag, value, words):
    with pytest.raises(ValueError, match=f"--{flag} is {words}"):
        Demos(task="so101-reach", out=str(tmp_path / "data"), **{flag: value}).run()
