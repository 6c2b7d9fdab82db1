"""What long work says of itself while it runs."""

import time

import pytest

from understudy.configs.progress import Progress


def test_work_that_is_done_anew_has_a_rate_all_the_same(monkeypatch, capsys):
    """Where a killed part begins again there is less than was counted at first; no rate is negative."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress("grid", 9000, "steps", done=5000, every=0) as progress:
        now[0] += 10
        progress.update(1000)
        now[0] += 10
        progress.update(1200)
        assert progress.rate == pytest.approx(20)
    said = capsys.readouterr().err
    assert "grid 1200/9000 steps, 20/s, 6:30 left" in said and "-" not in said
