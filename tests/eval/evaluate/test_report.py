"""The report: one self-contained file that holds the numbers, curves and films of its record."""

import base64
import io
import json
import re
import shlex
import xml.dom.minidom
from pathlib import Path

import numpy as np
import pytest
import yaml

from understudy.eval.evaluate.curve import Judgement, curves
from understudy.eval.evaluate.report import CURVES, progress_chart, render, write_report
from understudy.eval.ledger.origin import command
from understudy.eval.ledger.record import Record, RecordWriter
from understudy.eval.ledger.summary import summarize
from understudy.eval.ledger.table import table_of
from understudy.eval.pages.charts import Line, chart
from understudy.eval.pages.moments import Moment, failing_moment, failures_text, moment
from understudy.eval.rollout.film import choose
from understudy.policies.data.encode import write_mp4

STEPS = 20


def row(start, won, **changes):
    progress = np.linspace(0.1, 1.0 if won else 0.6, STEPS, dtype=np.float32).tolist()
    values = {
        "initial_conditions": "point", "env_seed": start, "policy_seed": 0, "task": "point", "success": won,
        "first_success": STEPS if won else -1, "best_progress": progress[-1], "final_progress": progress[-1],
        "return": 1.5, "length": STEPS, "progress": progress, "terminated": won, "truncated": not won,
        "wall_physics": 0.3, "wall_render": 0.1, "wall_policy": 0.6, "attempt": 0, "worker": 1, "video": "",
        "error": "", "labels": "{}",
    }  # fmt: skip
    return values | changes


@pytest.fixture
def record(tmp_path):
    """17 of 20 succeed; one of the failures is filmed."""
    manifest = {
        "policy": {"path": "runs/<b>&co", "type": "diffusion", "step": 40, "config": {"network": {"width": 16}}},
        "starts": {"set": "mujoco/point", "count": 20},
        "world": {"task": "point", "config": {"secret": "repeated"}},
    }
    with RecordWriter(tmp_path / "record", manifest) as writer:
        for start in range(20):
            writer.add(row(start, won=start >= 3))
        (tmp_path / "record" / "videos").mkdir()
        frames = np.random.default_rng(0).integers(0, 255, (STEPS, 64, 64, 3), np.uint8)
        write_mp4(tmp_path / "record" / "videos" / "000001.mp4", frames, 10.0)
        writer.set_video(1, "videos/000001.mp4")
        writer.note(wall=4.0, acted=20)
        return writer.close(complete=True)


def test_the_numbers_are_in_text_and_report(record):
    text, html = summarize(record).text(), render(record)
    for number in ("0.850 [0.640, 0.948]", "17 of 20", "5.00 episodes/s", "physics 30 %, render 10 %, policy 60 %"):
        assert number in text
    for number in ("85.0 %", "0.640 – 0.948", "17 of 20", "0.940", "mujoco/point", "config.network.width"):
        assert number in html
    assert html.count("<tr>") == 21


def test_the_report_needs_no_other_file(record):
    html = render(record)
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html) and "http" not in html.replace("http-equiv", "")
    assert "runs/&lt;b&gt;&amp;co" in html and "<b>&co" not in html
    assert "default-src 'none'" in html
    assert html.count("repeated") == 1, "what the manifest says twice stands in the command alone"


def test_the_film_inside_plays(record):
    import av

    data = re.search(r'<video src="data:video/mp4;base64,([^"]+)"', render(record)).group(1)
    with av.open(io.BytesIO(base64.b64decode(data))) as container:
        frames = list(container.decode(video=0))
        stream = container.streams.video[0]
        assert len(frames) == STEPS and stream.codec_context.name == "h264" and stream.average_rate == 10
        assert stream.codec_context.pix_fmt == "yuv420p"


def test_charts_are_well_formed_and_training_is_drawn(record, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        "".join(
            json.dumps({"step": step, "loss": 1 / (1 + step), "validation/loss": 0.5}) + "\n" for step in range(100)
        )
        + '{"step": 100, "lo'
    )
    html = render(record, run=tmp_path)
    charts = re.findall(r'<svg class="chart".*?</svg>', html, re.S)
    assert len(charts) == 3 and "held-out loss" in html and "not a rate of success" in html and "It rose" not in html
    for svg in charts:
        assert xml.dom.minidom.parseString(svg).getElementsByTagName("polyline")
        assert not re.search(r"nan|inf", svg)
    assert len(re.findall(r'<polyline class="thin (success|failure)"', html)) == 20


