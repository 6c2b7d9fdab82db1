"""Choosing episodes, mapping columns, label tables, and what nobody stated about a body."""

import dataclasses

import numpy as np
import pytest

from understudy.configs.spec import AssumedWarning, Embodiment, EmbodimentError, Mode
from understudy.policies.data.choose import choose, numbers_of, shares
from understudy.policies.data.labels import read_answers
from understudy.policies.data.layout import DatasetError, Entry, Layout
from understudy.policies.data.mapping import example, mapped
from understudy.policies.data.tables import DatasetWarning


def _layout(tmp_path, count=4):
    vector = {"dtype": "float32", "shape": [2], "names": None}
    entries = tuple(Entry(n, 5, (), "data.parquet", 5 * n, {}) for n in range(count))
    return Layout(
        tmp_path, "v3.0", 10.0, {"state": vector, "actions": vector, "grip": vector | {"shape": [1]}}, entries
    )


def _body(**more):
    told = {"action": ("x",), "action_units": ("?",), "limits": ((0.0, 1.0),), "rate": 10.0}
    return Embodiment(**told | more)


def test_episodes_are_chosen_and_left_out(tmp_path):
    layout = _layout(tmp_path)
    assert numbers_of("0-2, 5") == [0, 1, 2, 5]
    assert [entry.id for entry in choose(layout, "0-2", "1").entries] == [0, 2]
    assert choose(layout) is layout
    for wrong in ({"without": "99"}, {"without": "0-3"}, {"episodes": "3-1"}, {"episodes": "x"}):
        with pytest.raises(DatasetError):
            choose(layout, **wrong)


@pytest.mark.parametrize("without", ["length > 5", "'cup' in task", "3"])
def test_who_leaves_nothing_out_is_told(tmp_path, without):
    with pytest.warns(DatasetWarning, match="leaves no episode of .* out"):
        assert len(choose(_layout(tmp_path), "0-2", without).entries) == 3


def test_each_of_several_datasets_has_a_part_of_its_own():
    assert shares(";6", ["A", "B"], "without") == ["", "6"]
    with pytest.raises(DatasetError, match="of which of the 2"):
        shares("6", ["A", "B"], "without")


def test_columns_are_joined_in_the_order_of_the_list(tmp_path):
    layout = mapped(_layout(tmp_path), {"action": "actions", "observation.state": ["grip", "state"]})
    assert layout.features["observation.state"]["names"] == ["grip.0", "state.0", "state.1"]
    assert set(layout.features) == {"action", "observation.state"}
    assert example("action", ["state", "actions"]) == "{action: actions}"
    with pytest.raises(DatasetError, match="does not have"):
        mapped(_layout(tmp_path), {"action": "nothing"})


@pytest.mark.parametrize(
    ("name", "data", "answers"),
    [
        ("blank.csv", b"episode,success\n0,1\n1,\n2,\n", {0: True}),
        ("floats.csv", b"episode,success\n0.0,1.0\n1.0,0.0\n", {0: True, 1: False}),
        ("marked.csv", b"\xef\xbb\xbfepisode,success\n0,1\n", {0: True}),
        ("semicolons.csv", b"Episode_Index; Success\n0; fail\n1;y\n", {0: False, 1: True}),
        ("latin.csv", b"episode,success,note\n0,1,gr\xf6\xdfer\n", {0: True}),
        ("null.json", b'{"0": true, "1": null}', {0: True}),
        ("ours.json", b'{"success": {"0": true, "1": false}}', {0: True, 1: False}),
    ],
)
def test_label_tables_as_people_write_them(tmp_path, name, data, answers):
    (tmp_path / name).write_bytes(data)
    assert read_answers(str(tmp_path / name), _layout(tmp_path)) == answers


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0,1\n0,0\n", "line 3: episode 0 stands twice"),
        ("0,maybe\n", "line 2"),
        ("x,1\n", "line 2"),
        ("9,1\n", "no episode 9"),
    ],
)
def test_wrong_label_tables_are_refused_by_line(tmp_path, text, words):
    (tmp_path / "t.csv").write_text("episode,success\n" + text)
    with pytest.raises(DatasetError, match=words):
        read_answers(str(tmp_path / "t.csv"), _layout(tmp_path))


def test_what_nobody_stated_is_assumed_with_a_warning():
    guess = _body(name="guess", mode=Mode.unknown, frame="?", rotation="?", guessed=("limits",))
    world = _body(name="panda", mode=Mode.delta, frame="base", limits=((-1.0, 1.0),))
    assert Embodiment.from_json(guess.to_json()) == guess
    with pytest.warns(AssumedWarning, match="'guess'.*mode delta"):
        guess.check(world)
    with pytest.raises(EmbodimentError, match="differ in mode"):
        dataclasses.replace(guess, mode=Mode.absolute).check(world)
    assert "guessed" not in world.to_json()
    assert np.isclose(guess.limits[0][1], 1)
