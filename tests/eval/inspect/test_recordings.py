"""The page of a dataset: every dimension or a word on it, films beside curves, a bounded size, and where it goes."""

import base64
import json
import re

import numpy as np
import pytest

from understudy.configs.episode import Episode
from understudy.configs.spec import ACTION, IMAGES, STATE, Embodiment, Mode
from understudy.eval.inspect.inspect import Inspect
from understudy.eval.inspect.recordings.choose import CURVES, Curve, Panel, choose_episodes
from understudy.eval.inspect.recordings.page import MISSING, _packed
from understudy.eval.ledger.record import RecordWriter
from understudy.policies.data.dataset import DatasetError
from understudy.policies.data.open import open_dataset
from understudy.policies.data.writer import DatasetWriter

TOP = IMAGES + "top"
NAMES = tuple(f"joint_{i:02d}" for i in range(26))
RATE = 10


def write(root, names=NAMES, mode=Mode.absolute, pictures=None, lengths=(8, 12, 30), **extra):
    """A dataset whose state and action have the same names; frame k of a film is all of one grey."""
    body = Embodiment(
        name="toy arm", action=names, action_units=("rad",) * len(names), limits=((-1, 1),) * len(names), rate=RATE,
        state=names, state_units=("rad",) * len(names), mode=mode, cameras={"top": (32, 48)} if pictures else {},
    )  # fmt: skip
    writer, rng = _writer(root, body, pictures, extra), np.random.default_rng(0)
    for start, steps in enumerate(lengths):
        action = rng.uniform(-1, 1, (steps, len(names))).astype(np.float32)
        obs = {STATE: action * 0.9}
        if pictures:
            obs[TOP] = np.repeat(np.uint8(10 + 5 * np.arange(steps)), 32 * 48 * 3).reshape(steps, 32, 48, 3)
        writer.add(
            Episode(
                obs=obs, action=action, sent=action, progress=np.linspace(0, 1, steps), reward=np.zeros(steps),
                success=np.arange(steps) == (steps - 1 if start else steps), start=start, task="reach",
                terminated=True, truncated=False,
                extra={key: rng.normal(size=(steps, n)).astype(np.float32) for key, n in extra.items()},
            )
        )  # fmt: skip
    return root


def _writer(root, body, pictures, extra):
    names = {key: tuple(f"{key}_{i}" for i in range(width)) for key, width in extra.items()}
    return DatasetWriter(root, body, pictures=pictures or "image", extra=names)


def read(path):
    """The page's text, and the data that its script draws."""
    text = path.read_text()
    return text, json.loads(re.search(r'id="recordings">(.*?)</script>', text, re.DOTALL)[1])


def inspect(root, out, capsys, **settings):
    Inspect(source=str(root), out=out, **settings).run()
    return capsys.readouterr().out


def until(page, true, seconds=10):
    """Wait until an expression holds; the page's policy forbids playwright's own way."""
    for _ in range(20 * seconds):
        if page.evaluate(true):
            return
        page.wait_for_timeout(50)
    raise AssertionError(true)


def test_every_dimension_has_a_curve_and_a_histogram(tmp_path, capsys):
    said = inspect(write(tmp_path / "toy"), tmp_path / "page", capsys)
    assert f"page: {tmp_path / 'page' / 'index.html'}" in said and "joint_25" in said
    text, data = read(tmp_path / "page/index.html")
    panels = re.findall(r'<figure class="panel".*?<figcaption>(.*?)<output>', text)
    assert [name for name in panels if name.startswith("joint")] == [f"{name}, rad" for name in NAMES]
    assert data["panels"][0]["styles"] == ["a", "b", "c"]  # observed, action and action.sent in one frame
    assert text.count('aria-label="histogram of joint_25, rad"') == 3
    assert len(data["episodes"]) == 3 and "All 3 episodes" in text


def test_the_curves_are_the_recorded_numbers(tmp_path, capsys):
    dataset = open_dataset(write(tmp_path / "toy", NAMES[:2]), check=False)
    inspect(dataset.root, tmp_path / "page.html", capsys)
    _, data = read(tmp_path / "page.html")
    panel, episode = data["panels"][1], data["episodes"][2]
    levels = np.frombuffer(base64.b64decode(episode["curves"][1][1]), "<u2")
    values = panel["low"] + levels / 65534 * (panel["high"] - panel["low"])
    rows = slice(dataset.starts[2], dataset.starts[2] + 30)
    assert episode["seconds"] == 3.0 and np.allclose(values, dataset.columns[ACTION][rows, 1], atol=1e-4)


def test_a_change_of_a_number_is_not_drawn_over_it(tmp_path, capsys):
    inspect(write(tmp_path / "toy", NAMES[:2], Mode.delta), tmp_path / "page.html", capsys)
    _, data = read(tmp_path / "page.html")
    assert [panel["styles"] for panel in data["panels"][:4]] == [["a"], ["a"], ["b", "c"], ["b", "c"]]


