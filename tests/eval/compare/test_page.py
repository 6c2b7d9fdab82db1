"""The page of a comparison: what it says, and in a real Chromium that a start shows its films side by side."""

import re
import shlex
from html import unescape

import numpy as np
import pytest

from understudy.eval.compare.comparison import compare_records
from understudy.eval.compare.page import headline, outcome_counts, render, write_comparison
from understudy.eval.ledger.record import RecordWriter
from understudy.eval.ledger.table import COLUMNS
from understudy.eval.rollout.film import choose_pairs
from understudy.policies.data.encode import write_mp4

STEPS, N, FILMED = 20, 30, (1003, 1025)  # only B succeeds at the first, both at the second


def record(folder, won, filmed=(), first=1000, **manifest):
    """A record in which the starts `won` succeed."""
    told = {"policy": {"path": f"runs/{folder.name}"}, "starts": {"set": "toy", "first": first, "count": N}}
    with RecordWriter(folder, told | {"world": {"type": "toy", "config": {"type": "toy"}}} | manifest) as writer:
        (folder / "videos").mkdir()
        for start in range(first, first + N):
            good = start in won
            curve = [float(one) for one in np.linspace(0.1, 1.0 if good else 0.5, STEPS)]
            writer.add(
                dict.fromkeys(COLUMNS, 0)
                | {"initial_conditions": "toy", "env_seed": start, "task": "toy", "success": good, "length": STEPS}
                | {"first_success": STEPS if good else -1, "best_progress": curve[-1], "final_progress": curve[-1]}
                | {"progress": curve, "terminated": good, "truncated": not good, "error": "", "labels": "{}"}
                | {"video": f"videos/{start}.mp4" if start in filmed else ""}
            )
            if start in filmed:
                frames = [np.full((64, 64, 3), 40 + 5 * k, np.uint8) for k in range(STEPS + 1)]
                write_mp4(folder / "videos" / f"{start}.mp4", frames, 10.0)
        return writer.close(complete=True)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A succeeds at 10 starts, B at these and 15 more."""
    root = tmp_path_factory.mktemp("comparison")
    return [record(root / "a", range(1020, 1030), FILMED), record(root / "b", range(1003, 1028), FILMED)]


def test_a_pair_in_words_and_counts(records):
    found = compare_records(records)
    assert headline(found).startswith("B succeeds more often than A")
    assert outcome_counts(found) == [("01", "only B", 17), ("10", "only A", 2), ("00", "neither", 3), ("11", "both", 8)]
    html = render(found, records)
    assert (
        "Which is better: A or B?" in html
        and "runs/b" in html
        and len(re.findall(r'class="start(?: filmed)?"', html)) == N
    )
    assert html.count("<video ") == 4 and "another training seed" in html


def test_the_commands_repeat_it(records):
    html = render(compare_records(records), records)
    text = re.search(r"<pre>(.*?)</pre>", html, re.S).group(1).replace("&#39;", "'")
    lines = text.replace("\\\n", "").split("\n")
    assert [shlex.split(line)[1] for line in lines] == ["eval", "eval", "compare"]
    assert shlex.split(lines[2])[2:4] == ["out/a", "out/b"] == [shlex.split(line)[-1] for line in lines[:2]]


def test_three_policies_name_who_leads(records, tmp_path):
    third = record(tmp_path / "c", range(1002, 1027))
    found = compare_records([*records, third])
    assert headline(found) == "B has the highest rate, but is not shown to succeed more often than C."
    alone = compare_records([records[0], record(tmp_path / "d", range(1000, 1030)), records[0]])
    assert headline(alone) == "B succeeds more often than each of the others."
    assert ">only B, C <b>" in render(found, [*records, third])


def test_a_sequential_comparison_shows_its_evidence_and_its_command(records):
    sequential = {
        "test": "betting",
        "on": "success",
        "budget": 60,
        "until_decided": True,
        "give_up": 0.05,
        "decision": "B",
    }
    sequential |= {
        "independent": False,
        "pairs": N,
        "history": [(8, 0.2), (30, 1.0)],
        "says": "B is <better>.",
        "note": "",
    }
    html = render(compare_records(records, sequential=sequential), records)
    assert "B is &lt;better&gt;." in html and "evidence over pairs" in html and "verdict for A" in html
    command = re.search(r"<pre>(.*?)</pre>", html, re.S).group(1).replace("\\\n", "")
    assert command.startswith("understudy compare runs/a runs/b") and "--until_decided" in command
    imagined = {"model": "runs/dream", "past": ["out/past a", "out/past_b"], "pairs": 400, "repeats": 2}
    beside = sequential | {"test": "imagined", "imagined": imagined}
    html = render(compare_records(records, sequential=beside), records)
    command = re.search(r"<pre>(.*?)</pre>", html, re.S).group(1).replace("\\\n", "")
    command = " ".join(unescape(command).split())
    for words in ("--test betting", "--imagine runs/dream --imagined 400 --dreams 2", "--past 'out/past a' out/past_b"):
        assert words in command


def test_policies_with_starts_of_their_own_have_no_pairs(records, tmp_path):
    other = record(tmp_path / "far", range(2000, 2015), first=2000)
    sequential = {
        "test": "table",
        "on": "success",
        "budget": 60,
        "until_decided": True,
        "give_up": 0.05,
        "decision": "B",
    }
    sequential |= {
        "independent": True,
        "pairs": N,
        "history": [(8, 0.2), (30, 1.0)],
        "says": "B is better.",
        "note": "",
    }
    sides = [records[0], other]
    html = render(compare_records(sides, sequential=sequential), sides)
    assert "One initial condition after another" not in html and "B is better." in html


def test_one_record_for_each_contestant(records):
    with pytest.raises(ValueError):
        render(compare_records(records), records[:1])


def test_films_of_pairs_begin_with_the_discordant():
    outcomes = {1: (1, 1), 2: (0, 1), 3: (1, 0), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (0, 1)}
    first = {start: {"success": bool(a), "error": ""} for start, (a, _) in outcomes.items()}
    second = {start: {"success": bool(b), "error": "x" if start == 7 else ""} for start, (_, b) in outcomes.items()}
    assert choose_pairs(first, second | {9: second[1]}, 10) == [3, 2, 6, 4, 5, 1]
    assert choose_pairs(first, second, 2) == [3, 2]


@pytest.fixture(scope="module")
def opened(chromium, records, tmp_path_factory):
    """The page on a phone, and what it said and asked for."""
    path = write_comparison(compare_records(records), records, tmp_path_factory.mktemp("page"))
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.locator(".chosen figcaption", has_text="Env seed").wait_for()  # its script has run
    yield page
    assert said == [] and [url for url in asked if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
    page.close()


def visible_films(page):
    return page.eval_on_selector_all(".film", "all => all.filter(one => one.offsetParent).map(one => one.id)")


def test_a_start_shows_its_films_side_by_side(opened):
    assert "Env seed 1003: only B" in opened.inner_text(".chosen figcaption"), "filmed and discordant: shown first"
    assert visible_films(opened) == ["film-A-1003", "film-B-1003"]
    tops = opened.eval_on_selector_all(".film", "all => all.filter(one => one.offsetParent).map(one => one.offsetTop)")
    assert tops[0] == tops[1]
    opened.click(".start[aria-label^='env seed 1025']")
    assert visible_films(opened) == ["film-A-1025", "film-B-1025"]
    opened.keyboard.press("ArrowRight")
    assert opened.inner_text(".chosen figcaption") == "Env seed 1026: both · best progress 1.00 and 1.00 · not filmed"
    assert visible_films(opened) == [] and opened.locator(".chosen .curves polyline").count() == 2


def test_both_films_play_together(opened):
    if not opened.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.64001f\"')"):
        pytest.skip("this Chromium was built without h264")
    opened.click(".start[aria-label^='env seed 1003']")
    opened.click(".together")
    times = []
    for _ in range(600):
        opened.wait_for_timeout(100)
        times = opened.evaluate("['A', 'B'].map(one => document.querySelector(`#film-${one}-1003 video`).currentTime)")
        if min(times) > 0.4:
            break
    assert min(times) > 0.4


def test_an_outcome_can_be_picked_out(opened):
    opened.click(".counts button[value='10']")
    assert opened.locator(".start:not(.dim)").count() == 2
    opened.click(".counts button[value='10']")
    assert opened.locator(".start:not(.dim)").count() == N


def test_badges_are_legible(opened, contrast):
    for scheme in ("light", "dark"):
        opened.emulate_media(color_scheme=scheme)
        pairs = opened.evaluate(
            """[..."abcdef"].map(style => { const badge = document.querySelector(".badge").cloneNode();
            badge.className = "badge " + style; document.querySelector("main").append(badge);
            const {color, backgroundColor} = getComputedStyle(badge); badge.remove();
            return [color, backgroundColor] })"""
        )
        assert len(set(map(tuple, pairs))) == 6 and min(contrast(*pair) for pair in pairs) >= 4.5


def test_the_page_fits_a_phone(opened):
    assert opened.evaluate("document.documentElement.scrollWidth") == 390
