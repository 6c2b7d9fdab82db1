"""`understudy compose` from two tiny policies to a mixture, a report and records; refusals; going on after a kill."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from understudy.__main__ import main
from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import read_world
from understudy.eval.compose.compose import FILE, Compose, compose
from understudy.eval.compose.page import PAGE, render, short
from understudy.eval.compose.report import CONTROL, MIXTURE, PARENT, Report, ReportRow
from understudy.eval.compose.search import SearchResult, Trials, TriedWeights, simplex, successive_halving
from understudy.eval.compose.stage import fingerprint
from understudy.eval.demos.demos import Demos
from understudy.eval.evaluate.evaluate import Eval, evaluate
from understudy.eval.ledger.record import RecordWriter, read_record
from understudy.eval.ledger.study import read_study
from understudy.eval.ledger.table import RecordError, tables_equal
from understudy.eval.rollout.rollout import ArmError
from understudy.eval.statistics.intervals import wilson
from understudy.eval.statistics.paired import tango
from understudy.eval.studies.compositions import CompositionError, read_composition
from understudy.eval.studies.search_cost import draw
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.load import load_policy
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.models.flow import FlowConfig
from understudy.policies.networks.language import TableConfig
from understudy.policies.networks.mlp import MLPConfig

from ..clocked import ARM, CLOCKED

WORLD = {"type": "point", "horizon": 20}
SMALL = {"inputs": (STATE, SCENE), "network": MLPConfig(width=16, depth=1, condition_width=8), "n_action_steps": 4}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs of untrained policies for the point task: diffusion, flow with a shorter chunk, diffusion."""
    root = tmp_path_factory.mktemp("runs")
    for i, kind in enumerate((DiffusionConfig, FlowConfig, DiffusionConfig)):
        window = Window(observe=(-1, 0), horizon=8 - i % 2)
        saved(root / "abc"[i], kind(window=window, **SMALL), i)
        (root / "abc"[i] / "config.yaml").write_text(f"seed: {i}\ndata: others\nsteps: 40\nbatch: 8\n")
    return [str(root / name) for name in "abc"]


def saved(folder, config, seed):
    """A run with an untrained policy of these settings."""
    torch.manual_seed(seed)
    embodiment, checkpoint = read_world("point").embodiment(), folder / "checkpoints" / "00000040"
    checkpoint.parent.mkdir(parents=True)
    save_checkpoint(checkpoint, config.build(embodiment, blank_scales(embodiment)), kind="policy", config=config)
    (folder / "last").symlink_to("checkpoints/00000040")
    return str(folder)


def settings(runs, folder, **changes):
    values = {"parents": tuple(runs[:2]), "world": WORLD, "search": "grid", "points": 3, "episodes": 10, "report": 8}
    return Compose(**values | {"on": "progress", "out": str(folder)} | changes)


@pytest.fixture(scope="module")
def done(runs, tmp_path_factory):
    """A finished grid search with a control."""
    folder = tmp_path_factory.mktemp("compose") / "out"
    return settings(runs, folder, control=(runs[2],)), compose(settings(runs, folder, control=(runs[2],)))


def test_a_search_leaves_a_mixture_records_and_a_report(done, runs):
    config, report = done
    assert [len(one.outcomes) for one in report.found.tried] == [10] * 3 and report.found.episodes == 30
    names = ["0.000-1.000", "0.500-0.500", "1.000-0.000"]
    assert sorted(path.name for path in (config.folder / "validation").iterdir()) == names
    mixture, info = load_policy(config.folder / "mixture")
    assert mixture.weights.weights == (report.found.chosen,) and info["type"] == "convex"
    told = json.loads((config.folder / FILE).read_text())
    assert told["complete"] and told["report"]["found"]["chosen"] == list(report.found.chosen)
    assert len(told["report"]["entries"]) == 4 and told["report"]["optimism"][1] == pytest.approx(0)
    record = read_record(config.folder / "validation" / names[1])
    assert record.manifest["complete"] and record.column("env_seed") == list(range(10))
    assert record.manifest["policy"]["config"]["weights"] == [0.5, 0.5]


def test_the_records_are_those_of_eval(done, tmp_path):
    """The chosen mixture by `understudy eval`, on the env seeds of the search, gives the episodes of the search."""
    config, report = done
    slug = "-".join(f"{part:.3f}" for part in report.found.chosen)
    again = evaluate(
        Eval(
            policy=str(config.folder / "mixture"),
            world=WORLD,
            episodes=10,
            env_seed=0,
            out=str(tmp_path / "r"),
            videos=0,
        )
    )
    assert tables_equal(again.table, read_record(config.folder / "validation" / slug).table)


