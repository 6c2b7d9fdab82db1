"""Nothing that comes from a record, a dataset or a name becomes markup: each page is fed with it and parsed."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from understudy.eval.agree.agree import as_study
from understudy.eval.agree.agree import render as agree_page
from understudy.eval.agree.verdict import agree
from understudy.eval.compare.comparison import compare_records
from understudy.eval.compare.page import render as compare_page
from understudy.eval.compose.page import render as compose_page
from understudy.eval.compose.report import CONTROL, MIXTURE, PARENT, Report, compared, entry
from understudy.eval.compose.search import SearchResult, TriedWeights
from understudy.eval.evaluate.curve import write_curve
from understudy.eval.evaluate.report import render as report_page
from understudy.eval.inspect.critic import Seen
from understudy.eval.inspect.critic import render as critic_page
from understudy.eval.inspect.heat_map import HeatMap
from understudy.eval.inspect.page import render as past_page
from understudy.eval.inspect.past_matters import FRAME, Change
from understudy.eval.ledger.identity import matched
from understudy.eval.ledger.record import RecordWriter
from understudy.eval.ledger.study import Study
from understudy.eval.pages.charts import Line, Mark, chart
from understudy.eval.pages.page import page

EVIL = "\"'></title></style></script><script>alert(1)</script><img src=x onerror=alert(1)>&amp;${alert(1)}"
PROVENANCE = {"begun": EVIL, "code": {"commit": EVIL, "understudy": EVIL}, EVIL: {EVIL: EVIL, "more": [EVIL]}}


class Tags(HTMLParser):
    """What a browser would make of a page: tags with their attributes, scripts with their text."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.scripts, self.text, self._script = [], [], "", False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._script = tag == "script"
        self.scripts += [""] * self._script

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        if self._script:
            self.scripts[-1] += data
        else:
            self.text += data


def check(html, shown=True, scripts=1):
    """No tag and no script but our own, and what was fed is there as text."""
    seen = Tags(html)
    assert len(seen.scripts) == scripts and not any("alert(1)" in text for text in seen.scripts[-1:])
    assert "<script>alert" not in html and "<img src=x" not in html
    for tag, attributes in seen.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert tag not in ("iframe", "object", "embed", "form", "base")
    assert not shown or EVIL in seen.text
    return seen


def write(folder, label, won=0.5, n=12, seed=0, world="sim", **changes):
    manifest = {
        "policy": {"path": f"{EVIL}{label}", "type": EVIL, "fingerprint": f"f{label}", "config": {EVIL: EVIL}},
        "agent": {"critic": EVIL, "solver": EVIL, "n_action_steps": 8},
        "world": {"type": world, "task": EVIL, "config": {"type": EVIL, EVIL: EVIL}},
        "starts": {"set": EVIL, "first": 1000, "count": n},
    } | PROVENANCE
    luck = np.random.default_rng(seed).random(n)
    with RecordWriter(folder / f"{world}{label}", manifest) as writer:
        for i in range(n):
            good = bool(luck[i] < won)
            writer.add({
                "initial_conditions": EVIL, "env_seed": 1000 + i, "policy_seed": 0, "task": EVIL, "success": good,
                "first_success": 3 if good else -1, "best_progress": float(good), "final_progress": float(good),
                "return": 0.0, "length": 3, "progress": [0.0, 0.0, float(good)], "terminated": good,
                "truncated": not good, "wall_physics": 0.0, "wall_render": 0.0, "wall_policy": 0.0, "attempt": 1,
                "worker": 0, "video": EVIL if i == 1 else "v.mp4" if i == 2 else "", "error": "" if good else EVIL,
                "labels": json.dumps({EVIL: EVIL}),
            } | changes)  # fmt: skip
        (folder / f"{world}{label}" / "v.mp4").write_bytes(b"\0\0\0\x18ftypisom")
        return writer.close(complete=True)


STUDY = Study(title=EVIL, command=EVIL, columns=(EVIL,), rows=((EVIL,),), notes=(EVIL,), provenance=PROVENANCE)


def test_the_report_of_a_record(tmp_path):
    check(report_page(write(tmp_path, "a")))


