"""`understudy report`: what it finds, that its numbers are those of the records, and that labels come back."""

import json
import re
import warnings

import numpy as np
import pytest
import yaml

from understudy.configs.documents import sealed
from understudy.configs.world import read_world
from understudy.eval.ledger.labels import LabelsError, by_place, check_places, read_labels, record_key, tally
from understudy.eval.ledger.record import RecordWriter
from understudy.eval.report.found import find
from understudy.eval.report.places import places, separation
from understudy.eval.report.report import Report
from understudy.eval.statistics.intervals import wilson
from understudy.policies.learning.doors import held_out_in

STEPS = 20


def row(seed, won):
    progress = np.linspace(0.1, 1.0 if won else 0.6, STEPS, dtype=np.float32).tolist()
    return {
        "initial_conditions": "mujoco/point", "env_seed": seed, "policy_seed": 0, "task": "point", "success": won,
        "first_success": STEPS if won else -1, "best_progress": progress[-1], "final_progress": progress[-1],
        "return": 1.5, "length": STEPS, "progress": progress, "terminated": won, "truncated": not won,
        "wall_physics": 0.3, "wall_render": 0.1, "wall_policy": 0.6, "attempt": 0, "worker": 1, "video": "",
        "error": "", "labels": "{}",
    }  # fmt: skip


def write_record(folder, name, wins, n=12, world="point"):
    opened = read_world(world)
    manifest = {
        "name": name,
        "policy": {"path": f"runs/{name}", "type": "flow", "step": 40, "train": {"seed": 3}},
        "agent": {"policy_seed": 7},
        "world": opened.fingerprint() | {"config": {"type": "mujoco", "task": "point"}},
        "starts": {"set": "mujoco/point", "first": 1000, "count": n},
        "begun": "2026-11-01T00:00:00+00:00",
        "code": {"commit": "0123456789abcdef", "changed": False},
    }
    with RecordWriter(folder, manifest) as writer:
        for seed in range(1000, 1000 + n):
            writer.add(row(seed, seed - 1000 < wins))
        writer.note(wall=42.0, acted=n)
        return writer.close(complete=True)


@pytest.fixture
def tree(tmp_path):
    """Two records, one of them with a name that would be HTML, a training, a page and what is none of these."""
    write_record(tmp_path / "out/good", "good <b>one</b>", 9)
    write_record(tmp_path / "out/deep/bad", "bad one", 2)
    run = tmp_path / "runs/flow"
    (run / "checkpoints/00000040").mkdir(parents=True)
    (run / "checkpoints/00000040/report.html").write_text('<title>x</title><p class="kicker">never</p>')
    settings = {"data": "out/demos", "seed": 3, "steps": 100, "policy": {"type": "flow"}}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    lines = [
        {"step": 20, "loss": 2.0, "seconds": 5.0},
        {"step": 40, "loss": 0.123},
        {"step": 40, "validation/action_error": 0.4},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "out/compare.html").write_text('<title>A beats B</title><p class="kicker">Comparison</p>')
    (tmp_path / "out/other.html").write_text("<title>somebody else's</title>")
    return tmp_path


def label(of, seed, text, **changes):
    key = {"record": record_key(of), "name": "x", "initial_conditions": "mujoco/point", "env_seed": seed}
    return key | {"label": text} | changes


def write_labels(path, labels):
    path.write_text(json.dumps({"kind": "failure-labels", "format": 1, "labels": labels}))
    return path


def test_it_finds_records_trainings_and_pages_once(tree):
    found = find([tree, tree / "out"])
    assert [record.root.name for record in found.records] == ["bad", "good"]
    assert [run.name for run in found.runs] == ["flow"] and found.unread == []
    assert [(page.title, page.kind) for page in found.pages] == [("A beats B", "Comparison")]


def test_a_damaged_record_is_named_and_the_others_are_shown(tree, capsys):
    damaged = tree / "out/good/episodes.parquet"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.warns(UserWarning, match="episodes.parquet is damaged"):
        Report(folders=[str(tree)], out=tree / "report.html").run()
    assert "1 record, 1 training, 1 other page" in capsys.readouterr().out
    assert "episodes.parquet is damaged" in (tree / "report.html").read_text()


