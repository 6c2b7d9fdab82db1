"""`understudy judge`: a model behind a URL and a person judge films, and how right they are is counted apart."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from understudy.__main__ import main
from understudy.eval.judge import endpoint
from understudy.eval.judge.films import find_films
from understudy.eval.judge.judges import PersonJudge
from understudy.eval.judge.page import click_page
from understudy.eval.judge.scores import scores
from understudy.eval.ledger.labels import read_labels, record_key, verdicts_of
from understudy.eval.ledger.record import read_record
from understudy.eval.ledger.verify import digest, manifest_digest

from .conftest import write_record
from .test_endpoint import SECRET, refuses, says, sees, serving

TRUE = [True, True, False, False, True, False]
SHOWN = [True, False, False, False, True, True]  # in the dream: one success is missed, and one is invented


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("A_JUDGES_KEY", SECRET)


@pytest.fixture
def records(tmp_path):
    """Truth and dream of one policy; the dream's own judge says success everywhere."""
    write_record(tmp_path / "true", TRUE)
    write_record(tmp_path / "dreamt", [True] * 6, shown=SHOWN, dream=True)
    return tmp_path


def vlm(url, **more):
    settings = {"type": "vlm", "url": url, "model": "tiny", "task": "Turn it green.", "retries": 0, "side": 32}
    return json.dumps(settings | more)


def clicks(path, record, said, judge="person"):
    """A file as the page writes it."""
    key = {"record": record_key(record), "name": "x", "initial_conditions": "green", "judge": judge}
    labels = [key | {"env_seed": seed, "verdict": verdict} for seed, verdict in said.items()]
    path.write_text(json.dumps({"kind": "failure-labels", "format": 2, "labels": labels}))
    return path


def line(text, judge, word):
    """The cells of the one row of this judge that has a cell beginning so."""
    rows = [re.split(r"\s{2,}", one) for one in text.splitlines() if one.startswith(judge)]
    [found] = [row for row in rows if any(cell.startswith(word) for cell in row[1:3])]
    return found


def test_a_model_is_asked_and_measured_on_true_and_imagined_films_apart(records, capsys):
    out = records / "vlm.json"
    words = [
        "judge",
        str(records / "true"),
        str(records / "dreamt"),
        "--truth",
        str(records / "true"),
        "--out",
        str(out),
    ]
    with serving(says(sees)) as (server, url):
        assert main([*words, "--judge", vlm(url, key="A_JUDGES_KEY", frames=4)]) == 0
        assert len(server.asked) == 12
        assert SECRET not in out.read_text() and "A_JUDGES_KEY" in out.read_text()
        said = capsys.readouterr().out
        assert "12 films, 6 of them imagined" in said and "vlm tiny: 5 success" not in said
        assert line(said, "vlm tiny ", "true")[3] == "1.000 [0.610, 1.000]"
        row = line(said, "vlm tiny ", "imagined")
        assert row[2] == "a true run from the same start" and row[3].startswith("0.667 [")
        assert row[-4:] == ["6", "0", "1", "1"]  # verdicts, none, false yes, false no
        assert line(said, "learned ", "imagined")[3].startswith("0.500 [")
        assert "learned is not shown to tell success from failure in imagined films" in said

        assert main([*words, "--judge", vlm(url, key="A_JUDGES_KEY", frames=4)]) == 0  # goes on: nothing is left
        assert len(server.asked) == 12 and "12 of 12 films have their verdict" in capsys.readouterr().out
        assert main([*words, "--judge", vlm(url, frames=5)]) == 2
        assert "verdicts of another judge" in capsys.readouterr().err
    assert {one.judge for one in read_labels([out])} == {"vlm tiny"}


def test_what_is_neither_yes_nor_no_is_no_verdict_and_no_failure(records, capsys):
    with serving(says("Yes"), says("I cannot tell."), says("Yes, surely"), says("No")) as (_, url):
        words = ["judge", str(records / "true"), "--out", str(records / "vlm.json"), "--judge", vlm(url)]
        assert main(words) == 0
    said = capsys.readouterr().out
    assert "1 success, 3 failure, 2 neither" in said
    assert "2 of 6 answers were neither yes nor no, such as: 'I cannot tell.'" in said
    assert line(said, "vlm tiny ", "true")[-4:] == ["4", "2", "0", "1"]