def test_a_comparison(tmp_path):
    records = [write(tmp_path, "a"), write(tmp_path, "b", won=0.9, seed=1)]
    seen = check(compare_page(compare_records(records), records), scripts=2)
    assert json.loads(seen.scripts[0])["starts"][0]["id"].startswith(EVIL)
    sequential = {"says": EVIL, "test": EVIL, "decision": EVIL, "operator": EVIL, "on": EVIL, "history": [[1, 0.5]]}
    rules = {"alpha": 0.05, "budget": 12, "until_decided": True, "give_up": False, "independent": False, "pairs": 12}
    comparison = compare_records(records, sequential=sequential | rules)
    check(compare_page(comparison, records), scripts=2)


@pytest.mark.parametrize("parents", [2, 3])
def test_a_composition(tmp_path, parents):
    names = tuple(f"{EVIL}{i}" for i in range(parents))
    chosen = tuple(np.full(parents, 1 / parents).tolist())
    tried = (TriedWeights(chosen, (1.0, 0.0), EVIL), TriedWeights((1.0, *[0.0] * (parents - 1)), (0.0, 1.0)))
    who = [(EVIL, MIXTURE), *((name, PARENT) for name in names), (EVIL, CONTROL)]
    records = [write(tmp_path, f"{i}", seed=i) for i in range(len(who))]
    rows = compared([entry(*each, record) for each, record in zip(who, records, strict=True)], records)
    report = Report(names, "grid", "success", SearchResult(chosen, tried, 10, EVIL), rows, notes=(EVIL,))
    settings = {"parents": list(names), "world": EVIL, "solver": EVIL, "predict": EVIL}
    check(compose_page(report, settings))


def test_an_agreement(tmp_path):
    truth = [write(tmp_path, f"{i}", won=i / 4, seed=i) for i in range(5)]
    proxy = [write(tmp_path, f"{i}", won=i / 4, seed=i, world="dream") for i in range(5)]
    found = agree(matched(truth, proxy), "success", np.random.default_rng(0), draws=50)
    worlds = {"truth": EVIL, "proxy": EVIL}
    about = {"records": {"truth": [EVIL], "proxy": [EVIL]}, EVIL: {EVIL: EVIL}}
    check(agree_page(found, worlds, about))
    assert as_study(found, worlds, "command").title.count(EVIL) == 2


def test_a_training_judged_on_the_way(tmp_path):
    run = tmp_path / "run<script>alert(1)<"
    run.mkdir()
    rows = [{"step": 1, "skipped": EVIL}, {"step": 2, "failed": EVIL}]
    (run / "evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    check(write_curve(run).read_text())


def test_how_the_past_is_used():
    part = Change(FRAME, EVIL, 0, np.ones(4), np.ones(4), np.arange(4))
    check(past_page({EVIL: [[part]]}, [STUDY]))
    check(past_page({EVIL: [[part]], f"{EVIL}2": [[part]]}, [STUDY]))


def test_what_a_critic_says():
    seen = Seen([np.zeros(5), np.ones(5)], np.array([-1, 3]), None, EVIL)
    check(critic_page(EVIL, seen, [STUDY], [HeatMap(np.zeros((8, 8, 3), np.uint8), EVIL)]))


def test_words_of_a_chart():
    """Every text that a chart takes; it goes into pages as markup."""
    lines = [Line([0, 1], [0, 1], "a", EVIL)]
    svg = chart(lines, x_label=EVIL, y_label=EVIL, title=EVIL, marks=[Mark(0, 0, "a", EVIL)])
    seen = Tags(svg)
    assert {tag for tag, _ in seen.tags} <= {"svg", "line", "text", "polyline", "circle", "p", "span", "i"}
    assert seen.text.count(EVIL) == 4 and not any("onerror" in attributes for _, attributes in seen.tags)
    assert [attributes["aria-label"] for tag, attributes in seen.tags if tag == "svg"] == [EVIL]


def test_values_are_escaped_by_default():
    assert page("past.html", names=[EVIL], chart=EVIL, studies=[], maps=[(EVIL, [])], show=str).count("<script>") == 1