def test_the_numbers_of_the_page_are_those_of_the_records(tree):
    Report(folders=[str(tree)], out=tree / "out/report.html").run()
    html = (tree / "out/report.html").read_text()
    for wins in (9, 2):
        low, middle, high = wilson(wins, 12)
        assert f"{middle:.3f}</b>" in html and f"[{low:.3f}, {high:.3f}]" in html
    for text in (
        "1000–1011",
        "01234567",
        "2026-11-01",
        "42 s",
        ">7<",
        ">3<",
        "40 of 100",
        "0.123",
        "0.4",
        "compare.html",
    ):
        assert text in html, text
    assert "good &lt;b&gt;one" in html and "<b>one" not in html
    assert not re.search(r'(?:src|href)="(?:https?:)?//', html) and "default-src 'none'" in html
    assert "never" not in html, "what lies in a checkpoint is none of it"


def test_labels_are_counted_with_intervals_and_disputes_are_not(tree, capsys):
    (record,) = find([tree / "out/deep"]).records
    one = write_labels(tree / "a.json", [label(record, 1002 + i, "dropped" if i < 5 else "late") for i in range(8)])
    two = write_labels(tree / "b.json", [label(record, 1002, "slipped"), label(record, 1003, " dropped ")])
    given = by_place(read_labels([one, two]))
    counted = tally(record, given)
    assert [(count.label, count.n) for count in counted.counts] == [("dropped", 4), ("late", 3)]
    assert counted.disputed == (1002,) and counted.failures == 10 and counted.counts[0].share == wilson(4, 7)

    Report(folders=[str(tree)], labels=(str(one), str(two)), out=tree / "report.html").run()
    said, html = capsys.readouterr().out, (tree / "report.html").read_text()
    assert "7 of 10 failures" in said and "dropped" in said and str(wilson(4, 7)) in said and "env seed 1002" in said
    assert 'value="late"' in html and "dropped / slipped" in html


def test_labels_of_nothing_are_said(tree):
    records = find([tree / "out/deep"]).records
    lost = [label(records[0], 1000, "a"), label(records[0], 1005, "b", record="0" * 64, name="gone")]
    said = check_places(read_labels([write_labels(tree / "a.json", lost)]), records)
    assert (
        "'gone' belong to no record" in said[0] and "env seed 1000 is labelled, and is none of its failures" in said[1]
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "it holds a list"),
        ("{", "is not JSON"),
        ('{"kind": "study"}', 'no "kind": "failure-labels"'),
        ('{"kind": "failure-labels", "format": 9, "labels": []}', "newer understudy"),
        ('{"kind": "failure-labels", "format": 1}', "'labels' are no list"),
        ('{"kind": "failure-labels", "format": 1, "labels": [3]}', "is damaged"),
        ('{"kind": "failure-labels", "format": 1, "labels": [{"label": "x"}]}', "'record' is missing"),
    ],
)
def test_a_file_of_labels_that_is_none_is_refused(text, said, tmp_path):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(LabelsError, match=said):
        read_labels([tmp_path / "labels.json"])


def test_bad_words_are_refused_before_anything_is_read(tree):
    for changes, error, said in (
        ({"folders": [str(tree / "none")]}, FileNotFoundError, "no folder"),
        ({"labels": (str(tree / "none.json"),)}, FileNotFoundError, "no file of labels"),
        ({"out": tree / "report.txt"}, ValueError, "ends in .html"),
    ):
        with pytest.raises(error, match=said):
            Report(**{"folders": [str(tree)]} | changes).check_names()
    (tree / "empty").mkdir()
    with pytest.raises(ValueError, match="no record, training or page"):
        Report(folders=[str(tree / "empty")], out=tree / "report.html").run()


def test_the_places_of_a_map_are_where_the_world_begins(tmp_path):
    record = write_record(tmp_path / "record", "one", 5)
    where = places(record)
    lane = read_world("point").lane()
    for number, seed in enumerate(record.column("env_seed")):
        obs, _ = lane.reset(seed=seed)
        begun = dict(zip(("x (m)", "y (m)"), obs["observation.state"], strict=True))
        begun |= dict(zip(("target.x (m)", "target.y (m)"), obs["observation.environment_state"], strict=True))
        assert dict(zip(where.names, where.values[number], strict=True)) == pytest.approx(begun)
    won = np.array(record.column("success"))
    told = [abs(separation(where.values[:, place], won)) for place in range(4)]
    assert told == sorted(told, reverse=True) and where.warning == ""


