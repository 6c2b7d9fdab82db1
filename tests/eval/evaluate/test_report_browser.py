"""The report in a real headless Chromium: it renders, films play and stand where the episode failed, tables sort."""

import re
import time

import numpy as np
import pytest

from understudy.eval.evaluate.report import write_report
from understudy.eval.ledger.record import RecordWriter
from understudy.policies.data.encode import write_mp4

STEPS, RATE = 40, 10.0
LOST = np.r_[np.linspace(0.1, 0.8, 22), np.linspace(0.7, 0.2, 18)]  # best after step 22; 0.767 at step 21
GREY = 5  # of 255, brighter with each frame: what a frame shows says which one it is


def row(start, progress, **changes):
    won = bool(progress[-1] == 1.0)
    values = {
        "initial_conditions": "point", "env_seed": start, "policy_seed": 0, "task": "point", "success": won,
        "first_success": len(progress) if won else -1, "best_progress": float(np.max(progress)),
        "final_progress": float(progress[-1]), "return": -1.5 * (start - 10), "length": len(progress),
        "progress": [float(one) for one in progress], "terminated": won, "truncated": not won,
        "wall_physics": 0.3, "wall_render": 0.1, "wall_policy": 0.6, "attempt": 0, "worker": 0, "video": "",
        "error": "", "labels": "{}",
    }  # fmt: skip
    return values | changes


def write_film(path, steps):
    """Frame k is all of one grey, `GREY` brighter than the one before it."""
    path.parent.mkdir(exist_ok=True)
    write_mp4(path, [np.full((64, 64, 3), 20 + GREY * k, np.uint8) for k in range(steps + 1)], RATE)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two failures, filmed, and ten successes, one of them filmed."""
    root = tmp_path_factory.mktemp("report") / "record"
    manifest = {
        "policy": {"path": "runs/a-policy-whose-name-is-rather-long/checkpoints/00040000", "type": "diffusion"},
        "world": {"type": "point", "config": {"type": "point"}},
        "starts": {"set": "point/a_task", "first": 0, "count": 12},
        "versions": {"a-package-with-a-long-name": "1.2.3+and.a.very.long.local.version.that.does.not.end"},
    }
    with RecordWriter(root, manifest) as writer:
        writer.add(row(3, LOST, video="videos/3.mp4"))
        writer.add(row(4, np.minimum(np.linspace(0.2, 1.4, STEPS), 0.5), video="videos/4.mp4"))
        for start in range(5, 15):
            writer.add(row(start, np.linspace(0.1, 1.0, 20 + start), video="videos/5.mp4" if start == 5 else ""))
        for name, steps in (("3", STEPS), ("4", STEPS), ("5", 25)):
            write_film(root / "videos" / f"{name}.mp4", steps)
        return write_report(writer.close(complete=True))


class Visit:
    """A page that was opened, what it said on the console and what it asked for."""

    def __init__(self, browser, path, width=1280, height=900, scheme="light"):
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


@pytest.fixture
def visit(chromium, report):
    with Visit(chromium, report) as one:
        yield one


@pytest.fixture
def films(visit):
    """The page with its films ready; skipped where this Chromium cannot play h264."""
    if not visit.page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.64001f\"')"):
        pytest.skip("this Chromium was built without h264")
    visit.page.locator("#film-3").scroll_into_view_if_needed()
    for name, step, steps in (("#film-3", 22, STEPS), ("#film-4", 10, STEPS), ("#film-5", 0, 25)):
        wait_for_step(visit.page, name, step, steps)
    return visit.page


def shown(page, name):
    """Brightness of the middle of what a film shows, and its step by the counter."""
    grey = page.evaluate(
        """name => { const canvas = document.createElement("canvas"), video = document.querySelector(name + " video");
        canvas.width = canvas.height = 64; const context = canvas.getContext("2d");
        context.drawImage(video, 0, 0, 64, 64); return context.getImageData(32, 32, 1, 1).data[0] }""",
        name,
    )
    return grey, page.inner_text(f"{name} output")


def wait(page, expression):
    """Until it holds. (`wait_for_function` evaluates text inside the page, which the page's policy forbids.)"""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never became true: {expression}")


def wait_for_step(page, name, step, steps=STEPS):
    """Until a film shows a step and its counter says so: both change some time after what was asked for."""
    wait(
        page,
        f"""(() => {{ const film = document.querySelector("{name}"), video = film.querySelector("video");
        return video.readyState >= 2 && !video.seeking
            && Math.floor(video.currentTime / video.duration * {steps + 1} + 1e-6) === {step}
            && film.querySelector("output").textContent === "{step} / {steps}" }})()""",
    )


def test_it_renders_without_a_word_or_a_request(visit, report):
    wait(visit.page, "document.readyState === 'complete'")
    visit.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert visit.said == []
    assert [url for url in visit.asked if not url.startswith(("data:", "blob:"))] == [report.as_uri()]
    assert visit.page.title() and "10 of 12 episodes succeeded" in visit.page.inner_text(".verdict")
    boxes = visit.page.evaluate(
        "[...document.querySelectorAll('svg.chart')].map(one => one.getBoundingClientRect().height)"
    )
    assert len(boxes) == 2 and min(boxes) > 100


def test_nothing_can_be_fetched(visit):
    refused = "fetch('https://example.org/').then(() => 'fetched', () => 'refused')"
    assert visit.page.evaluate(refused) == "refused"


def test_films_stand_where_the_episode_failed(films):
    assert films.evaluate("[...document.querySelectorAll('video')].every(one => one.paused)")
    assert shown(films, "#film-3") == (pytest.approx(20 + GREY * 22, abs=2), "22 / 40")
    assert shown(films, "#film-4") == (pytest.approx(20 + GREY * 10, abs=2), "10 / 40")
    assert shown(films, "#film-5") == (pytest.approx(20, abs=2), "0 / 25")
    left = films.eval_on_selector_all(".mark", "marks => marks.map(mark => parseFloat(mark.style.left))")
    assert left == [55.0, 25.0, 100.0]


def test_films_far_from_the_screen_are_closed_and_come_back_where_they_were(films):
    films.focus("#film-3 .track")
    films.keyboard.press("ArrowLeft")
    wait_for_step(films, "#film-3", 21)
    films.set_viewport_size({"width": 1280, "height": 300})
    films.evaluate("scrollTo(0, document.body.scrollHeight)")
    wait(films, "!document.querySelector('#film-3 video').src")
    films.locator("#film-3").scroll_into_view_if_needed()
    wait_for_step(films, "#film-3", 21)
    assert shown(films, "#film-3") == (pytest.approx(20 + GREY * 21, abs=2), "21 / 40")


def test_a_film_plays_and_stops(films):
    films.evaluate("document.querySelector('#film-3 video').playbackRate = 0.0625")  # or a busy machine sees its end
    films.click("#film-3 .play")
    wait(films, "document.querySelector('#film-3 video').currentTime > 2.4")
    wait(films, "parseInt(document.querySelector('#film-3 output').textContent) > 22")
    films.click("#film-3 .play")
    wait(films, "document.querySelector('#film-3 video').paused")
    assert films.evaluate("document.querySelector('#film-4 video').paused")


def test_the_curve_of_progress_is_a_slider(films):
    films.focus("#film-3 .track")
    for key, step in (("ArrowLeft", 21), ("PageUp", 31), ("End", 40), ("Home", 0)):
        films.keyboard.press(key)
        wait_for_step(films, "#film-3", step)
        assert shown(films, "#film-3") == (pytest.approx(20 + GREY * step, abs=2), f"{step} / 40")
        assert films.get_attribute("#film-3 .track", "aria-valuenow") == str(step)
    films.click("#film-3 .jump")
    wait_for_step(films, "#film-3", 22)
    assert shown(films, "#film-3")[1] == "22 / 40"
    box = films.locator("#film-3 .track").bounding_box()
    films.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + 5)
    wait_for_step(films, "#film-3", 30)
    assert shown(films, "#film-3")[1] == "30 / 40"


