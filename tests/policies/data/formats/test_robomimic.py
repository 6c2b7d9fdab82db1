"""robomimic's HDF5: what becomes of each key, and that damage is told.

The files here are written with h5py in the layout that robomimic documents. The reader was compared with robomimic
0.3.0 on a file that robosuite 1.5.2 recorded (Lift, 21 steps) and robomimic's scripts converted (convert_robosuite,
dataset_states_to_obs, split_train_val): actions, states and object equal those of its `SequenceDataset`, subsets too.
"""

import json
import subprocess

import numpy as np
import pytest

from understudy.__main__ import main
from understudy.configs.spec import SCENE, STATE, Mode
from understudy.policies.data.frames import open_frames
from understudy.policies.data.layout import DatasetError
from understudy.policies.data.open import open_dataset

h5py = pytest.importorskip("h5py")
LENGTHS = {"demo_0": 6, "demo_2": 4, "demo_10": 5}
ENVIRONMENT = {
    "env_name": "Lift", "type": 1, "env_kwargs": {
        "robots": ["Panda"], "control_freq": 20, "reward_shaping": False,
        "controller_configs": {"type": "OSC_POSE", "control_delta": True},
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))


def recording(path, environment=ENVIRONMENT, images=True):
    """Three demonstrations; what they hold, by name."""
    held = {}
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps(environment)
        for number, (name, steps) in enumerate(LENGTHS.items()):
            rng = np.random.default_rng(number)
            robot = {"eef_pos": 3, "eef_quat": 4, "gripper_qpos": 2, "joint_pos": 7}
            sizes = {f"robot0_{key}": size for key, size in robot.items()} | {"object": 10}
            held[name] = {f"obs/{key}": rng.normal(size=(steps, size)) for key, size in sizes.items()}
            if images:
                held[name]["obs/agentview_image"] = rng.integers(0, 255, (steps, 16, 24, 3), np.uint8)
            held[name] |= {"actions": rng.uniform(-1, 1, (steps, 7)), "states": rng.normal(size=(steps, 32))}
            held[name]["rewards"] = np.arange(steps) == (steps - 1 if number else steps + 1)
            held[name]["dones"] = (np.arange(steps) == steps - 1).astype(int)
            demo = file.create_group(f"data/{name}")
            demo.attrs["num_samples"] = steps
            for key, values in held[name].items():
                demo[key] = values
        file["data"].attrs["total"] = sum(LENGTHS.values())
        file["mask/train"] = np.array([b"demo_0", b"demo_10"])
        file["mask/valid"] = np.array([b"demo_2"])
    return held


def test_every_key_has_its_place(tmp_path, capsys):
    held = recording(tmp_path / "lift.hdf5")
    dataset = open_dataset(tmp_path / "lift.hdf5")
    whole = {key: np.concatenate([held[name][key] for name in LENGTHS]) for key in held["demo_0"]}

    def same(column, *keys):
        return (dataset.columns[column] == np.concatenate([whole[key] for key in keys], 1).astype(np.float32)).all()

    robot = [f"obs/robot0_{part}" for part in ("eef_pos", "eef_quat", "gripper_qpos")]
    assert same("action", "actions") and same(STATE, *robot) and same(SCENE, "obs/object")
    assert same("observation.robot0_joint_pos", "obs/robot0_joint_pos")
    assert (open_frames(dataset, "agentview").read(np.arange(15)) == whole["obs/agentview_image"]).all()
    body = dataset.embodiment
    assert (body.name, body.rate, body.mode, body.rotation) == ("panda", 20, Mode.delta, "axis-angle")
    assert body.action == ("dx", "dy", "dz", "rx", "ry", "rz", "gripper") and set(body.action_units) == {"?"}
    assert body.state[:4] == ("robot0_eef_pos.0", "robot0_eef_pos.1", "robot0_eef_pos.2", "robot0_eef_quat.0")
    assert dataset.tasks == ("Lift",) * 3 and dataset.lengths.tolist() == [6, 4, 5]
    assert np.add.reduceat(dataset.columns["next.success"][:, 0], dataset.starts).tolist() == [0, 1, 1]
    assert "action.sent" not in dataset.features and "next.progress" not in dataset.features
    assert json.loads((dataset.root / "meta/source.json").read_text())["about"]["env_args"] == ENVIRONMENT
    assert "is of format robomimic" in capsys.readouterr().err

    # subsets choose, and what was converted once is there
    held_out = open_dataset(tmp_path / "lift.hdf5", episodes="'train' not in subsets")
    assert held_out.lengths.tolist() == [4] and held_out.root == dataset.root and not capsys.readouterr().err
    assert open_dataset(tmp_path / "lift.hdf5", episodes="name == 'demo_10'").lengths.tolist() == [5]