def test_a_map_of_another_world_is_warned_of_and_an_arm_has_none(tmp_path):
    record = write_record(tmp_path / "record", "one", 5)
    record.manifest["world"]["scene"] = "another"
    assert "has changed since in scene" in places(record).warning
    record.manifest["world"]["config"] = {"type": "robot", "emulate": True, "task": "so101-reach"}
    with pytest.raises(ValueError, match="on an arm"):
        places(record)
    del record.manifest["world"]["config"]
    with pytest.raises(ValueError, match="does not say how its world was opened"):
        places(record)


def test_separation_is_the_rank_biserial_correlation():
    won = np.array([False, False, True, True])
    assert separation(np.array([0.0, 1.0, 2.0, 3.0]), won) == 1.0
    assert separation(np.array([3.0, 0.0, 1.0, 2.0]), won) == 0.0
    assert separation(np.arange(4.0), np.ones(4, bool)) == 0.0


@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_in_a_browser(chromium, tree, tmp_path, width):
    """It fits, sorts, sifts, draws its map, and what is written in it comes back by the command."""
    Report(folders=[str(tree)], map=(str(tree / "out/deep"),), out=tree / "report.html").run()
    context = chromium.new_context(viewport={"width": width, "height": 800}, accept_downloads=True)
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto((tree / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelector('[aria-labelledby=evaluations]').scrollLeft = 300")
    box, kept = (page.locator(one).first.bounding_box() for one in ("[aria-labelledby=evaluations]", "#records td"))
    assert abs(kept["x"] - box["x"]) < 2, "whose row it is stays in sight"

    first = "#records tbody tr:first-child td:first-child"
    page.click("#records th:nth-child(2) button")
    assert "bad one" in page.inner_text(first)
    page.click("#records th:nth-child(2) button")
    assert "good" in page.inner_text(first)
    page.fill(".sift", "BAD one")
    assert page.locator("#records tbody tr:visible").count() == 1
    assert page.locator("figure.place circle").count() == 12

    page.locator("details[open] input.label").nth(0).fill("dropped the cube")
    page.locator("details[open] input.label").nth(1).fill("never reached it")
    page.keyboard.press("Tab")
    assert "2 of 13 failures labelled" in page.inner_text("#labelled")
    with page.expect_download() as waiting:
        page.click("#download")
    waiting.value.save_as(tmp_path / "labels.json")
    page.reload()
    assert page.locator("details[open] input.label").nth(0).input_value() == "dropped the cube", "the browser remembers"
    assert not faults
    context.close()

    labels = read_labels([tmp_path / "labels.json"])
    assert [(one.env_seed, one.label) for one in labels] == [(1002, "dropped the cube"), (1003, "never reached it")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Report(folders=[str(tree)], labels=(str(tmp_path / "labels.json"),), out=tree / "report.html").run()
    assert "dropped the cube" in (tree / "report.html").read_text()


def test_a_training_without_held_out_episodes_says_so(tree):
    """In place of a dash, which an unfinished training has, too."""
    run, plain = tree / "runs/flow", {"steps": 100, "policy": {"type": "flow"}, "validation": 0.05}
    out = tree / "report.html"
    for episodes, validation, held in ((1, 0.05, 0), (40, 0, 0), (40, 0.05, 2), (12, 0.5, 6)):
        (run / "config.yaml").write_text(yaml.safe_dump(plain | {"validation": validation}))
        begun = {"kind": "training", "format": 1, "dataset": {"episodes": episodes}, "init": None}
        (run / "begun_with.json").write_text(json.dumps(sealed(begun)))
        assert held_out_in(run) == held
        Report(folders=[str(tree)], out=out).run()
        assert ("none held out" in out.read_text()) == (held == 0)
    (run / "begun_with.json").unlink()
    assert held_out_in(run) is None, "a run of an earlier version does not say"
