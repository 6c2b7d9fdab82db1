"""The frame cache: right pictures at the right rows, decoded once, bounded, and clear about what is missing."""

import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from understudy.configs.episode import Episode
from understudy.configs.spec import ACTION, IMAGES, STATE, Embodiment, Window
from understudy.policies.data import frames
from understudy.policies.data.dataset import DatasetError
from understudy.policies.data.decode import fit
from understudy.policies.data.encode import write_mp4
from understudy.policies.data.open import open_dataset
from understudy.policies.data.tables import DatasetWarning
from understudy.policies.data.windows import Windows
from understudy.policies.data.writer import DatasetWriter

TOP = IMAGES + "top"
LENGTHS = (6, 11)
HEIGHT, WIDTH = 48, 64
BODY = Embodiment(
    action=("x",),
    action_units=("m",),
    limits=((-1, 1),),
    rate=10,
    state=("s",),
    state_units=("m",),
    cameras={"top": (HEIGHT, WIDTH)},
)


def shades(first, count):
    """Pictures whose grey level tells the dataset row; smooth, so that a lossy codec keeps it."""
    level = (np.arange(first, first + count) * 10 + 20).astype(np.uint8)
    return np.broadcast_to(level[:, None, None, None], (count, HEIGHT, WIDTH, 3)).copy()


def write(root, pictures):
    writer, row = DatasetWriter(root, BODY, pictures=pictures), 0
    for start, steps in enumerate(LENGTHS):
        zero = np.zeros((steps, 1), np.float32)
        quiet = {"reward": zero[:, 0], "progress": zero[:, 0], "success": zero[:, 0] > 0}
        obs = {STATE: zero, TOP: shades(row, steps)}
        told = {"start": start, "task": "t", "terminated": True, "truncated": False}
        writer.add(Episode(obs=obs, action=zero, sent=zero, **quiet, **told))
        row += steps
    return root


def deep_video(path, pictures):
    """16 bits of one channel, lossless."""
    import av

    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "gray16le"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray16le")))
        container.mux(stream.encode())


@pytest.mark.parametrize("pictures", ["image", "video"])
def test_distances_that_no_feature_announces_are_refused_not_made_colours(tmp_path, pictures):
    import cv2

    root = write(tmp_path / "toy", pictures)
    deep = np.full((LENGTHS[0], HEIGHT, WIDTH), 980, np.uint16)
    if pictures == "video":
        deep_video(next(root.rglob("*.mp4")), deep)
    else:
        path = root / "data/chunk-000/file-000.parquet"
        table = pq.read_table(path)
        cells = [{"bytes": cv2.imencode(".tiff", one)[1].tobytes(), "path": None} for one in deep]
        place = table.column_names.index(TOP)
        pq.write_table(table.set_column(place, TOP, pa.array(cells, table[TOP].type)), path)
    with pytest.raises(DatasetError, match="one channel of more than 8 bits, as depth cameras give"):
        frames.open_frames(open_dataset(root), "top", episodes=[0])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "frames"


def one_video_for_both(root):
    """Put both episodes into one mp4, as lerobot does: the second begins at `from_timestamp`."""
    path = root / f"videos/{TOP}/chunk-000/file-000.mp4"
    write_mp4(path, shades(0, sum(LENGTHS)), rate=10, group=12)
    (root / f"videos/{TOP}/chunk-000/file-001.mp4").unlink()
    table = root / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(table).to_pylist()
    rows[1] |= {f"videos/{TOP}/file_index": 0, f"videos/{TOP}/from_timestamp": LENGTHS[0] / 10}
    pq.write_table(pa.Table.from_pylist(rows), table)


@pytest.mark.parametrize("kind", ["image", "video", "shared video"])
def test_pictures_stand_at_their_rows(tmp_path, kind):
    root = write(tmp_path / "toy", kind.split()[-1])
    if kind == "shared video":
        one_video_for_both(root)
    windows = Windows(open_dataset(root), Window(observe=(-1, 0), horizon=2), (TOP,), images={"top": (24, 32)})
    batch = windows.gather(torch.arange(len(windows)))
    assert batch[TOP].shape == (17, 2, 24, 32, 3) and batch[TOP].dtype == torch.uint8
    rows = np.arange(17)
    before = np.maximum(rows - 1, np.where(rows < 6, 0, 6))  # the first frame of an episode repeats
    told = batch[TOP].float().mean((2, 3, 4)).numpy()
    tolerance = 0 if kind == "image" else 3
    np.testing.assert_allclose(told, np.stack([before, rows], 1) * 10 + 20, atol=tolerance)