def test_verdicts_are_kept_where_an_endpoint_fails_and_the_rest_is_asked_later(records, capsys):
    words = ["judge", str(records / "true"), "--out", str(records / "vlm.json")]
    with serving(says("Yes"), says("No"), refuses(400, b"no more money"), says("No")) as (server, url):
        assert main([*words, "--judge", vlm(url)]) == 2
        assert "no more money" in capsys.readouterr().err and len(read_labels([records / "vlm.json"])) == 2
        assert main([*words, "--judge", vlm(url)]) == 0
        assert len(server.asked) == 7 and len(read_labels([records / "vlm.json"])) == 6


def test_the_person_is_a_reference_and_who_was_not_asked_is_left_out(records, capsys):
    dreamt = read_record(records / "dreamt")
    seen = {1000: "success", 1001: "failure", 1002: "failure", 1003: "neither"}
    mine = clicks(records / "person.json", dreamt, seen)
    words = ["judge", str(records / "dreamt"), "--labels", str(mine)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "person: 1 success, 2 failure, 1 neither; 2 of 6 films without an entry" in said
    row = line(said, "learned ", "the person")
    assert row[1] == "imagined" and row[3].startswith("0.333") and row[-4:] == ["3", "0", "2", "0"]
    other = clicks(records / "other.json", dreamt, {1000: "failure", 1001: "failure"})
    assert main([*words, str(other), "--truth", str(records / "true")]) == 0
    said = capsys.readouterr().out
    assert "note: 1 film has different verdicts of person" in said and "person: 0 success, 2 failure, 2 neither" in said
    assert line(said, "person ", "a true run")[-4:] == ["2", "2", "0", "1"]


def test_films_that_were_chosen_and_verdicts_of_other_films_are_told(records, tmp_path, capsys):
    some = write_record(tmp_path / "some", TRUE, filmed={1000, 1002})
    mine = clicks(tmp_path / "p.json", read_record(records / "true"), {1000: "success"})
    with pytest.warns(UserWarning, match="1 verdict of person is of films that are not here"):
        assert main(["judge", str(some.root), "--labels", str(mine)]) == 0
    said = capsys.readouterr().out
    assert "4 episodes have no film, and the 2 films of their records were chosen by outcome" in said
    assert "nobody can tell how right" in said
    none = write_record(tmp_path / "none", TRUE, filmed=False)
    assert main(["judge", str(none.root)]) == 2
    assert "none of 6 episodes was filmed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "x.json"], "without --judge nothing is written"),
        (["--judge", "person", "--out", "x.json"], "a person's page ends in .html"),
        (["--judge", "{type: vlm, model: m}", "--out", "x.html"], "a file of verdicts ends in .json"),
        (["--judge", "oracle"], "oracle"),
        (["--labels", "none.json"], "no file of verdicts 'none.json'"),
        (["--judge", "{type: vlm, model: m}"], "give the judge `task`"),
    ],
)
def test_bad_words_are_refused(records, words, said, capsys):
    assert main(["judge", str(records / "true"), *words]) == 2
    assert said in capsys.readouterr().err


def test_a_film_counts_once(records, tmp_path, capsys):
    """Twice given, by a record and its folder or as a copy, it would be asked and counted twice."""
    true = str(records / "true")
    shutil.copytree(true, tmp_path / "copy")
    for twice in ([true, str(records)], [true, true], [true, str(tmp_path / "copy")]):
        assert main(["judge", *twice]) == 2
        assert "is given twice, and would count twice" in capsys.readouterr().err


def test_a_truth_that_says_nothing_is_refused(records, tmp_path, capsys):
    dreamt = str(records / "dreamt")
    write_record(tmp_path / "other", TRUE, policy="runs/b")
    for truth, said in (
        (dreamt, "is a dream itself"),
        (str(tmp_path / "other"), "knows the outcome of none of these films"),
    ):
        assert main(["judge", dreamt, "--truth", truth]) == 2
        assert said in capsys.readouterr().err


def test_an_episode_that_broke_off_has_no_known_outcome(tmp_path):
    write_record(tmp_path / "true", [True, False, False], broken={1001})
    write_record(tmp_path / "dreamt", [True, False, False], dream=True, broken={1002})
    films = find_films([tmp_path / "true", tmp_path / "dreamt"], [str(tmp_path / "true")]).films
    true, dreamt = ([film for film in films if film.imagined is kind] for kind in (False, True))
    assert [film.known for film in true] == [True, None, False] == [film.known for film in dreamt]
    assert [film.own for film in dreamt] == [True, False, None]