def test_what_is_left_out_is_counted(tmp_path, capsys):
    root = write(tmp_path / "toy", NAMES[:2], touch=96, lengths=(8,) * 20)
    inspect(root, tmp_path / "page.html", capsys, shown=4)
    text, data = read(tmp_path / "page.html")
    assert "touch: 64 of its 96 numbers are shown" in text
    assert "4 of 20 episodes are shown" in text and len(data["episodes"]) == 4
    assert len(data["panels"]) <= CURVES


def test_episodes_that_tell_most_are_chosen():
    lengths, success = np.full(100, 50), np.ones(100, bool)
    lengths[[7, 93]], success[41] = (3, 90), False
    assert {0, 7, 41, 93} <= set(choose_episodes(lengths, success, 12))
    assert len(choose_episodes(lengths, success, 12)) == 12
    assert set(range(20, 25)) <= set(choose_episodes(lengths, None, 8, filmed=range(20, 25)))
    assert choose_episodes(lengths[:3], None, 12) == [0, 1, 2]


def test_a_number_that_is_not_finite_leaves_a_gap(tmp_path, capsys):
    dataset = open_dataset(write(tmp_path / "toy", NAMES[:2]), check=False)

    dataset.columns[STATE][3, 0] = np.nan
    curve = Curve(STATE, 0, "joint_00", "rad", -1.0, 1.0)
    levels = np.frombuffer(base64.b64decode(_packed(dataset, 0, curve, Panel((curve,)))), "<u2")
    assert levels[3] == MISSING and (levels[[2, 4]] < MISSING).all()


@pytest.mark.parametrize("name", ["x.jpg", "x.json", "file/x"])
def test_a_place_that_cannot_be_is_refused_before_the_data_is_read(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises((DatasetError, NotADirectoryError), match="--out|x"):
        Inspect(source=str(tmp_path / "no-such-data"), out=tmp_path / name).run()
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileExistsError, match="another --out"):
        Inspect(source=str(tmp_path / "no-such-data"), out=tmp_path / "taken").run()


def test_without_a_place_the_current_folder_stays_clean(tmp_path, capsys, monkeypatch):
    root = write(tmp_path / "data", NAMES[:2])
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):  # again: the same page
        said = inspect(root, None, capsys)
    (page,) = (tmp_path / "cache").rglob("index.html")
    assert str(page) in said and page.parent.name.startswith("data-") and not list((tmp_path / "here").iterdir())


def test_a_record_is_summed_up_and_a_grid_is_explained(tmp_path, capsys):
    row = {
        "initial_conditions": "point", "env_seed": 3, "policy_seed": 0, "task": "point", "success": True,
        "first_success": 0, "best_progress": 1.0, "final_progress": 1.0, "return": 0.0, "length": 1,
        "progress": [1.0], "terminated": True, "truncated": False, "wall_physics": 0.3, "wall_render": 0.1,
        "wall_policy": 0.6, "attempt": 0, "worker": 0, "video": "", "error": "", "labels": "{}",
    }  # fmt: skip
    with RecordWriter(tmp_path / "all/record", {"policy": {"path": "runs/a"}}) as writer:
        writer.add(row)
        writer.close(complete=True)
    said = inspect(tmp_path / "all/record", None, capsys)
    assert "success" in said and "best progress" in said and "report" in said
    with pytest.raises(DatasetError, match="1 episode record; inspect one of them, such as .*record"):
        Inspect(source=str(tmp_path / "all")).run()
    (tmp_path / "grid/wide/seed0").mkdir(parents=True)
    (tmp_path / "grid/wide/seed0/cell.json").write_text("{}")
    with pytest.raises(DatasetError, match="a grid of 1 training .* inspect one of them"):
        Inspect(source=str(tmp_path / "grid")).run()


@pytest.mark.parametrize("pictures", ["image", "video"])
def test_films_and_curves_share_one_clock(tmp_path, capsys, chromium, pictures):
    inspect(write(tmp_path / "toy", NAMES[:2], pictures=pictures), tmp_path / "page.html", capsys)
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    page.select_option("#episode", "2")
    until(page, "document.querySelector('.view video').readyState > 1")
    assert abs(page.evaluate("document.querySelector('.view video').duration") - 3.0) < 0.1

    page.evaluate("() => { const r = document.getElementById('time'); r.value = 2; r.oninput() }")
    until(page, "!document.querySelector('.view video').seeking")
    assert page.evaluate("document.querySelector('.view video').currentTime") == pytest.approx(2.0, abs=0.05)
    cursor = page.evaluate("Number(document.querySelector('.panel .cursor').getAttribute('x1'))")
    assert cursor == pytest.approx(44 + 268 * 2 / 2.9, abs=2)

    page.click(".go")
    until(page, "Number(document.getElementById('time').value) > 2.3")
    assert page.evaluate("document.documentElement.scrollWidth") == 390 and said == []
    page.close()