def test_lossless_pictures_come_back_bit_exact(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (5, HEIGHT, WIDTH, 3), np.uint8)
    zero = np.zeros((5, 1), np.float32)
    quiet = {"reward": zero[:, 0], "progress": zero[:, 0], "success": zero[:, 0] > 0}
    told = {"start": 0, "task": "t", "terminated": True, "truncated": False}
    DatasetWriter(tmp_path / "toy", BODY).add(
        Episode(obs={STATE: zero, TOP: noise}, action=zero, sent=zero, **quiet, **told)
    )
    got = frames.open_frames(open_dataset(tmp_path / "toy"), "top").read(np.arange(5))
    np.testing.assert_array_equal(got, noise)


def test_cache_is_reused_until_the_content_changes(tmp_path, cache, monkeypatch):
    dataset = open_dataset(write(tmp_path / "toy", "video"))
    frames.open_frames(dataset, "top", (24, 32))
    first = {path: path.stat().st_ino for path in cache.iterdir()}
    assert len(first) == 2 and all(path.suffix == ".npy" for path in first)
    monkeypatch.setattr(frames, "decode_episodes", lambda *_: pytest.fail("decoded again"))
    frames.open_frames(dataset, "top", (24, 32))
    assert {path: path.stat().st_ino for path in cache.iterdir()} == first
    monkeypatch.undo()
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(cache.parent))
    frames.open_frames(dataset, "top", (12, 16))
    frames.open_frames(dataset, "top", (24, 32), crop=(0, 0, 24, 32))
    assert len(list(cache.iterdir())) == 6  # another size and another crop are other files
    write_mp4(tmp_path / f"toy/videos/{TOP}/chunk-000/file-000.mp4", shades(3, 6), rate=10)
    changed = frames.open_frames(dataset, "top", (24, 32)).read(np.array([0]))
    assert abs(changed.mean() - 50) < 3 and len(list(cache.iterdir())) == 7


def test_cache_is_bounded_and_drops_the_oldest(tmp_path, cache, monkeypatch):
    dataset = open_dataset(write(tmp_path / "toy", "image"))
    size = sum(LENGTHS) * 24 * 32 * 3
    frames.open_frames(dataset, "top", (24, 32), episodes=[0])
    (oldest,) = cache.iterdir()
    os.utime(oldest, (1, 1))
    frames.open_frames(dataset, "top", (24, 32), episodes=[1])
    (kept,) = set(cache.iterdir()) - {oldest}
    monkeypatch.setenv("UNDERSTUDY_CACHE_GB", str((size + 6 * 12 * 16 * 3) / 1e9))
    frames.open_frames(dataset, "top", (12, 16), episodes=[0])
    assert not oldest.exists() and kept.exists()
    monkeypatch.setenv("UNDERSTUDY_CACHE_GB", str((size - 1) / 1e9))
    with pytest.raises(DatasetError, match=f"need {size} bytes .*more than the cache may hold .*UNDERSTUDY_CACHE_GB"):
        frames.open_frames(dataset, "top", (24, 32))


