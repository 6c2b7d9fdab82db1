"""Scores of deployed episodes: from a file, a pipe, the scene, or nobody."""

import os
import threading

import numpy as np
import pytest

from understudy.eval.demos.arm import Words
from understudy.eval.deploy.scores import SCORED, ScoreError, Scores, check_scores
from understudy.policies.data.open import open_dataset

from .test_deploy import deploy, saved  # noqa: F401

pytest.importorskip("daqp", reason="the guard's quadratic program")


def test_a_file_scores_episodes_and_goes_on_at_its_line(saved, tmp_path, capsys):  # noqa: F811
    scores, out = tmp_path / "scores.txt", tmp_path / "data"
    scores.write_text("success\ndiscard\nfailure\n\n")
    policy = saved()
    how = {"seconds": 0.2, "delay": 2, "out": str(out), "score": str(scores), "env_seed": 1000}
    deploy(policy, episodes=1, **how)
    deploy(policy, episodes=4, resume=True, **how)
    said = capsys.readouterr().out
    assert "1000: 6 steps, done" in said and "1001: 6 steps, discarded" in said and "1002: 6 steps, not done" in said
    data = open_dataset(str(out))
    last = data.starts + data.lengths - 1
    assert data.columns[SCORED][last].ravel().tolist() == [1, 1, 2]  # the fourth by the scene
    assert data.columns["next.success"][last].ravel().tolist() == [1, 0, 0]
    assert np.array_equal(data.columns["next.reward"][last].ravel()[:2], [1, 0])


def test_a_line_that_is_no_score_is_refused_before_anything_moves(tmp_path):
    (tmp_path / "scores").write_text("success\nperhaps\n")
    with pytest.raises(ScoreError, match="line 2 of .*scores: 'perhaps' is no score; it is s or success"):
        check_scores(str(tmp_path / "scores"))
    with pytest.raises(FileNotFoundError, match="one line an episode"):
        check_scores(str(tmp_path / "none"))


def test_a_pipe_is_waited_for_and_its_end_scores_nothing(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_scores(str(pipe))
    threading.Thread(target=lambda: pipe.write_text("f\n"), daemon=True).start()
    scores = Scores(str(pipe), Words())
    assert [scores.next(), scores.next()] == ["f", ""]
    scores.close()