def test_compare_reads_what_was_written(done, capsys):
    config, _ = done
    fresh = sorted(str(path) for path in (config.folder / "fresh").iterdir())
    assert [path.rpartition("/")[2] for path in fresh[1:]] == ["control", "parent-1", "parent-2"]
    assert main(["compare", *fresh]) == 0
    assert "policies that share a letter" in capsys.readouterr().out or fresh
    searched = sorted(str(path) for path in (config.folder / "validation").iterdir())
    assert main(["compare", *searched]) == 0


def test_the_text_and_the_page_say_it_all(done):
    config, report = done
    text, html = report.text(), (config.folder / PAGE).read_text()
    assert "<- chosen" in text and "30 episodes; the full grid takes 30" in text and "mixture minus it" in text
    assert "seeds of" in text and "points too much" in text
    assert html.count("<svg") == 1 and "mean progress" not in html and "On fresh initial conditions" in html
    command = re.search(r"<pre>(.*?)</pre>", html, re.S).group(1).replace("\\\n", "")
    assert command.startswith("understudy compose") and "--search grid" in command and "--points 3" in command
    assert "--control" in command and "--alpha" not in command and "http" not in html.replace("http-equiv", "")


def test_a_search_by_the_clock_has_one_process_and_one_arm(runs, tmp_path):
    """The folder was there before it was refused, and asked for another one."""
    for world, workers, message in ((ARM, 1, "there is one arm"), (CLOCKED, 2, "--workers 2: this world goes by")):
        config = settings(runs, tmp_path / "none", world=world, workers=workers)
        for refuse in (compose, Compose.check_names):
            with pytest.raises(ValueError, match=message):
                refuse(config)
    assert not (tmp_path / "none").exists()


def test_an_arm_that_fails_ends_a_search_that_goes_on_when_asked(runs, tmp_path):
    faults = [{"start": start, "step": 2, "once": str(tmp_path / str(start))} for start in (2, 1001)]
    acting = settings(runs, tmp_path / "out", world=ARM | {"faults": faults}, episodes=4, report=3)
    again = dataclasses.replace(acting, out=None, resume=str(tmp_path / "out"))
    for asked, start in ((acting, 2), (again, 1001)):
        with pytest.raises(ArmError, match=rf"env seed {start} failed: .* unasked; go on with --resume \S+/out$"):
            compose(asked)
    report = compose(again)
    assert report.found.episodes == 12 and (tmp_path / "out" / PAGE).is_file()


def test_a_killed_search_goes_on_to_the_same_table(runs, done, tmp_path, monkeypatch):
    add, added = RecordWriter.add, []

    def interrupted(self, row):
        if len(added) == 13:
            shutil.copytree(tmp_path / "out", tmp_path / "killed")  # what a process leaves that can do nothing more
            raise KeyboardInterrupt
        added.append(row["env_seed"])
        add(self, row)

    monkeypatch.setattr(RecordWriter, "add", interrupted)
    with pytest.raises(KeyboardInterrupt, match="go on with --resume"):
        compose(settings(runs, tmp_path / "out"))
    assert len(added) == 13
    assert not json.loads((tmp_path / "out" / FILE).read_text())["complete"]
    added.clear()
    monkeypatch.setattr(RecordWriter, "add", lambda self, row: added.append(row["env_seed"]) or add(self, row))
    killed = compose(settings(runs, None, out=None, resume=str(tmp_path / "killed"), report=0))
    assert killed.found == done[1].found and len(added) == 30 - 13
    added.clear()
    found = compose(settings(runs, None, out=None, resume=str(tmp_path / "out"), workers=2)).found
    assert found == done[1].found and len(added) == 30 - 13 + 3 * 8
    for folder in (done[0].folder / "validation").iterdir():
        assert tables_equal(read_record(folder).table, read_record(tmp_path / "out" / "validation" / folder.name).table)
    added.clear()
    compose(settings(runs, None, out=None, resume=str(tmp_path / "out")))
    assert added == [], "a finished search plays nothing again"


def test_those_that_read_the_text_of_the_task_are_told_it_in_search_and_report(runs, tmp_path):
    language = TableConfig(texts=("point", "another"))
    reader = saved(tmp_path / "reader", DiffusionConfig(window=Window(observe=(-1, 0)), language=language, **SMALL), 5)
    asked = settings(
        (runs[0], reader), tmp_path / "out", points=2, episodes=2, report=2, workers=0, task_text="another"
    )
    compose(asked)
    manifests = {
        str(file.parent.relative_to(tmp_path / "out")): json.loads(file.read_text())["agent"].get("task_text")
        for file in (tmp_path / "out").rglob("manifest.json")
    }
    assert manifests.pop("fresh/parent-1") is None
    assert len(manifests) >= 4 and set(manifests.values()) == {"another"}
    with pytest.raises(ValueError, match="none of the policies reads a text"):
        compose(settings(runs, tmp_path / "none", task_text="another"))
    with pytest.raises(ValueError, match="nobody acts here"):
        settings(runs, tmp_path / "none", search="predict", predict="x", report=0, task_text="a").check_names()


