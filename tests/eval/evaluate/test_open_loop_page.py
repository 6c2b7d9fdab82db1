"""The page of open-loop errors and that of a comparison: nothing fed becomes markup; Chromium draws what is picked."""

import json
import re

import numpy as np
import pytest

from understudy.eval.compare.open_loop import compare_errors
from understudy.eval.compare.open_loop import render as compare_page
from understudy.eval.evaluate.open_loop_page import EPISODES, render, write_error_report
from understudy.eval.offline.record import ERRORS, ErrorWriter, over_steps, read_errors
from understudy.eval.offline.summary import over_episodes, summarize_errors, verdict

EVIL = "\"'></title></style></script><script>alert(1)</script><img src=x onerror=alert(1)>&amp;${alert(1)}"
DIMS, HORIZON, EXECUTED = 3, 4, 2


def write(root, episodes, error=0.5, names=("x", "gripper", "still"), path="runs/a", task="a task", **changes):
    """A record whose policy is off by about `error`, the mean action by 1 and the last action by 0.2."""
    about = {
        "source": "demos", "fingerprint": "f", "episodes": list(episodes), "trained_on": [], "status": "held out",
        "notes": [], "rate": 10.0, "action": list(names), "units": ["m", "1", "?"], "kinds": ["other"] * 3,
        "mode": "absolute", "inputs": ["observation.state"], "horizon": HORIZON, "every": 1, "spread": [1.0, 2.0, 0.0],
        "mean_action": [0.0] * 3, "mean_of": "the 7 episodes that it was trained on",
    } | changes  # fmt: skip
    manifest = {"policy": {"path": path}, "data": about, "command": f"understudy eval --policy {json.dumps(path)}"}
    manifest["agent"] = {"n_action_steps": EXECUTED, "candidates": 1}
    with ErrorWriter(root, manifest) as writer:
        for number in episodes:
            rng = np.random.default_rng(number)
            length = 30 + number
            row = {"episode": number, "task": task, "length": length, "windows": length, "latency": 0.01}
            row["windows_by_step"] = [float(length - k) for k in range(HORIZON)]
            for name, size in zip(ERRORS, (error, 1.0, 0.2, None), strict=True):
                values = [] if size is None else (size + 0.01 * rng.random(HORIZON * DIMS)).tolist()
                row[ERRORS[name]] = values
                row[name] = over_steps(row, ERRORS[name], EXECUTED).tolist() if values else []
            row["recorded"], row["planned"] = (rng.random(length * DIMS).tolist() for _ in range(2))
            writer.add(row | {"wall_policy": 0.1})
        return writer.close(complete=True)


def test_the_sentence_says_which_guess_is_beaten(tmp_path):
    record = write(tmp_path / "record", range(4))
    said = verdict(summarize_errors(record), record.manifest)
    first = (
        "The policy is worse than simply repeating the last action and beats the mean action: on 4 held-out episodes"
    )
    assert said.startswith(first)
    good = write(tmp_path / "good", range(4), error=0.1)
    assert "beats the mean action and the last action" in verdict(summarize_errors(good), good.manifest)
    even = write(tmp_path / "even", range(4), error=0.2)
    assert "is not shown to differ from the last action" in verdict(summarize_errors(even), even.manifest)
    one = write(tmp_path / "one", [5])
    said = verdict(summarize_errors(one), one.manifest)
    assert said.startswith("Off by more than simply repeating the last action: on 1 held-out episode its actions")
    assert "one episode cannot show" in said
    near = write(tmp_path / "near", [5], error=0.1)
    assert verdict(summarize_errors(near), near.manifest).startswith("On 1 held-out episode its actions are off by 0.0")
    assert not re.search(r"\bnan\b", re.sub(r"<script.*?</script>", "", render(one), flags=re.S).lower())
    still = write(tmp_path / "still", range(2), spread=[0.0, 0.0, 0.0])
    assert "every action dimension is constant" in render(still)


def test_two_that_a_guess_beats_are_told_so_before_who_is_nearer(tmp_path):
    far = [write(tmp_path / f"far{error}", range(4), error=error) for error in (0.3, 0.5)]
    said = compare_errors(far).says
    assert said.startswith("Neither does better than simply repeating the last action: A is off by 0.228")
    assert "A's actions are nearer" in said and said in re.sub("&#39;", "'", compare_page(compare_errors(far), far))
    one = [far[1], write(tmp_path / "good", range(4), error=0.1)]
    assert compare_errors(one).says.startswith("B's actions are nearer")


