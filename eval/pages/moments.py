"""Where a failed episode was last near its best: the step that its film is stopped at.

Reads the progress after each control step and nothing else. That is where to begin looking, not why it failed: a stage
that progress does not see (a grip that is loose, a detour) is not found. Knows nothing of pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

NEAR = 0.05  # of progress: within so much of the best counts as being there
LATE = 0.95  # of the episode: what came near its best only after that was still on its way
RETURNS = 3  # times that progress leaves its best and comes back, from which on it is said not to have settled
RULE = (
    f"the last step within {NEAR:g} of the best progress, where progress fell afterwards (lost ground); "
    "otherwise the step from which it stayed that near (no further progress, "
    f"or still rising at the end if that was in the last {100 * (1 - LATE):.0f} % of the episode); "
    f"the best step itself, where progress came back to its best {RETURNS} times or more (never settled)"
)
KIND_WORDS = {
    "lost": "lost ground",
    "stuck": "no further progress",
    "late": "still rising at the end",
    "unsettled": "never settled",
    "error": "ended in an error",
    "success": "succeeded",
}


@dataclass(frozen=True)
class Moment:
    """A step of an episode that is worth looking at."""

    kind: str  # lost | stuck | late | unsettled | success | error
    step: int  # control steps done, 0..length
    progress: float = 0.0  # after that step

    @property
    def words(self) -> str:
        """What happened, to be followed by "at step N"."""
        return KIND_WORDS[self.kind]


def failing_moment(progress: Sequence[float]) -> Moment:
    """The step at which a failed episode was last near its best, see `RULE`; step 0 of an episode without steps."""
    curve = np.asarray(progress, np.float64)
    if not len(curve):
        return Moment("stuck", 0)
    near = curve >= curve.max() - NEAR
    returns = int((near[1:] & ~near[:-1]).sum()) - (not near[0])  # without the first time
    if returns >= RETURNS:
        kind, at = "unsettled", int(curve.argmax())
    elif not near[-1]:
        kind, at = "lost", np.flatnonzero(near)[-1]
    else:
        at = np.flatnonzero(~near)[-1] + 1 if not near.all() else 0
        kind = "late" if at and at + 1 >= LATE * len(curve) else "stuck"
    return Moment(kind, int(at) + 1, float(curve[at]))


def moment(row: Mapping) -> Moment:
    """The moment of an episode: its first success, its error, or where it was last near its best."""
    if row["error"]:
        return Moment("error", row["length"], row["final_progress"])
    if row["success"]:
        return Moment("success", row["first_success"], 1.0)
    return failing_moment(row["progress"])


def failures_text(moments: Sequence[Moment]) -> str:
    """The failures among the moments, counted in words; "" where there is none."""
    failures = [failure for failure in moments if failure.kind != "success"]
    if not failures:
        return ""
    counts = {kind: sum(failure.kind == kind for failure in failures) for kind in KIND_WORDS}
    parts = [f"{count} {KIND_WORDS[kind]}" for kind, count in counts.items() if count]
    noun = "failure" if len(failures) == 1 else "failures"
    return f"{len(failures)} {noun}: {', '.join(parts)}."
