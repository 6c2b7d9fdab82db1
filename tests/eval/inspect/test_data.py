"""`inspect`: what is odd in a dataset is said with its place; a checkpoint is read without building it."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from understudy.configs.episode import Episode
from understudy.configs.spec import ACTION, IMAGES, STATE, Embodiment
from understudy.eval.inspect.inspect import Inspect
from understudy.eval.inspect.survey import survey
from understudy.policies.data.bent import OUTCOME
from understudy.policies.data.dataset import DatasetError
from understudy.policies.data.open import open_dataset
from understudy.policies.data.writer import DatasetWriter

TOP = IMAGES + "top"
BODY = Embodiment(
    name="toy arm",
    action=("x", "y"),
    action_units=("m", "rad"),
    limits=((-1, 1),) * 2,
    rate=10,
    state=("a", "b"),
    state_units=("m", "m"),
    cameras={"top": (32, 48)},
)


def write(root, pictures="image", body=BODY):
    writer, rng = DatasetWriter(root, body, pictures=pictures), np.random.default_rng(0)
    for start, steps in enumerate((8, 12)):
        action = rng.uniform(-1, 1, (steps, 2)).astype(np.float32)
        obs = {STATE: rng.normal(size=(steps, 2)), TOP: rng.integers(0, 255, (steps, 32, 48, 3), np.uint8)}
        quiet = {
            "progress": np.zeros(steps),
            "success": np.arange(steps) == steps - 1,
            "reward": np.arange(steps) / steps,
        }
        told = {"start": start, "task": "stack [the] cubes", "terminated": True, "truncated": False}
        writer.add(Episode(obs=obs, action=action, sent=action, **quiet, **told))
    return root


def guarded(root, bent):
    """Two episodes of ten steps, of which the guard bent so many each; a bent step was sent 0.3 from what was asked."""
    writer = DatasetWriter(root, dataclasses.replace(BODY, cameras={}), extra={OUTCOME: ("outcome",)})
    for start, count in enumerate(bent):
        outcome = (np.arange(10) < count).astype(np.float32)
        action = np.linspace(-0.5, 0.5, 20, dtype=np.float32).reshape(10, 2)
        sent = action - 0.3 * outcome[:, None] * np.array([0, 1], np.float32)
        writer.add(Episode(
            start=start, task="t", obs={STATE: action}, action=action, sent=sent, reward=0 * outcome,
            progress=0 * outcome, success=outcome > 2, terminated=False, truncated=True, extra={OUTCOME: outcome},
        ))  # fmt: skip
    return root


def spoil(root, file, name, change):
    """Change a column of one data file by `change(values (T, D))`."""
    path = root / f"data/chunk-000/file-{file:03d}.parquet"
    table = pq.read_table(path)
    values = np.array(table[name].to_pylist(), np.float32)
    change(values)
    kind = table.schema.field(name).type
    pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(values.tolist(), kind)), path)


def odd(root):
    return " | ".join(survey(open_dataset(root, check=False)).warnings)


def put(place, value):
    return lambda values: values.__setitem__(place, value)


@pytest.fixture
def toy(tmp_path):
    return write(tmp_path / "toy")


def test_a_clean_dataset_has_no_warnings(toy):
    found = survey(open_dataset(toy, check=False))
    assert found.warnings == ()
    first = next(d for d in found.dimensions if d.column == ACTION)
    values = open_dataset(toy).columns[ACTION][:, 0]
    assert (first.name, first.unit, first.bad) == ("x", "m", 0)
    assert (first.low, first.high) == (values.min(), values.max()) and first.mean == pytest.approx(
        values.mean(), rel=1e-4
    )


def test_oddities_are_found_with_their_place(toy):
    spoil(toy, 1, ACTION, put((3, 1), np.nan))
    assert "'action' has NaN or infinite values in 1 frame (first in episode 1, frame 3), dimensions y" in odd(toy)
    with pytest.raises(DatasetError, match="episode 1, frame 3"):
        open_dataset(toy)
    spoil(toy, 0, ACTION, put((5, 0), 1.5))
    assert "actions leave the embodiment's limits in 1 frame (first in episode 0, frame 5)" in odd(toy)
    spoil(toy, 1, "timestamp", lambda values: values[7:].__iadd__(2))
    assert "not advance by 1/10 s at 1 frame (first in episode 1, frame 7); the largest step is 2.1 s" in odd(toy)
    for file in (0, 1):
        spoil(toy, file, STATE, put((slice(None), 1), 4))
    assert "'observation.state' never changes in b" in odd(toy)


def test_missing_column_video_and_unit_are_warned_of(tmp_path):
    root = write(tmp_path / "a", "video", dataclasses.replace(BODY, action_units=("m", "?")))
    (root / f"videos/{TOP}/chunk-000/file-001.mp4").unlink()
    assert "not specified: the unit of y" in odd(root)
    assert "camera 'top' has no video on disk for 1 episode: 1" in odd(root)
    for file in (0, 1):
        path = root / f"data/chunk-000/file-{file:03d}.parquet"
        pq.write_table(pq.read_table(path).drop_columns(["next.reward"]), path)
    assert "column 'next.reward' is missing from the data files" in odd(root)


def test_inspect_prints_and_draws(toy, tmp_path, capsys):
    spoil(toy, 1, ACTION, put((3, 1), np.nan))
    out = tmp_path / "toy.svg"
    Inspect(source=str(toy), out=out).run()
    text = " ".join(capsys.readouterr().out.split())
    for part in ("LeRobotDataset v3.0", "2, of 8 to 12 frames", "20 at 10 Hz", "stack [the] cubes", "top 32x48", "rad"):
        assert part in text
    assert "toy arm" in text and "1 NaN or infinite" in text and "warning: 'action' has NaN" in text
    assert out.read_text().startswith("<?xml") and "<image" in out.read_text()  # with the strip of pictures
    with pytest.raises(FileExistsError, match="choose another --out"):
        Inspect(source=str(toy), out=out).run()


@pytest.mark.parametrize("name", ["pusht_human/lerobot_v3", "g1_bottle_v21"])
def test_inspect_real_sets(data_root, tmp_path, capsys, name):
    Inspect(source=f"$UNDERSTUDY_DATA/{name}", out=tmp_path / "sheet.png").run()
    text = capsys.readouterr().out
    assert "not specified: the unit of" in text and (tmp_path / "sheet.png").stat().st_size > 20_000
    assert ("no video on disk for 70 episodes: 0-9, 20-79" in text) == (name == "g1_bottle_v21")


def checkpoint(folder):
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    config = {"window": {"observe": [-1, 0], "recall": [], "horizon": 16}, "inputs": [STATE], "head": "v"}
    document = {"format": 1, "kind": "policy", "type": "diffusion", "config": config}
    (folder / "config.json").write_text(json.dumps(document))
    (folder / "embodiment.json").write_text(BODY.to_json())
    tensors = {"net.weight": np.zeros((100, 7), np.float32), "action_scale.mean": np.full(2, 0.25, np.float32)}
    save_file(tensors | {"action_scale.std": np.full(2, 1.5, np.float32)}, folder / "model.safetensors")
    (folder / "training_state").mkdir()
    (folder / "training_state" / "progress.json").write_text('{"step": 4200}')


def test_inspect_of_a_run(tmp_path, capsys):
    run = tmp_path / "run"
    checkpoint(run / "checkpoints" / "00004200")
    (run / "best").symlink_to("checkpoints/00004200")
    for source in (run, run / "checkpoints" / "00004200"):
        Inspect(source=str(source)).run()
        text = " ".join(capsys.readouterr().out.split())
        for part in ("policy, type diffusion", "4200", "parameters 700", "inputs observation.state", "horizon 16"):
            assert part in text
        assert 'prediction_type "v"' in text and "[0.25 0.25], [1.5 1.5]" in text and "toy arm at 10 Hz" in text


def test_inspect_of_something_else_says_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match="understudy inspect DATA"):
        Inspect().run()
    with pytest.raises(DatasetError, match="no meta/info.json.*understudy convert"):
        Inspect(source=str(tmp_path)).run()
    (tmp_path / "inside/meta").mkdir(parents=True)
    (tmp_path / "inside/meta/info.json").write_text("{}")
    with pytest.raises(DatasetError, match=f"did you mean {tmp_path}/inside"):
        Inspect(source=str(tmp_path)).run()
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    with pytest.raises(DatasetError, match="holds no checkpoint yet"):
        Inspect(source=str(run)).run()
    checkpoint(run / "checkpoints" / "00000100")
    (run / "checkpoints/00000100/model.safetensors").write_bytes(b"cut")
    with pytest.raises(DatasetError, match="is damaged .* use an earlier one"):
        Inspect(source=str(run)).run()


def test_a_recording_of_which_the_guard_bent_most_is_warned_of(tmp_path, capsys):
    Inspect(source=str(guarded(tmp_path / "much", (9, 4)))).run()
    said = " ".join(capsys.readouterr().out.split())
    assert "the guard bent 13 of 20 steps (65%; most of them in 1 of 2 episodes), y by up to 0.3 rad" in said
    assert "what was executed (`action.sent`) is not what was asked for (`action`)" in said
    Inspect(source=str(tmp_path / "much"), columns={"action": "action.sent"}).run()
    assert "the guard bent" not in capsys.readouterr().out
    assert "the guard bent" not in odd(guarded(tmp_path / "half", (10, 0)))