def test_a_held_out_loss_that_rises_is_explained(record, tmp_path):
    lines = [json.dumps({"step": s, "loss": 0.5, "validation/loss": 0.1 + s / 100}) for s in range(9)]
    (tmp_path / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
    assert "It rose from 0.1 to 0.18 here." in render(record, run=tmp_path)


def test_seconds_stand_beside_steps_where_the_rate_is_known(record):
    known = Record(record.root, record.manifest | {"rate": 10.0}, record.table)
    assert "20 steps (2.0\u00a0s)" in summarize(known).text() and ">2 s</text>" in render(known)
    assert "20 steps" in summarize(record).text() and " s</text>" not in render(record)


def test_successes_at_reset_are_told_and_names_are_titles(record):
    rows = record.table.to_pylist()
    for one in rows[10:14]:
        one["first_success"] = 0
    named = Record(record.root, record.manifest | {"name": "my <best> policy"}, table_of(rows))
    assert "4 of 20 had succeeded before any action" in summarize(named).text()
    html = render(named)
    assert "4 of 20 episodes had succeeded at reset" in html and "Without them: 13 of 16" in html
    assert "<h1>my &lt;best&gt; policy</h1>" in html


def test_errors_and_early_ends_are_said(record):
    rows = record.table.to_pylist()[:10]
    rows[0] |= {"error": "RuntimeError: the <simulator> broke", "progress": [], "length": 0}
    html = render(Record(record.root, record.manifest, table_of(rows)))
    assert "1 of 10 episodes ended in an error" in html and "stopped early: 10 of 20" in html
    assert "the &lt;simulator&gt; broke" in html


def test_a_record_without_success_progress_or_policy_has_a_report(tmp_path):
    rows = [row(4, False, length=0, progress=[], best_progress=0.0, final_progress=0.0, error="broken")]
    record = Record(tmp_path, {}, table_of(rows))
    assert "0.0 %" in write_report(record).read_text()


def test_an_empty_record_has_none(tmp_path):
    with pytest.raises(ValueError, match="holds no episode"):
        write_report(Record(tmp_path, {}, table_of([])))


@pytest.mark.parametrize(
    "progress, kind, step",
    [
        ([0.2, 0.5, 0.8, 0.8, 0.3, 0.1], "lost", 4),  # the last step before the drop
        ([0.2, 0.8, 0.3, 0.77, 0.2], "lost", 4),  # nearly regained, and lost again
        ([0.2, 0.5, 0.78, 0.8, 0.79, 0.8], "stuck", 3),  # nothing improved after it
        ([0.2, 0.8, 0.3, 0.79, 0.79, 0.78], "stuck", 4),  # what was lost was regained
        ([0.0, 0.0, 0.0], "stuck", 1),
        ([*(0.9 * np.linspace(0, 1, 100) ** 3)], "late", 99),
        ([0.2, *[0.8, 0.7] * 5, 0.81, 0.7, 0.8], "unsettled", 12),
        ([], "stuck", 0),
    ],
)
def test_the_moment_of_failure(progress, kind, step):
    found = failing_moment(np.float32(progress))
    assert (found.kind, found.step) == (kind, step)
    assert found.progress == pytest.approx(progress[step - 1] if step else 0)


def test_moments_of_episodes_and_their_count():
    moments = [moment(row(0, True)), moment(row(1, False)), moment(row(2, False, error="broken", length=7))]
    assert moments[0] == Moment("success", STEPS, 1.0) and moments[2].kind == "error" and moments[2].step == 7
    assert (
        failures_text(moments) == "2 failures: 1 still rising at the end, 1 ended in an error."
        and failures_text(moments[:1]) == ""
    )


def test_the_command_that_repeats_it_is_one_line_to_a_shell():
    world = {"type": "gym", "task": "a --odd 'name'", "horizon": 9}
    manifest = {"policy": {"path": "runs/a b"}, "starts": {"first": 5, "count": 7}, "world": {"config": world}}
    words = shlex.split(command(manifest).replace("\\\n", ""))
    assert words[:4] == ["understudy", "eval", "--policy", "runs/a b"]
    assert yaml.safe_load(words[words.index("--world") + 1]) == world
    assert command(manifest).count("\n") == 5 and command({}) == ""


def test_films_are_chosen_failures_first():
    rows = [{"env_seed": start, "success": start % 3 != 0, "error": "x" if start == 0 else ""} for start in range(12)]
    assert choose(rows, 4) == [3, 6, 1, 2]
    assert choose(rows, 0) == []
    assert choose(rows[1:3], 6) == [1, 2]
    assert choose([row for row in rows if not row["success"]], 6) == [3, 6, 9]


def test_a_logarithmic_chart_names_its_decades():
    svg = chart([Line([0, 1, 2], [0.02, 0.5, 3.0], "a")], x_label="x", y_label="y", log=True)
    assert all(f">{decade}<" in svg for decade in ("0.01", "0.1", "1", "10"))


def judged(step, won, n=20):
    rows = [row(start, start < won) for start in range(n)]
    return Judgement(step, summarize(Record(Path("a"), {}, table_of(rows))), "")


def test_a_curve_over_training_has_a_dot_for_each_checkpoint_and_a_gap_for_what_is_missing():
    judgements = [judged(10, 5), judged(20, 12), Judgement(30, None, "skipped: busy"), judged(40, 15)]
    success, progress = curves(judgements)
    assert success.count("<circle") == progress.count("<circle") == 3
    assert success.count("<polyline") == 2 and success.count('class="bar') == 1
    assert curves(judgements[:1]) == []


def test_failures_are_drawn_before_successes_where_not_all_curves_are(tmp_path):
    with RecordWriter(tmp_path / "record", {"policy": {}, "starts": {}, "world": {}}) as writer:
        for start in range(CURVES + 20):
            writer.add(row(start, won=start < CURVES + 18))
        record = writer.close(complete=True)
    drawn = progress_chart(record, [])
    assert drawn.count('class="thin failure"') == 2 + 1 and drawn.count('class="thin success"') == CURVES - 2 + 1
    assert f"mean of all {CURVES + 20} episodes, {CURVES} of them drawn" in drawn