def test_full_disk_is_told_before_decoding(tmp_path, cache, monkeypatch):
    dataset = open_dataset(write(tmp_path / "toy", "image"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(
        DatasetError, match=r"decoding needs 156672 bytes \(0.0 GB\) in .* but 1000 are free; make room"
    ):
        frames.open_frames(dataset, "top", (48, 64))
    assert not list(cache.iterdir())


def test_half_decoded_leaves_nothing(tmp_path, cache):
    root = write(tmp_path / "toy", "video")
    path = root / f"videos/{TOP}/chunk-000/file-001.mp4"
    write_mp4(path, shades(0, 4), rate=10)
    with pytest.raises(DatasetError, match="lacks frame 4 of the 11 of episode 1; copy it again"):
        frames.open_frames(open_dataset(root), "top")
    path.write_bytes(b"no video at all")
    with pytest.raises(DatasetError, match="file-001.mp4 cannot be decoded .*copy it again"):
        frames.open_frames(open_dataset(root), "top")
    assert len(list(cache.iterdir())) == 1  # the whole one


def test_missing_video_and_camera_are_named(tmp_path):
    root = write(tmp_path / "toy", "video")
    (root / f"videos/{TOP}/chunk-000/file-000.mp4").unlink()
    dataset = open_dataset(root)
    with pytest.raises(DatasetError, match="no video of camera 'top' for 1 of 2 episodes: 0 .*--episodes 1[)]"):
        Windows(dataset, Window(), (TOP,))
    assert frames.episodes_with_pictures(dataset, "top").tolist() == [1]
    assert len(Windows(dataset, Window(), (TOP,), episodes=np.array([1]))) == 11
    with pytest.raises(DatasetError, match="no camera 'wrist'; its cameras: top"):
        Windows(dataset, Window(), (IMAGES + "wrist",))


def test_damaged_picture_is_named(tmp_path):
    root = write(tmp_path / "toy", "image")
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    cells = table[TOP].to_pylist()
    cells[2]["bytes"] = b"broken"
    kind = table.schema.field(TOP).type
    pq.write_table(table.set_column(table.column_names.index(TOP), TOP, pa.array(cells, kind)), path)
    with pytest.raises(DatasetError, match="frame 2 of observation.images.top of episode 0 is no readable picture"):
        frames.open_frames(open_dataset(root), "top")


def test_fit_crops_the_middle_or_what_is_asked():
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60] = 200
    assert (fit(picture, (20, 20)) == 200).all()
    assert (fit(picture, (40, 20), crop=(0, 0, 40, 20)) == 0).all()
    assert fit(picture, (40, 80)).shape == (40, 80, 3)
    half = np.zeros((2, 2, 3), np.uint8)
    half[0] = 100
    assert fit(half, (1, 1)).tolist() == [[[50, 50, 50]]]  # areas are averaged
    with pytest.raises(DatasetError, match="leaves the recorded picture of 40x80"):
        fit(picture, (10, 10), crop=(0, 0, 41, 10))


def test_real_g1_videos(data_root):
    dataset = open_dataset(data_root / "g1_bottle_v21")
    with pytest.raises(DatasetError, match="for 70 of 80 episodes: 0-9, 20-79 .*--episodes 10-19[)]"):
        Windows(dataset, Window(), (IMAGES + "cam_high",))
    there = frames.episodes_with_pictures(dataset, "cam_high")
    assert dataset.episode_ids[there].tolist() == list(range(10, 20))
    windows = Windows(
        dataset, Window(), (STATE, IMAGES + "cam_high"), episodes=there[:1], images={"cam_high": (48, 64)}
    )
    batch = windows.gather(torch.tensor([0, len(windows) - 1]))
    assert batch[IMAGES + "cam_high"].shape == (2, 2, 48, 64, 3) and batch[STATE].shape == (2, 2, 26)
    assert batch[ACTION].shape == (2, 16, 26) and batch["episode"].tolist() == [10, 10]
    pictures = batch[IMAGES + "cam_high"].float()
    assert torch.equal(pictures[0, 0], pictures[0, 1]) and (pictures[0] - pictures[1]).abs().mean() > 5


def test_hub_dataset_fetches_only_the_videos_it_needs(tmp_path, monkeypatch):
    """Without a network: the hub's client is replaced by a copy of a folder."""
    import huggingface_hub

    far, near = write(tmp_path / "far", "video"), tmp_path / "near"
    asked = []

    def download(name, repo_type, allow_patterns, revision):
        asked.append(allow_patterns)
        for path in far.rglob("*"):
            relative = path.relative_to(far)
            if path.is_file() and any(
                relative.match(p) or str(relative).startswith(p.rstrip("*")) for p in allow_patterns
            ):
                (near / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, near / relative)
        return str(near)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    dataset = open_dataset("someone/toy")
    assert not (near / "videos").exists() and json.loads((near / "meta/info.json").read_text())["fps"] == 10
    frames.open_frames(dataset, "top", (24, 32), episodes=[1])
    assert asked[1] == [f"videos/{TOP}/chunk-000/file-001.mp4"]


def columns_of_pictures(root, pictures, shape, kind=".png"):
    """Episodes whose pictures are put into the data files as they are, with this shape in `meta/info.json`."""
    import cv2

    write(root, "image")
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][TOP]["shape"] = shape
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/embodiment.json").unlink()
    for key in ("action", STATE):  # nobody says who acts
        for word in ("units", "limits"):
            info["features"][key].pop(word, None)
    (root / "meta/info.json").write_text(json.dumps(info))
    for path in sorted(root.glob("data/*/*.parquet")):
        table = pq.read_table(path)
        cells = [{"bytes": cv2.imencode(kind, pictures(i))[1].tobytes(), "path": None} for i in range(len(table))]
        place = table.column_names.index(TOP)
        pq.write_table(table.set_column(place, TOP, pa.array(cells, table[TOP].type)), path)
    return root