def test_verdicts_of_a_film_that_was_made_anew_are_refused(records, capsys):
    out = records / "vlm.json"
    words = ["judge", str(records / "true"), "--out", str(out)]
    with serving(says(sees)) as (server, url):
        assert main([*words, "--judge", vlm(url)]) == 0
        film = records / "true" / "videos" / "001000.mp4"
        film.write_bytes((records / "true" / "videos" / "001002.mp4").read_bytes())
        manifest = json.loads((records / "true" / "manifest.json").read_text())
        manifest["digests"]["videos/001000.mp4"] = digest(film)
        manifest["digests"]["manifest.json"] = manifest_digest(manifest)
        (records / "true" / "manifest.json").write_text(json.dumps(manifest))
        capsys.readouterr()
        for more in (["--judge", vlm(url)], ["--labels", str(out)]):
            assert main([*words[: 2 if more[0] == "--labels" else 4], *more]) == 2
            assert "vlm tiny judged another film of green 1000" in capsys.readouterr().err
        assert len(server.asked) == 6


def test_one_model_that_was_asked_otherwise_is_another_judge(records, capsys):
    with serving(says(sees)) as (_, url):
        for frames, side in ((4, "true"), (5, "dreamt")):
            out = str(records / f"{side}.json")
            assert main(["judge", str(records / side), "--judge", vlm(url, frames=frames), "--out", out]) == 0
    labels = [str(records / f"{side}.json") for side in ("true", "dreamt")]
    capsys.readouterr()
    assert main(["judge", str(records / "true"), str(records / "dreamt"), "--labels", *labels]) == 2
    assert "asked otherwise in each: frames is 4 and 5" in capsys.readouterr().err
    more = ["--judge", vlm("http://127.0.0.1:9/v1", frames=8), "--out", str(records / "new.json")]
    assert main(["judge", str(records / "true"), "--labels", labels[0], *more]) == 2
    assert "--judge and" in capsys.readouterr().err and not (records / "new.json").exists()


def test_a_page_remembers_no_answer_to_another_question(records):
    films = find_films([records / "true"]).films
    pages = [click_page(films, PersonJudge(task=task), ["x"]) for task in ("Turn it green.", "Turn it red.")]
    keys = [re.search(r'"understudy judge " \+ "(\w+)"', text).group(1) for text in pages]
    assert keys[0] != keys[1]
    several = [dataclasses.replace(film, task=f"task {place}") for place, film in enumerate(films)]
    shown = click_page(several, PersonJudge(), ["x"])
    assert all(f'"task": "task {place}"' in shown for place in range(6))  # each film says what was to be done


def test_a_place_without_films_is_said(tmp_path, capsys):
    assert main(["judge", str(tmp_path)]) == 2
    assert "no record, no folder of records, and no dataset" in capsys.readouterr().err


def test_an_arms_dataset_is_judged_and_what_nobody_scored_is_unknown(tmp_path):
    """As `deploy` writes it: cameras, `next.success`, and who scored each episode."""
    from understudy.configs.episode import Episode
    from understudy.configs.spec import IMAGES, STATE, Embodiment
    from understudy.policies.data.writer import DatasetWriter

    from .conftest import film

    body = Embodiment(
        name="arm", action=("x",), action_units=("m",), rate=10.0, state=("x",), state_units=("m",),
        limits=((-1.0, 1.0),),
    ).with_cameras({"top": (32, 32), "wrist": (32, 64)})  # fmt: skip
    writer = DatasetWriter(tmp_path / "arm", body)
    for seed, won in enumerate((True, False)):
        frames = np.stack(film(won))[1:]
        steps, success = len(frames), np.zeros(len(frames), bool)
        success[-1] = won
        wide = np.repeat(frames, 2, 2)
        writer.add(
            Episode(
                start=seed, task="turn it green", action=np.zeros((steps, 1), np.float32),
                sent=np.zeros((steps, 1), np.float32),
                obs={STATE: np.zeros((steps, 1), np.float32), f"{IMAGES}top": frames, f"{IMAGES}wrist": wide},
                reward=success.astype(np.float32), progress=success.astype(np.float32), success=success,
                terminated=False, truncated=True,
            )
        )  # fmt: skip
    found = find_films([tmp_path / "arm"]).films
    assert [film.known for film in found] == [True, False] and found[0].task == "turn it green"
    assert found[0].views == (f"{IMAGES}top", f"{IMAGES}wrist")
    first, last = found[0].pictures.read([0, 11])
    assert (
        first.shape[1] == last.shape[1] == 480 and first[0, 0, 0] > first[0, 0, 1] and last[-1, -1, 0] < last[-1, -1, 1]
    )
    assert found[0].pictures.mp4()[4:8] == b"ftyp"


def test_what_is_not_known_is_not_scored(records):
    films = find_films([records / "dreamt"]).films
    assert scores(films, verdicts_of([])) == []