def test_another_kind_of_search_shares_the_episodes(runs, tmp_path, monkeypatch):
    first = compose(settings(runs, tmp_path / "out", search="successive-halving", episodes=16, report=0, points=5))
    add, added = RecordWriter.add, []
    monkeypatch.setattr(RecordWriter, "add", lambda self, row: added.append(row["env_seed"]) or add(self, row))
    whole = compose(settings(runs, None, out=None, resume=str(tmp_path / "out"), episodes=16, report=0, points=5))
    assert len(added) == 80 - first.found.episodes > 0 and whole.found.episodes == 80
    with pytest.raises(ValueError, match="was begun otherwise: policy_seed was 0, now 1"):
        compose(settings(runs, None, out=None, resume=str(tmp_path / "out"), policy_seed=1))


def test_three_parents_by_bayes_with_a_prediction(runs, tmp_path):
    Demos(task="point", episodes=4, out=str(tmp_path / "demos")).run()
    changes = {"search": "bayes", "parents": tuple(runs), "predict": str(tmp_path / "demos"), "windows": 20}
    config = settings(runs, tmp_path / "out", report=0, budget=40, points=None, **changes)
    report = compose(config)
    assert 32 <= report.found.episodes <= 40 and len(report.predicted.prediction.weights) == 3
    html = (config.folder / PAGE).read_text()
    assert html.count("<svg") == 1 and "What the denoising error says" in html and html.count("<circle") >= 4
    shown = report.text()
    assert "nothing was reported on fresh initial conditions" in shown and "Denoising error (epsilon" in shown