@pytest.mark.parametrize("shape", [[48, 64], [48, 64, 1], [1, 48, 64]])
@pytest.mark.parametrize("first", [0, 3])
def test_deep_pictures_are_refused_in_any_frame_and_do_not_hinder_states(tmp_path, shape, first):
    def picture(i):
        return np.full((48, 64), 1000, np.uint16) if i >= first else np.full((48, 64), 10, np.uint8)

    root = columns_of_pictures(tmp_path / "toy", picture, shape)
    assert len(Windows(open_dataset(root, columns=(STATE,)), Window(), (STATE,))) == 17
    assert open_dataset(root).embodiment.cameras == {"top": (48, 64)}
    with pytest.raises(DatasetError, match="one channel of more than 8 bits"):
        frames.open_frames(open_dataset(root), "top")


@pytest.mark.parametrize("shape", [[48, 64, 4], [4, 48, 64], [3, 48, 64], [48, 64, 3], [48, 64]])
def test_alpha_is_dropped_whichever_order_the_shape_has(tmp_path, shape):
    root = columns_of_pictures(tmp_path / "toy", lambda i: np.full((48, 64, 4), 200, np.uint8), shape)
    pictures = frames.open_frames(open_dataset(root), "top").read(np.arange(17))
    assert pictures.shape == (17, 48, 64, 3) and (pictures == 200).all()


def test_colours_of_16_bits_are_warned_of(tmp_path):
    root = columns_of_pictures(tmp_path / "toy", lambda i: np.full((48, 64, 3), 51400, np.uint16), [48, 64, 3])
    with pytest.warns(DatasetWarning, match="pictures of 16 bits a channel"):
        pictures = frames.open_frames(open_dataset(root), "top", episodes=[0]).read(np.arange(6))
    assert (pictures == 200).all()


def replaced(root, change):
    """Picture columns whose cells' bytes are changed."""
    for path in sorted(root.glob("data/*/*.parquet")):
        table = pq.read_table(path)
        cells = [cell | {"bytes": change(cell["bytes"])} for cell in table[TOP].to_pylist()]
        pq.write_table(table.set_column(table.column_names.index(TOP), TOP, pa.array(cells, table[TOP].type)), path)
    return root


def test_pictures_are_read_as_they_lie_whatever_their_exif_says(tmp_path):
    def turned(data):
        """A JPEG with the note that it is to be turned by a quarter."""
        note = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
        return data[:2] + b"\xff\xe1" + (len(note) + 2).to_bytes(2, "big") + note + data[2:]

    bar = np.zeros((48, 64, 3), np.uint8)
    bar[:8] = 255
    root = replaced(columns_of_pictures(tmp_path / "toy", lambda i: bar, [48, 64, 3], ".jpg"), turned)
    pictures = frames.open_frames(open_dataset(root), "top").read(np.arange(17))
    assert pictures[:, :6].min() > 240 and pictures[:, 12:].max() < 20


def test_a_picture_whose_header_tells_of_a_monstrous_one_is_named(tmp_path):
    import zlib

    def monstrous(data):
        header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + data[24:29]
        return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]

    root = columns_of_pictures(tmp_path / "toy", lambda i: np.full((48, 64, 3), 9, np.uint8), [48, 64, 3])
    with pytest.raises(DatasetError, match="frame 0 of observation.images.top of episode 0 cannot be decoded"):
        frames.open_frames(open_dataset(replaced(root, monstrous)), "top")


def test_pictures_of_another_size_than_stated_are_refused_or_warned_of(tmp_path):
    root = columns_of_pictures(tmp_path / "toy", lambda i: np.full((48, 64, 3), 200, np.uint8), [96, 96, 3])
    with pytest.raises(DatasetError, match=r"are 48x64 \(episode 0\), .*info.json says 96x96; correct the shape there"):
        frames.open_frames(open_dataset(root), "top")
    with pytest.warns(DatasetWarning, match="are 48x64 .* says 96x96; they are fitted"):
        assert frames.open_frames(open_dataset(root), "top", (24, 32)).read(np.arange(1)).shape == (1, 24, 32, 3)


@pytest.mark.parametrize("shape", [None, [], "48x64", [48], [1, 48, 64, 3], [0, 64, 3], [48.5, 64, 3], [None, 2, 3]])
def test_a_camera_with_a_strange_shape_hinders_nobody_who_does_not_ask_for_it(tmp_path, shape):
    root = columns_of_pictures(tmp_path / "toy", lambda i: np.full((48, 64, 3), 200, np.uint8), shape)
    assert open_dataset(root, columns=(STATE,)).embodiment.cameras == {}
    assert open_dataset(root, check=False).embodiment.cameras == {}
    with pytest.raises(DatasetError, match="observation.images.top.*has the shape|the shape .*, which no picture has"):
        frames.open_frames(open_dataset(root), "top")
