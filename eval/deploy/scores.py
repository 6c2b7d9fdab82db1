"""Who says how an episode went: a person in the terminal, a line of a file or pipe, or the scene of an emulated arm.

Nothing is guessed: an episode that nobody scored is recorded as that, by the column `episode.scored`.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ...hardware.consent import on_terminal
from ..demos.arm import Words
from ..rollout.rollout import Result

SCORED = "episode.scored"
NOBODY, PERSON, SCENE = 0.0, 1.0, 2.0  # values of the column
SUCCESS, FAILURE, DISCARD, UNSCORED = "s", "f", "d", ""
SAID = {"success": SUCCESS, "failure": FAILURE, "discard": DISCARD, "unscored": UNSCORED}
ANSWERS = {**SAID, SUCCESS: SUCCESS, FAILURE: FAILURE, DISCARD: DISCARD, UNSCORED: UNSCORED}
TOLD = "s or success, f or failure, d or discard, an empty line or unscored"


class ScoreError(ValueError):
    """A line that is no score."""


def check_scores(path: str) -> None:
    """Refuse what is no file of scores before anything moves; a pipe is read later. Raises ScoreError, OSError."""
    if not Path(path).exists():
        raise FileNotFoundError(f"--score {path}: there is no such file; one line an episode: {TOLD}")
    if Path(path).is_file():
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
            _answer(line, f"line {number} of {path}")


def _answer(line: str, where: str) -> str:
    word = line.strip().lower()
    if word not in ANSWERS:
        raise ScoreError(f"{where}: '{word}' is no score; it is {TOLD}")
    return ANSWERS[word]


class Scores:
    """Scores at the ends of episodes, from `path` (file or pipe, one line an episode), or else from the terminal.

    Args:
        skip: lines of a file that belong to episodes which are there already; a pipe gives none twice.
        asks: whether the terminal is asked where there is no path.
    """

    def __init__(self, path: str | None, words: Words, skip: int = 0, asks: bool = False):
        self._path, self._words, self._asks = path, words, asks
        self._file: int | None = None
        self._lines: Iterator[str] | None = None  # of a file; a pipe's come one by one
        if path is None:
            return
        if Path(path).is_file():
            self._lines = iter(Path(path).read_text(encoding="utf-8").splitlines()[skip:])
            return
        self._file = os.open(path, os.O_RDONLY)
        self._words = Words(self._file)

    @property
    def listed(self) -> bool:
        """Whether each episode has a line of its own."""
        return self._path is not None

    def next(self) -> str:
        """The score of the episode that ended: s, f, d, or nothing where nobody gives one. Waits for it."""
        if self._path is not None:
            return _answer(self._wait() or "", f"--score {self._path}")
        if not self._asks or self._words.over or not on_terminal():
            return UNSCORED
        print(f"how did it go? {SUCCESS}: done, {FAILURE}: failed, {DISCARD}: discard, ENTER: not scored", flush=True)
        while True:
            try:
                return _answer(self._wait() or "", "the terminal")
            except ScoreError as error:
                print(error, flush=True)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _wait(self) -> str | None:
        if self._lines is not None:
            return next(self._lines, None)
        while (line := self._words.next()) is None and not self._words.over:
            time.sleep(0.02)
        return line


def rescored(result: Result, success: bool) -> Result:
    """The result with a person's score in place of what the world measured."""
    row = dict(result.row) | {
        "success": success,
        "first_success": result.row["length"] if success else -1,
        "best_progress": float(success),
        "final_progress": float(success),
    }
    episode = result.episode
    if episode is not None:
        won, reward, progress = (values.copy() for values in (episode.success, episode.reward, episode.progress))
        won[:] = False
        won[-1], reward[-1], progress[-1] = success, success, success
        episode = dataclasses.replace(episode, success=won, reward=reward, progress=progress)
    return dataclasses.replace(result, row=row, episode=episode)