def test_weights_by_prediction_alone_need_no_world(runs, tmp_path, capsys):
    Demos(task="point", episodes=4, out=str(tmp_path / "demos")).run()
    words = ["compose", *runs[:2], "--search", "predict", "--predict", str(tmp_path / "demos"), "--report", "0"]
    assert main([*words, "--windows", "20", "--world", "no-such-world", "--out", str(tmp_path / "out")]) == 0
    assert "least at" in capsys.readouterr().out and (tmp_path / "out" / "mixture" / "config.json").is_file()
    assert not (tmp_path / "out" / "validation").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_seed": 995}, "chosen on env seeds 0-999, not on 995-1004"),
        ({"env_seed": 1000}, "chosen on env seeds 0-999"),
        ({"report_seed": 5}, "needs fresh ones, 1000 and up"),
        ({"report_seed": 999}, "needs fresh ones"),
        ({"search": "gird"}, "Did you mean 'grid'"),
        ({"on": "sucess"}, "Did you mean 'success'"),
        ({"parents": ("one",)}, "at least two policies"),
        ({"out": None}, "--out DIR"),
        ({"search": "predict"}, "--predict DATA"),
        ({"episodes": 0}, "--episodes and --block"),
    ],
)
def test_what_is_no_search_is_refused(runs, tmp_path, changes, message):
    with pytest.raises((ValueError, LookupError), match=message):
        compose(settings(runs, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_folders_in_use_and_records_of_others_are_refused(done, runs, tmp_path):
    config, _ = done
    with pytest.raises(ValueError, match="exists; give another --out"):
        compose(settings(runs, config.folder))
    with pytest.raises(FileNotFoundError, match="holds no search"):
        compose(settings(runs, None, out=None, resume=str(tmp_path)))
    with pytest.raises(RecordError, match="its starts was"):
        compose(settings(runs, None, out=None, resume=str(config.folder), report=12))


def test_fingerprints_ignore_the_order_of_parents():
    assert (
        fingerprint(("x", "y"), (0.3, 0.7))
        == fingerprint(("y", "x"), (0.7, 0.3))
        != fingerprint(("x", "y"), (0.7, 0.3))
    )
    assert fingerprint(("x", "y"), (1.0, 0.0)) == fingerprint(("x", "z"), (1.0, 0.0))


def test_names_without_what_all_share():
    assert short(["out/a/run", "out/b/run"]) == ["a/run", "b/run"] and short(["x", "x"]) == ["x", "x"]


def searched(parents, points):
    """A report of made-up outcomes of the search alone."""
    table = draw(np.linspace(0.2, 0.8, points), 24, 0.5, np.random.default_rng(0))
    grid = simplex(parents, {2: points, 3: 6}[parents])[:points]
    found = successive_halving(Trials(grid, range(24), lambda w, starts: table[grid.index(w)][list(starts)]))
    return Report(tuple(f"runs/{name}" for name in "abc"[:parents]), "successive-halving", "success", found)


def test_the_page_of_a_search_by_rollouts_names_no_winner_where_there_is_none():
    tried = tuple(TriedWeights(w, (1.0, 0.0), "by rank, after 8 episodes" if w[0] == 1 else "") for w in simplex(2, 3))
    report = Report(("runs/a", "runs/b"), "grid", "success", SearchResult((0.5, 0.5), tried, 6, "All."))
    html = render(report, {"search": "grid"})
    assert "nothing was reported" in html and "dropped by rank" in html and ">nan" not in html.lower()


@pytest.mark.parametrize(("parents", "points", "discs"), [(2, 11, 0), (3, 21, 21)])
def test_the_page_fits_a_phone_and_loads_nothing(chromium, tmp_path, parents, points, discs):
    (tmp_path / PAGE).write_text(render(searched(parents, points), {"search": "successive-halving"}))
    page, said = chromium.new_page(viewport={"width": 390, "height": 844}), []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(f"file://{tmp_path / PAGE}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("svg.chart circle").count() == discs and page.locator("#tried").count() == 1
    assert [line for line in said if not line.startswith("data:")] == []
    page.close()


def test_the_headline_claims_no_more_than_the_interval():
    def row(name, role, difference=None):
        return ReportRow(name, role, name, 100, wilson(60, 100), wilson(60, 100), None, difference, 5, 1, 0.5)

    report = searched(2, 3)
    rows = row("mixture", MIXTURE), row("runs/a", PARENT, tango(20, 2, 100)), row("seeds", CONTROL, tango(5, 4, 100))
    report = dataclasses.replace(report, entries=rows, found=dataclasses.replace(report.found, chosen=(0.5, 0.5)))
    assert "is better than runs/a (+18.0 [" in report.headline() and "differ from the control" in report.headline()
    worse = dataclasses.replace(report, entries=(rows[0], row("runs/a", PARENT, tango(2, 20, 100))))
    assert "is worse than runs/a" in worse.headline()
    alone = dataclasses.replace(report, found=dataclasses.replace(report.found, chosen=(0.0, 1.0)))
    assert alone.headline() == "No mixture did better than one parent alone: the search chose runs/b."


def test_compositions_of_several_seeds_become_one_study(done, tmp_path, capsys):
    """Rates and differences of the table are those of the records; here with outcomes drawn for each."""
    rng, folders = np.random.default_rng(0), [tmp_path / name for name in "ab"]
    won = {}  # (folder, role) -> (n,) outcomes
    for folder in folders:
        shutil.copytree(done[0].folder, folder)
        for role, record in read_composition(folder).records.items():
            table = pq.read_table(record.root / "episodes.parquet")
            won[folder.name, role] = rng.random(len(table)) < 0.5
            first = np.where(won[folder.name, role], table["length"].to_numpy(), -1).astype(np.int32)
            for name, values in (("success", won[folder.name, role]), ("first_success", first)):
                table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
            pq.write_table(table, record.root / "episodes.parquet")
            manifest = json.loads((record.root / "manifest.json").read_text())
            del manifest["digests"]  # as earlier versions wrote it
            (record.root / "manifest.json").write_text(json.dumps(manifest))
    words = ["study", "compositions", *map(str, folders), "--title", "X", "--out"]
    assert main([*words, str(tmp_path / "pair.json")]) == 0
    study = read_study(tmp_path / "pair.json")
    rows = [dict(zip(study.columns, row, strict=True)) for row in study.rows]
    assert [row["seed"] for row in rows] == ["a", "b", "all"] and study.title == "X"
    for row, seeds in zip(rows, ("a", "b", "ab"), strict=True):
        pooled = {role: np.concatenate([won[name, role] for name in seeds]) for _, role in won}
        for role, outcomes in pooled.items():
            assert row[role][1] == pytest.approx(outcomes.mean())
        better = max((role for role in pooled if role.startswith(PARENT)), key=lambda role: pooled[role].mean())
        for column, role in (("- better parent", better), ("- control", CONTROL)):
            ours, theirs = pooled[MIXTURE], pooled[role]
            expected = tango(sum(ours & ~theirs), sum(theirs & ~ours), len(ours))
            assert row[column] == pytest.approx(tuple(expected))
    assert "further trainings (2 seeds" in "".join(study.notes)
    (folders[1] / FILE).unlink()
    assert main([*words, str(tmp_path / "no.json")]) == 2
    assert "holds no search" in capsys.readouterr().err and not (tmp_path / "no.json").exists()


def test_a_search_without_a_report_is_no_composition(runs, tmp_path):
    compose(settings(runs, tmp_path / "bare", report=0, points=2))
    with pytest.raises(CompositionError, match="had no --report"):
        read_composition(tmp_path / "bare")