def test_a_changed_file_is_read_anew(tmp_path):
    recording(tmp_path / "a.hdf5", images=False)
    before = open_dataset(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        file["data/demo_0/actions"][0, 0] = 0.125
    after = open_dataset(tmp_path / "a.hdf5")
    assert after.root != before.root and after.columns["action"][0, 0] == 0.125


def test_what_is_not_said_stays_unsaid(tmp_path):
    shaped = json.loads(json.dumps(ENVIRONMENT))
    shaped["env_kwargs"] |= {"reward_shaping": True, "controller_configs": {"type": "JOINT_POSITION"}}
    del shaped["env_kwargs"]["control_freq"]
    recording(tmp_path / "a.hdf5", shaped, images=False)
    body = open_dataset(tmp_path / "a.hdf5").embodiment
    assert "next.success" not in open_dataset(tmp_path / "a.hdf5").features
    assert body.mode is Mode.unknown and body.action[0] == "0" and not body.states("rate")
    (tmp_path / "body.yaml").write_text("rate: 50\nmode: absolute\naction_units: [rad, rad, rad, rad, rad, rad, 1]\n")
    told = open_dataset(tmp_path / "a.hdf5", embodiment=tmp_path / "body.yaml").embodiment
    assert (told.rate, told.mode, told.action_units[0]) == (50, Mode.absolute, "rad") and told.states("rate")


def test_verbs_take_the_file(tmp_path, capsys):
    recording(tmp_path / "a.hdf5", images=False)
    assert main(["inspect", str(tmp_path / "a.hdf5"), "--out", str(tmp_path / "a.html")]) == 0
    assert "robot0_eef_pos.0" in capsys.readouterr().out
    words = ["--steps", "2", "--batch", "4", "--device", "cpu", "--threads", "1", "--validation", "0.3"]
    policy = ["--policy.type", "diffusion", "--policy.inputs", "[observation.state]", "--policy.network.type", "mlp"]
    assert main(["train", "--data", str(tmp_path / "a.hdf5"), *words, *policy, "--out", str(tmp_path / "run")]) == 0
    judged = ["eval", "--policy", str(tmp_path / "run"), "--data", str(tmp_path / "a.hdf5")]
    assert main([*judged, "--out", str(tmp_path / "rec")]) == 0


def rewritten(change):
    def spoil(path):
        with h5py.File(path, "r+") as file:
            change(file)

    return spoil


def replaced(name, values):
    def change(file):
        del file[name]
        if values is not None:
            file[name] = values

    return rewritten(change)


def attribute(name, key, value):
    return rewritten(lambda file: file[name].attrs.__setitem__(key, value))


def cut(part):
    def spoil(path):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])

    return spoil


