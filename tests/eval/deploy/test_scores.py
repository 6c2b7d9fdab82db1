"""Scores of deployed episodes: from a file, a pipe, the scene, or nobody."""

import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from understudy.eval.demos.arm import Words
from understudy.eval.deploy.scores import NOBODY, PERSON, SCORED, ScoreError, Scores, check_scores
from understudy.eval.deploy.session import _scored
from understudy.eval.rollout.rollout import Result
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


def test_a_word_during_the_episode_counts_and_its_line_is_used_up(tmp_path):
    (tmp_path / "scores").write_text("failure\nsuccess")
    scores = Scores(str(tmp_path / "scores"), Words())
    told = SimpleNamespace(scored=True, discarded=False, broken=False)
    result = Result({"success": True, "length": 3}, np.zeros((3, 6), np.float32))
    assert _scored(result, told, scores, False) == (result, PERSON)
    told.scored = False
    now, by = _scored(Result({"success": False, "length": 3}, result.actions), told, scores, False)
    assert now.row["success"] and by == PERSON
    assert _scored(result, told, scores, False)[1] == NOBODY  # no line is left, and there is no scene
    told.broken = True
    assert _scored(result, told, scores, True)[1] == NOBODY  # an alarm ended it: that is no score
    scores.close()
