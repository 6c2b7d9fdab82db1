"""`understudy agree` by verdicts: they stand in for the records' own success, whole and of the right films, or not."""

import dataclasses
import json

import pytest

from understudy.__main__ import main
from understudy.eval.agree.agree import NUMBERS, PAGE
from understudy.eval.agree.judged import by_verdicts
from understudy.eval.ledger.identity import MatchError
from understudy.eval.ledger.labels import Label, record_key
from understudy.eval.ledger.verify import DIGESTS

from .test_agree import GOOD, worlds, write


def say(path, records, verdict=None, judge="person", asked=None, **changes):
    """A file of verdicts on all episodes: by default what the records say; `changes` of single labels, by env seed."""
    labels = []
    for record in records:
        for row in record.rows:
            own = "success" if row["success"] else "failure"
            label = Label(
                record=record_key(record), name=str(record.root), initial_conditions=row["initial_conditions"],
                env_seed=row["env_seed"], verdict=own if verdict is None else verdict(row), judge=judge,
            )  # fmt: skip
            labels.append(dataclasses.asdict(label) | changes.get(f"at_{row['env_seed']}", {}))
    text = {"kind": "failure-labels", "format": 3, "labels": [one for one in labels if one["verdict"]]}
    path.write_text(json.dumps(text | ({"asked": asked} if asked else {})))
    return str(path)


def words(truth, proxy, *more):
    sides = ["--truth", *(str(one.root) for one in truth), "--proxy", *(str(one.root) for one in proxy)]
    return ["agree", *sides, "--draws", "100", *more]


def test_the_judges_verdicts_count_and_it_is_said(tmp_path, capsys):
    """A dream whose own judge says the same of everybody, seen by a person who tells them apart."""
    truth, proxy = worlds(tmp_path / "records", GOOD, (0.5,) * 7)
    rates = dict(zip((str(one.root) for one in proxy), GOOD, strict=True))
    said = []
    for record in proxy:
        rate = rates[str(record.root)]
        said.append(
            say(tmp_path / f"{len(said)}.json", [record], lambda row, rate=rate: _told(row["env_seed"] < 60 * rate))
        )
    assert main(words(truth, proxy)) == 0
    assert "not established" in capsys.readouterr().out
    out = tmp_path / "out"
    study = tmp_path / "study.json"
    more = ["--proxy_verdicts", *said, "--out", str(out), "--study", str(study)]
    assert main(words(truth, proxy, *more)) == 0
    shown = capsys.readouterr().out
    assert "The proxy orders these 7 policies as the truth does" in shown
    assert "Note: success in the proxy is what person says of 420 films, not what its records say" in shown
    numbers = json.loads((out / NUMBERS).read_text())
    assert numbers["verdicts"]["proxy"]["judge"] == "person" and numbers["verdicts"]["proxy"]["changed"] > 100
    assert sorted(round(60 * point["proxy"]["estimate"]) for point in numbers["points"]) == [
        sum(seed < 60 * rate for seed in range(60)) for rate in GOOD
    ]
    assert "Success in the proxy is what person says of 420 films" in (out / PAGE).read_text()
    assert "what person says" in study.read_text() and "--proxy_verdicts" in study.read_text()


def _told(won):
    return "success" if won else "failure"


def test_what_is_not_decided_is_left_out_in_both_worlds(tmp_path, capsys):
    truth, proxy = worlds(tmp_path / "records", (0.2, 0.8), (0.2, 0.8))
    file = say(tmp_path / "p.json", [*truth, *proxy], at_3={"verdict": "neither"})  # of both sides, on one page
    assert main(words(truth, proxy, "--truth_verdicts", file, "--out", str(tmp_path / "out"))) == 0
    shown = capsys.readouterr().out
    assert "1 start is left out in both worlds: not decided" in shown and "2 were not decided" in shown
    points = json.loads((tmp_path / "out" / NUMBERS).read_text())["points"]
    assert [(one["n_truth"], one["n_proxy"]) for one in points] == [(59, 59)] * 2
    everything = say(tmp_path / "n.json", truth, lambda row: "neither")
    assert main(words(truth, proxy, "--truth_verdicts", everything)) == 2
    assert "no start of runs/p0/checkpoints/00000100 is left" in capsys.readouterr().err