FAULTS = {
    "cut in the middle": (cut(0.5), "damaged or cut short"),
    "cut at its end": (cut(0.98), "damaged or cut short"),
    "no actions": (replaced("data/demo_2/actions", None), "'data/demo_2/actions' is not there|demo_2/actions' is not"),
    "a key is missing": (replaced("data/demo_2/obs/object", None), "'object' is .* in demo_0 and nothing in demo_2"),
    "another width": (replaced("data/demo_2/obs/object", np.zeros((4, 9))),
        r"'object' is \(10,\) in demo_0 and \(9,\)"),
    "fewer rows": (replaced("data/demo_2/obs/object", np.zeros((3, 10))), "has 3 rows, its actions 4"),
    "fewer rewards": (replaced("data/demo_2/rewards", np.zeros(3)), "demo_2 has 4 actions and 3 rows of rewards"),
    "fewer actions": (replaced("data/demo_2/actions", np.zeros((3, 7))), "15 steps in all .* 14 are there"),
    "another count": (attribute("data/demo_2", "num_samples", 9), "states 9 steps"),
    "NaN in an action": (replaced("data/demo_2/actions", np.full((4, 7), np.nan)), "actions is NaN or infinite"),
    "NaN in a state": (replaced("data/demo_2/obs/object", np.full((4, 10), np.nan)),
        "environment_state of demo_2 is NaN"),
    "texts": (replaced("data/demo_2/actions", np.array([b"a"] * 4)), "not there as rows of numbers"),
    "env_args": (attribute("data", "env_args", "{"), "env_args of 'data' is damaged"),
    "a subset of nothing": (replaced("mask/train", np.array([b"demo_7"])),
        "'train' names 'demo_7', which is not there"),
    "a link out": (replaced("data/demo_2/actions", h5py.ExternalLink("other.hdf5", "x")), "not there as rows"),
    "no demonstration": (replaced("data", None), "has no group 'data'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_is_told_by_name(tmp_path, fault):
    spoil, said = FAULTS[fault]
    recording(tmp_path / "a.hdf5", images=False)
    spoil(tmp_path / "a.hdf5")
    with pytest.raises(DatasetError, match=said) as told:
        open_dataset(tmp_path / "a.hdf5")
    assert "a.hdf5" in str(told.value) or "actions" in str(told.value)
    assert not [path for path in (tmp_path / "cache/imported").iterdir() if path.is_dir()]


def test_what_another_version_of_the_reader_made_is_not_taken(tmp_path, monkeypatch):
    recording(tmp_path / "a.hdf5", images=False)
    before = open_dataset(tmp_path / "a.hdf5").root
    newer = tmp_path / "newer.py"
    newer.write_text("# another source of the reader\n")
    monkeypatch.setattr("understudy.policies.data.imports.inspect.getfile", lambda kind: str(newer))
    assert open_dataset(tmp_path / "a.hdf5").root != before


def test_what_a_killed_conversion_left_is_cleared(tmp_path):
    recording(tmp_path / "a.hdf5", images=False)
    ended = subprocess.Popen(["true"])
    ended.wait()
    folder = open_dataset(tmp_path / "a.hdf5").root
    folder.rename(folder.with_name(f".{folder.name}.{ended.pid}.half"))
    assert open_dataset(tmp_path / "a.hdf5").root == folder
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]


def test_a_file_of_no_format_is_refused_with_what_is_read(tmp_path):
    (tmp_path / "a.hdf5").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match="none of the formats that are read: .*robomimic: FILE.hdf5"):
        open_dataset(tmp_path / "a.hdf5")
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["a.hdf5"]


def same_rows(one, other):
    assert one.columns.keys() - {"action.sent", "next.progress"} == other.columns.keys()
    for key, values in other.columns.items():
        assert values.dtype == np.float32 and (values == one.columns[key]).all(), key
    assert (one.lengths == other.lengths).all() and one.tasks == other.tasks and set(one.cameras) == set(other.cameras)
    rows = np.arange(len(one))
    for camera in one.cameras:
        assert (open_frames(one, camera).read(rows) == open_frames(other, camera).read(rows)).all()


def test_a_recording_goes_back_to_its_own_keys(tmp_path, capsys):
    held = recording(tmp_path / "lift.hdf5")
    main(["convert", str(tmp_path / "lift.hdf5"), str(tmp_path / "again.hdf5")])
    assert "3 demonstrations, 15 steps; masks: train 2, valid 1; no next_obs" in capsys.readouterr().out
    with h5py.File(tmp_path / "again.hdf5") as file:
        assert json.loads(file["data"].attrs["env_args"]) == ENVIRONMENT and file["data"].attrs["total"] == 15
        assert [*file["mask/train"]] == [b"demo_0", b"demo_2"] and [*file["mask/valid"]] == [b"demo_1"]
        for number, (name, steps) in enumerate(LENGTHS.items()):
            demo = file[f"data/demo_{number}"]
            assert demo.attrs["num_samples"] == steps and demo["dones"][:].tolist() == [0] * (steps - 1) + [1]
            assert set(demo) == {"actions", "rewards", "dones", "obs", "success"}
            assert {f"obs/{key}" for key in demo["obs"]} == {key for key in held[name] if key.startswith("obs/")}
            for key in [*demo["obs"]]:
                assert (demo["obs"][key][:] == held[name][f"obs/{key}"].astype(demo["obs"][key].dtype)).all(), key
            assert (demo["rewards"][:] == held[name]["rewards"]).all()
    same_rows(open_dataset(tmp_path / "lift.hdf5"), open_dataset(tmp_path / "again.hdf5"))