def test_nothing_that_is_fed_becomes_markup(tmp_path):
    names = (EVIL, "b", "c")
    records = [
        write(
            tmp_path / name, range(3), names=names, path=EVIL + name, task=EVIL, source=EVIL, notes=[EVIL], error=error
        )
        for name, error in (("one", 0.3), ("other", 0.4))
    ]
    pages = [render(records[0]), compare_page(compare_errors(records), records)]
    for html in pages:
        assert "<script>alert" not in html and "<img" not in html and html.count("</title>") == 1


def test_a_page_holds_the_worst_and_the_best_of_many_episodes(tmp_path):
    record = write(tmp_path / "record", range(40))
    data = json.loads(re.search(r'id="curve-data">(.*?)</script>', render(record))[1])
    errors = {row: sum(error[:2]) for row, error in zip(record.column("episode"), record.column("error"), strict=True)}
    shown = [episode["episode"] for episode in data["episodes"]]
    scaled = {
        number: error[0] + error[1] / 2
        for number, error in zip(record.column("episode"), record.column("error"), strict=True)
    }
    order = sorted(errors, key=scaled.get, reverse=True)
    assert len(shown) == EPISODES and shown[0] == order[0] and shown[-1] == order[-1]


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_a_comparison_fits(chromium, tmp_path, width):
    """Badges are as small as their letter, numbers are seen beside long names, nothing is cut."""
    names = ("shoulder_pan", "left_hand_index_finger_proximal_joint.pos", "still")
    path = "runs/a_folder_with_a_long_name/grid/setting/seed0/run"
    records = [
        write(tmp_path / name, range(3), names=names, path=path + name, error=error)
        for name, error in (("a", 0.3), ("b", 0.4))
    ]
    html = tmp_path / "compare.html"
    html.write_text(compare_page(compare_errors(records), records))
    page = chromium.new_page(viewport={"width": width, "height": 900})
    page.goto(html.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for side in page.locator(".side").all():
        card, badge, who, rate = (
            one.bounding_box() for one in (side, *(side.locator(f"> {part}") for part in (".badge", ".who", ".rate")))
        )
        assert 15 < badge["width"] < 40 and badge["x"] + badge["width"] <= who["x"] + 1
        assert max(one["x"] + one["width"] for one in (badge, who, rate)) <= card["x"] + card["width"]
        assert rate["y"] >= who["y"] + who["height"] - 1 or rate["x"] >= who["x"] + who["width"] - 1
    table, first, name = (
        page.locator(one).first.bounding_box()
        for one in (
            "[aria-labelledby=dimensions]",
            "[aria-labelledby=dimensions] td",
            "[aria-labelledby=dimensions] th",
        )
    )
    assert name["width"] <= table["width"] / 2 and first["x"] + first["width"] <= table["x"] + table["width"]
    page.close()


def test_no_error_is_below_nothing():
    """Student's interval of few, unlike errors reaches below 0, where no error is."""
    assert over_episodes([0.01, 0.02, 0.3]).low == 0.0 and over_episodes([0.3, 0.31, 0.32]).low > 0.2


def test_one_is_no_plural(tmp_path):
    one = write(tmp_path / "one", [5])
    told = [render(one), compare_page(compare_errors([one, one]), [one, one])]
    for html in told:
        said = re.sub(r"<(script|style).*?</\1>|<[^>]+>", "", html, flags=re.S)
        assert not re.search(r"(?<![\d.])1 (common )?(episodes|observations|actions)\b", said)
    assert "1 episode, 35 observations" in told[0] and "1 common episode of demos" in told[1]


@pytest.mark.parametrize("width", [1280, 390])
def test_chromium_draws_the_curves_of_the_episode_that_is_picked(chromium, tmp_path, width):
    write(
        tmp_path / "record",
        range(4),
        names=("a joint whose name is long enough to wrap on a phone", "gripper", "still"),
    )
    path = write_error_report(read_errors(tmp_path / "record"))
    page = chromium.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert page.locator("#curve-grid svg.chart").count() == DIMS
    first = page.locator("#curve-grid polyline").first.get_attribute("points")
    page.select_option("#pick-episode", index=2)
    assert page.locator("#curve-grid polyline").first.get_attribute("points") != first
    assert "seconds" in page.inner_text("#curve-grid") and "gripper, no unit" in page.inner_text("#curve-grid")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert said == [] and [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    page.close()