def test_a_second_true_run_is_judged_by_the_same(tmp_path, capsys):
    truth, proxy = worlds(tmp_path / "records", (0.2, 0.8), (0.2, 0.8))
    again = [write(tmp_path / "again", rate, name=f"p{i}", seed=10 + i) for i, rate in enumerate((0.2, 0.8))]
    more = ["--again", *(str(one.root) for one in again), "--truth_verdicts"]
    assert main(words(truth, proxy, *more, say(tmp_path / "all.json", [*truth, *again]))) == 0
    capsys.readouterr()
    assert main(words(truth, proxy, *more, say(tmp_path / "some.json", truth))) == 2
    assert "none is of" in capsys.readouterr().err


def test_verdicts_that_do_not_fit_are_refused(tmp_path, capsys):
    truth, proxy = worlds(tmp_path / "records", (0.2, 0.8), (0.2, 0.8))
    good = say(tmp_path / "good.json", proxy)

    def refused(said, *files, flag="--proxy_verdicts", more=()):
        assert main(words(truth, proxy, flag, *files, *more)) == 2
        shown = capsys.readouterr().err
        assert said in shown, shown

    refused("person gave no verdict of 1 of 60 episodes", say(tmp_path / "a.json", proxy, at_7={"verdict": ""}))
    refused("are of other records", say(tmp_path / "b.json", truth))
    refused("are of other records", say(tmp_path / "c.json", proxy[:1]))  # one policy by a judge, one by its record
    refused("person judged sim/point/700, which", say(tmp_path / "d.json", proxy, at_7={"env_seed": 700}))
    refused("person says different things of", good, say(tmp_path / "e.json", proxy, lambda r: "success"))
    refused("verdicts of person and vlm x; give those of one", good, say(tmp_path / "f.json", proxy, judge="vlm x"))
    asked = [say(tmp_path / f"{n}.json", [one], judge="vlm x", asked={"frames": n}) for n, one in enumerate(proxy)]
    refused("asked otherwise in each: frames is 0 and 1", *asked)
    refused("judged another film of sim/point/7", say(tmp_path / "g.json", proxy, at_7={"film": "0" * 64}))
    refused("leave out --by progress", good, more=("--by", "progress"))
    refused("there is no file of verdicts 'none.json'", "none.json")
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps({"kind": "failure-labels", "format": 3, "labels": []}))
    refused("there is no verdict", str(empty))


def test_the_film_is_the_one_that_was_judged(tmp_path):
    record = write(tmp_path / "records", 0.5)
    told, seed = "a" * 64, record.rows[0]["env_seed"]
    rows = record.table.to_pylist()
    rows[0]["video"] = "videos/0.mp4"
    table = type(record.table).from_pylist(rows, record.table.schema)
    filmed = dataclasses.replace(
        record, table=table, manifest=record.manifest | {DIGESTS: record.manifest[DIGESTS] | {"videos/0.mp4": told}}
    )
    file = say(tmp_path / "p.json", [filmed], **{f"at_{seed}": {"film": told}})
    (same,), about, left = by_verdicts([filmed], [file], "truth")
    assert same.column("success") == filmed.column("success") and about.unseen == 59 and not left
    (tmp_path / "records" / record.root.name / "videos").mkdir()
    (tmp_path / "records" / record.root.name / "videos" / "0.mp4").write_bytes(b"another")
    with pytest.raises(MatchError, match="judged another film"):
        by_verdicts([filmed], [file], "truth")


def test_an_episode_that_broke_off_stays_a_failure(tmp_path):
    record = write(tmp_path / "records", 1.0)
    rows = record.table.to_pylist()
    rows[0]["error"] = "the arm is gone"
    broken = dataclasses.replace(record, table=type(record.table).from_pylist(rows, record.table.schema))
    file = say(tmp_path / "p.json", [broken], lambda row: "success")
    (judged,), about, _ = by_verdicts([broken], [file], "truth")
    assert judged.column("success") == [False] + [True] * 59 and about.broken == 1
