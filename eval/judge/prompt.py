"""What a vision-language model is asked about a film, and how its answer is read.

In parts, as arXiv 2511.11520 asks of its judge: who it is and how many views there are; the task, what counts as
success, and what counts as failure; the frames; and what to answer. The failures that are always listed are those of
imagined films, so that the judge also refuses what cannot have happened; the first success tells it not to be led
astray by what is imagined after the task is done.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

SUCCESSES = ("The task is completed in one of the frames. Ignore everything that happens after that.",)
FAILURES = (
    "The task is not completed in any of the frames.",
    "The frames are too unclear to tell.",
    "An object that the task needs is missing, or vanishes without being covered.",
    "An object moves without being touched, is there twice, or becomes another object.",
    "The scene or the camera changes from one frame to the next.",
)
APART = "The views of one frame contradict each other."  # a failure where there are several
ANSWER = "Did the robot succeed? Answer with one word, Yes or No, and nothing else."
ANSWERS = {"yes": True, "no": False}
CUT = " [cut off]"  # behind an answer that was longer than it might be, so that its beginning is no verdict
THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)  # of models that think aloud first
AROUND = " \t\r\n.!*_`\"'"  # what may stand around the word


@dataclass(frozen=True, kw_only=True)
class Rubric:
    """What a film is judged by."""

    task: str  # one sentence: what the robot was to do
    success: tuple[str, ...] = ()  # what counts as success, beside `SUCCESSES`
    failure: tuple[str, ...] = ()  # what counts as failure, beside `FAILURES`
    views: tuple[str, ...] = ()  # names of the cameras in each frame, from top to bottom; nothing: one view


@dataclass(frozen=True)
class Question:
    """One question about one film. Frames: uint8 (h, w, 3) RGB, in order."""

    system: str
    begin: str
    frames: tuple[np.ndarray, ...]
    end: str


def question(rubric: Rubric, frames: tuple[np.ndarray, ...]) -> Question:
    """The question about these frames of a film."""
    many = len(rubric.views) > 1
    views = f"{len(rubric.views)} camera views, from top to bottom: {', '.join(rubric.views)}" if many else "one view"
    system = (
        "You judge films of a robot. You decide whether it succeeded in its task, from frames of one film in the order "
        f"of time. Each frame shows {views}. The film may be imagined by a video model, and be wrong."
    )
    failures = (*FAILURES, *((APART,) if many else ()), *rubric.failure)
    begin = "\n".join(
        [
            f"Task: {rubric.task}",
            "",
            "It is a success if:",
            *(f"- {line}" for line in (*SUCCESSES, *rubric.success)),
            "",
            "It is a failure if:",
            *(f"- {line}" for line in failures),
            "",
            f"The {len(frames)} frames, from the first to the last:",
        ]
    )
    return Question(system, begin, frames, ANSWER)


def read_answer(text: str) -> bool | None:
    """Yes or no; None for anything else, which is no verdict. What a model thinks aloud first is passed over."""
    return ANSWERS.get(THOUGHT.sub("", text).strip(AROUND).casefold())


def chosen(count: int, most: int) -> list[int]:
    """Numbers of at most `most` frames of a film of `count`: the first, the last, and some spread evenly between."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist()


def enlarged(frame: np.ndarray, side: int) -> np.ndarray:
    """The frame, where its shorter side is below `side` pixels enlarged until it is not."""
    import cv2

    height, width = frame.shape[:2]
    if min(height, width) >= side:
        return np.ascontiguousarray(frame)
    scale = side / min(height, width)
    return cv2.resize(frame, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_CUBIC)