def test_a_dataset_comes_back_as_it_was(tmp_path):
    data, file = tmp_path / "data", tmp_path / "some.hdf5"
    cameras = ["--cameras", "{image: [64, 64]}"]
    main(["demos", "pusht-mujoco", "--episodes", "3", "--out", str(data), "--workers", "0", *cameras])
    main(["convert", str(data), str(file)])
    one, other = open_dataset(data), open_dataset(file)
    same_rows(one, other)
    assert other.embodiment == one.embodiment and (one.columns["next.success"] > 0).any()
    main(["convert", str(data), str(tmp_path / "few.hdf5"), "--episodes", "1-2", "--drop", "image", "--task", "push"])
    few = open_dataset(tmp_path / "few.hdf5")
    assert len(few.lengths) == 2 and few.tasks == ("push", "push") and not few.cameras
    assert (few.columns["action"] == one.columns["action"][one.starts[1] :]).all()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--to", "v2.1"], "--to does nothing where robomimic's HDF5 is written"),
        (["--rate", "5"], "--rate does nothing where"),
        (["--tasks", "{a: b}"], "--tasks does nothing where"),
        (["--drop", "nothing"], "no such column or camera; there are action, agentview"),
        (["--drop", "action"], "a demonstration is its actions"),
    ],
)
def test_what_is_not_written_is_refused(tmp_path, capsys, flags, reason):
    recording(tmp_path / "lift.hdf5")
    assert main(["convert", str(tmp_path / "lift.hdf5"), str(tmp_path / "again.hdf5"), *flags]) != 0
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "again.hdf5").exists() and not [*tmp_path.glob(".again*")]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"state": ["gone"]}, "says that it holds 'gone'"),
        ({"state": ["robot0_eef_pos"]}, "its body names 9"),
        ({"embodiment": {"name": 3}}, "names no body"),
        ({"cameras": 3}, "lacks what it should say"),
    ],
)
def test_a_file_of_ours_that_contradicts_itself_is_refused(tmp_path, changed, said):
    recording(tmp_path / "lift.hdf5", images=False)
    main(["convert", str(tmp_path / "lift.hdf5"), str(tmp_path / "again.hdf5")])
    with h5py.File(tmp_path / "again.hdf5", "r+") as file:
        attributes = file["data"].attrs
        attributes["understudy"] = json.dumps(json.loads(attributes["understudy"]) | changed)
    with pytest.raises(DatasetError, match=said):
        open_dataset(tmp_path / "again.hdf5")


@pytest.mark.slow
def test_robomimics_own_reader_takes_it(tmp_path):
    dataset = pytest.importorskip("robomimic.utils.dataset", reason="robomimic is not installed")
    import robomimic.utils.obs_utils as obs_utils

    recording(tmp_path / "lift.hdf5")
    main(["convert", str(tmp_path / "lift.hdf5"), str(tmp_path / "again.hdf5")])
    low, rgb = ["robot0_eef_pos", "object"], ["agentview_image"]
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": low, "rgb": rgb}})
    read = dataset.SequenceDataset(
        hdf5_path=str(tmp_path / "again.hdf5"), obs_keys=(*low, *rgb), dataset_keys=("actions", "rewards", "dones"),
        load_next_obs=False, seq_length=1, filter_by_attribute="train",
    )  # fmt: skip
    ours = open_dataset(tmp_path / "again.hdf5")
    rows = [row for place in (0, 2) for row in range(ours.starts[place], ours.starts[place] + ours.lengths[place])]
    assert len(read) == len(rows) == LENGTHS["demo_0"] + LENGTHS["demo_10"]
    for place, row in enumerate(rows):
        assert (read[place]["actions"][0] == ours.columns["action"][row]).all()
        assert (read[place]["obs"]["object"][0] == ours.columns[SCENE][row]).all()
