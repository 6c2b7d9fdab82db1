"""The run-time alarm: a policy's signals (`monitor.py`) become one score and a threshold of a stated false-alarm rate.

Each signal x at replanning k is made comparable, z = (log(x + FLOOR) - centre[k]) / scale[k], with centre and scale of
successful episodes at the same replanning. The mean of the z that can tell is summed as in a CUSUM (Page 1954),

    S[k] = max(0, S[k-1] + z[k] - slack),      S[-1] = 0,

so that trouble which lasts counts more than one bad plan. The alarm rings when S exceeds the threshold: the
ceil((n + 1)(1 - alpha))-th smallest of the greatest S of n other successful episodes (split conformal prediction, Vovk
et al. 2005; per episode as in FAIL-Detect, Xu et al. 2025). Hence of fresh successful episodes from the same world a
share of at most alpha rings, whatever the distribution of S, on average over calibrations; nothing is promised of
failures, nor of another world. One conformal step over one combined score: no correction for several signals.

Pure: no network, no state beyond what is passed in. A file of JSON holds it; it names the weights and settings that it
was calibrated for, and is refused for others.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...configs.documents import check_fields, read_document, sealed
from ...configs.files import replace_text
from ...configs.former import AGENT, renamed

FORMAT, KIND = 1, "alarm"
SIGNALS = ("recall", "spread", "drift")
FLOOR = 1e-4  # added to a signal before its logarithm: (1 % of half the action range) squared
NARROW = 0.05  # least scale of a logarithm: a signal that hardly varied among successes does not ring at a whiff
SUPPORT = 8  # successes that a replanning needs for a centre and scale of its own; later ones use the last that has
LOOSE = (
    "policy_seed",
    "block",
    "threads",
    "device",
    "monitor",
    "alarm",
)  # settings that may differ from the calibration's


class AlarmError(ValueError):
    """An alarm that cannot be calibrated, read or used; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A calibrated alarm. The fields are the keys of its file, beside format and kind."""

    policy: str  # fingerprint of the weights and settings
    agent: Mapping  # how the policy acted: n_action_steps, candidates, critic, sampler, ..
    candidates: int  # N plans that were looked at
    world: Mapping  # fingerprint of the world it was calibrated in
    signals: Sequence[str]  # which of SIGNALS count
    centre: Mapping[str, Sequence[float]]  # signal -> mean of its logarithm at each replanning
    scale: Mapping[str, Sequence[float]]  # signal -> standard deviation
    slack: float
    threshold: float
    clock: int  # control steps; a clock of the same alpha: so long a share of 1 - alpha of the successes took at most
    alpha: float  # false alarms per successful episode
    n: int  # successful episodes that set the threshold
    fit: int  # others that set centre and scale
    starts: str = ""  # start ids of both

    def after(self, score: float, replan: int, signals: np.ndarray) -> float:
        """The score at replanning `replan` (0-based), given the one before and the (S,) signals now (NaN: unknown)."""
        deviations = []
        for name in self.signals:
            value, centre, scale = signals[SIGNALS.index(name)], self.centre[name], self.scale[name]
            at = min(replan, len(centre) - 1)
            if math.isfinite(value) and math.isfinite(centre[at]):
                deviations.append((math.log(max(value, 0.0) + FLOOR) - centre[at]) / scale[at])
        return max(0.0, score + sum(deviations) / len(deviations) - self.slack) if deviations else score

    def scores(self, signals: np.ndarray) -> np.ndarray:
        """(K,) scores of an episode of K replannings with (K, S) signals."""
        scores, score = np.zeros(len(signals)), 0.0
        for replan, values in enumerate(signals):
            score = scores[replan] = self.after(score, replan, values)
        return scores

    def check(self, policy: str, agent: Mapping, formerly: str | None = None) -> None:
        """Refuse other weights, or another way to act, than it was calibrated for.

        Args:
            policy: fingerprint of the weights.
            formerly: the one that earlier versions gave them, if another.

        Raises:
            AlarmError: naming what differs.
        """
        if self.policy not in (policy, formerly):
            raise AlarmError(f"the alarm was calibrated for weights {self.policy}, these are {policy}; calibrate again")
        then, now = _settings(self.agent), _settings(agent)
        for name in sorted(then.keys() | now.keys()):
            if then.get(name) != now.get(name):
                raise AlarmError(
                    f"the alarm was calibrated with {name} = {then.get(name)}, now it is {now.get(name)}; "
                    "act as then, or calibrate again"
                )

    def save(self, path: str | Path) -> Path:
        """Write beside and rename. Raises FileExistsError."""
        path = Path(os.path.expandvars(path))
        if path.exists():
            raise FileExistsError(f"'{path}' exists already; give another --out")
        values = {"format": FORMAT, "kind": KIND} | dataclasses.asdict(self)
        return replace_text(path, json.dumps(sealed(values), indent=1) + "\n")


def load_alarm(path: str | Path) -> Alarm:
    """Read an alarm's file.

    Raises:
        FileNotFoundError: no such file.
        AlarmError: something else, or written by a newer version.
    """
    path = Path(os.path.expandvars(path))
    if not path.is_file():
        raise FileNotFoundError(f"no alarm at '{path}'; make one with `understudy calibrate RECORD --out FILE`")
    values = read_document(path, KIND, FORMAT, AlarmError)
    known = {item.name for item in dataclasses.fields(Alarm)}
    if wrong := sorted(known ^ set(values)):
        raise AlarmError(f"'{path}' is damaged: '{wrong[0]}' is {'missing' if wrong[0] in known else 'unknown'}")
    check_fields(Alarm, values, path, AlarmError)
    return Alarm(**values | {"agent": renamed(values["agent"], AGENT)})


def conformal(values: Sequence[float], alpha: float) -> float:
    """The ceil((n + 1)(1 - alpha))-th smallest of n values: a fresh one exceeds it with probability at most alpha.

    Raises:
        AlarmError: alpha outside (0, 1), or fewer values than alpha needs.
    """
    if not 0 < alpha < 1:
        raise AlarmError(f"the false-alarm rate alpha must lie between 0 and 1, got {alpha}")
    n = len(values)
    rank = math.ceil((n + 1) * (1 - alpha) - 1e-9)
    if rank > n:
        need = math.ceil(1 / alpha - 1 - 1e-9)
        raise AlarmError(
            f"alpha {alpha:g} needs {need} successful episodes to set the threshold, there are {n}; "
            f"record more, or take alpha {1 / (n + 1):.2g} or more"
        )
    return float(sorted(values)[max(rank, 1) - 1])


def normal_course(episodes: Sequence[np.ndarray], name: str) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of a signal's logarithm at each replanning, over (K, S) signals of episodes.

    A replanning counts while at least SUPPORT episodes (or all, of fewer) tell there; before the first such one the
    centre is NaN, which is no evidence. None: the signal tells nowhere, or never varies.
    """
    column = SIGNALS.index(name)
    longest = max((len(one) for one in episodes), default=0)
    table = np.full((len(episodes), longest), np.nan)
    for row, one in zip(table, episodes, strict=True):
        row[: len(one)] = np.log(np.maximum(one[:, column], 0) + FLOOR)
    supported = np.isfinite(table).sum(0) >= max(2, min(SUPPORT, len(episodes)))
    if not supported.any() or np.nanmax(table) == np.nanmin(table):
        return None
    last = np.flatnonzero(supported)[-1] + 1
    table[:, ~supported] = 0.0
    centre = np.where(supported, np.nanmean(table, 0), np.nan)[:last]
    scale = np.where(supported, np.maximum(np.nanstd(table, 0, ddof=1), NARROW), 1.0)[:last]
    return centre.tolist(), scale.tolist()


def _settings(agent: Mapping) -> dict:
    return {name: value for name, value in json.loads(json.dumps(dict(agent))).items() if name not in LOOSE}