def test_a_chart_tells_the_values_under_the_pointer(visit):
    box = visit.page.locator("svg.chart").first.bounding_box()
    told = visit.page.locator(".legend output").first
    assert told.inner_text() == ""
    visit.page.mouse.move(box["x"] + box["width"] * (640 - 14) / 640 - 2, box["y"] + box["height"] / 2)
    assert told.inner_text() == "0.83", "10 of 12 at the last step"
    visit.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    assert told.inner_text() == "0.00"
    visit.page.mouse.move(0, 0)
    assert told.inner_text() == ""


@pytest.mark.parametrize("column", ["env seed", "success", "at step", "failures", "return"])
def test_columns_sort_both_ways(visit, column):
    names = [name.strip() for name in visit.page.locator("thead th").all_inner_texts()]
    place = names.index(column)
    head = visit.page.locator("thead th").nth(place)

    def cells():
        return visit.page.eval_on_selector_all(
            "tbody tr", f"rows => rows.map(row => row.cells[{place}].textContent.trim())"
        )

    def value(text):
        return float(text) if re.fullmatch(r"-?[\d.]+", text) else text

    seen = {}
    for _ in range(2):
        head.locator("button").focus()
        visit.page.keyboard.press("Enter")
        seen[head.get_attribute("aria-sort")] = cells()
    assert set(seen) == {"ascending", "descending"}
    for way, texts in seen.items():
        there = [value(text) for text in texts if text != "–"]
        assert there == sorted(there, reverse=way == "descending")
        assert "–" not in texts[: len(there)], "what has no value comes last"
    assert len(set(seen["ascending"])) > 1 and len(seen["ascending"]) == 12


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(chromium, report, scheme):
    with Visit(chromium, report, 390, 844, scheme) as one:
        assert one.page.evaluate("document.documentElement.scrollWidth") == 390
        outside = one.page.evaluate(
            """[...document.querySelectorAll("main *")].filter(one => !one.closest(".table, pre, svg")
            && one.getBoundingClientRect().right > 390).map(one => one.tagName + "." + one.className)"""
        )
        assert outside == []
        wide, seen = one.page.eval_on_selector(".table", "box => [box.scrollWidth, box.clientWidth]")
        assert wide > seen, "the table scrolls inside"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible(chromium, contrast, report, scheme):
    """WCAG AA: text has at least 4.5 times the contrast of what lies behind it."""
    with Visit(chromium, report, scheme=scheme) as one:
        pairs = one.page.evaluate(
            """[...document.querySelectorAll("main *")].filter(one => !one.closest("svg, .size") &&
              [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())).map(one => {
              const style = getComputedStyle(one), clear = "rgba(0, 0, 0, 0)"; let behind = one;
              while (getComputedStyle(behind).backgroundColor === clear) behind = behind.parentNode;
              return [style.color, getComputedStyle(behind).backgroundColor, one.className || one.tagName] })"""
        )
    low = {(text, back, name) for text, back, name in pairs if contrast(text, back) < 4.5}
    assert len(pairs) > 100 and low == set()


def test_everything_to_press_has_a_name(visit):
    nameless = visit.page.evaluate(
        """[...document.querySelectorAll("button, a, [role=slider], video, [role=img]")].filter(
        one => !(one.getAttribute("aria-label") || one.textContent.trim())).map(one => one.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
