"""What a calibrated alarm is worth on fresh episodes, signal by signal and beside a clock, as a study for RESULTS.md.

    understudy study alarm "NAME=CALM,FRESH" ["NAME=CALM,FRESH" ...] --out OUT.json

CALM and FRESH are records of `understudy eval --monitor N`: CALM (env seeds 0-999) gives the alarm, FRESH is judged
by it. The same counts come from `understudy eval --alarm`, whose detections are those computed here from the recorded
signals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..evaluate.calibrate import Calibrate, calibrate, detections, greatest, signals_of
from ..evaluate.detections import Detection, Tally, tally
from ..ledger.record import Record, read_record
from ..ledger.study import Study

ALPHA = 0.05
SETS = (("recall", "spread", "drift"), ("recall",), ("spread",), ("drift",))
SLACK = 0.5  # the score's other variant, which forgets
SPLITS = 2000  # random divisions of all successes into those that set the threshold and those that are judged
COLUMNS = (
    "policy and world", "signals", "n", "false alarms", "successes", "chance of so many", "over splits",
    "detected", "failures", "steps before the end", "before the clock",
)  # fmt: skip
NOTES = (
    "Alarm for at most 5 % of successful episodes; n successes of the calibration (env seeds 0-999) set its threshold, "
    "half as many others the normal course of the signals; 8 action chunks looked at",
    "False alarms: share of the fresh successes that raised it; detected: share of the fresh failures; both with "
    "Wilson's 95 % interval",
    "Chance of so many: of as many false alarms or more, were all successes exchangeable; the rate is promised over "
    "calibrations, and a single one may be unlucky",
    f"Over splits: mean rate of false alarms when all successes beyond the normal course are divided anew at random, "
    f"{SPLITS:,} times: what conformal prediction promises, without the luck of one calibration",
    "The slack of the sum (0, of 0 to 4) was chosen by detection on PushT's env seeds 0-399, when the fresh episodes "
    "of push-and-return had been seen with 0.5; that is the last row of each",
    "A disturbed world is another one than the calibration's: no rate of false alarms is promised there",
    "Steps before the end: median over detected failures, in control steps",
    "The clock is raised after as many steps as 95 % of the successes take: it finds what runs out of time, late; the "
    "last column counts failures that the alarm found before it, or that it misses",
)


@dataclass(frozen=True, kw_only=True)
class AlarmStudy:
    """Judge calibrated alarms on fresh episodes."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("cases",)

    cases: tuple[str, ...]  # NAME=CALM,FRESH: a name and two monitored records
    out: Path  # file of the study

    def __post_init__(self):
        for case in self.cases:
            if case.partition("=")[2].count(",") != 1:
                raise ValueError(f"a case is NAME=CALM,FRESH with two records, not '{case}'")

    def run(self) -> None:
        named = (case.partition("=") for case in self.cases)
        print(study({name: tuple(paths.split(",")) for name, _, paths in named}).write(self.out))


def case(name: str, calm: Record, fresh: Record) -> Iterator[tuple]:
    """Rows of one policy in one world: the clock, all signals, each alone. A signal that does not tell is left out."""
    full = tuple(calibrate(calm, ALPHA, SETS[0], _slack()).signals)
    elsewhere = _world(calm) != _world(fresh)
    sets = [full, *(names for names in SETS[1:] if set(names) < set(full))]

    for place, signals in enumerate(sets):
        alarm = calibrate(calm, ALPHA, signals, _slack())
        alarms = detections(fresh, alarm)
        if place == 0:
            yield row(name, f"a clock: {alarm.clock} steps", alarm.n, tally(clocked(alarms, alarm.clock)), elsewhere)
        share = None if elsewhere else over_splits(alarm, calm, fresh)
        yield row(name, ", ".join(signals), alarm.n, tally(alarms, alarm.clock), elsewhere, share)

    # The score's other variant.
    alarm = calibrate(calm, ALPHA, full, SLACK)
    share = None if elsewhere else over_splits(alarm, calm, fresh)
    named = f"{', '.join(full)}, slack {SLACK}"
    yield row(name, named, alarm.n, tally(detections(fresh, alarm), alarm.clock), elsewhere, share)


def row(name: str, signals: str, n: int, counted: Tally, elsewhere: bool, share: float | None = None) -> tuple:
    """The cells of `COLUMNS`."""
    false, detected = (None if rate is None else tuple(rate) for rate in (counted.false_alarms, counted.detection))
    chance = None if elsewhere or false is None else round(so_many(counted.false, counted.successes, n), 4)
    share = None if share is None else round(share, 4)
    counts = counted.failures, counted.lead, counted.earlier
    return name, signals, n, false, counted.successes, chance, share, detected, *counts


def so_many(false: int, fresh: int, n: int, alpha: float = ALPHA) -> float:
    """Probability of `false` or more alarms in `fresh` successes, over calibrations on n, if all are exchangeable."""
    from scipy.stats import betabinom

    rank = math.ceil((n + 1) * (1 - alpha) - 1e-9)
    return float(betabinom.sf(false - 1, fresh, n + 1 - rank, rank))


def clocked(episodes: list[Detection], clock: int) -> list[Detection]:
    """The same episodes as a clock would have raised it."""
    return [Detection(episode.success, episode.length, clock if episode.length > clock else -1) for episode in episodes]


def over_splits(alarm, calm: Record, fresh: Record, seed: int = 0) -> float:
    """Mean share of false alarms over random divisions of the successes that did not give the normal course."""
    from ...policies.agent.alarm import conformal

    won = [row for row in calm.table.to_pylist() if row["success"]]
    rows = [row for i, row in enumerate(won) if i % 3] + [row for row in fresh.table.to_pylist() if row["success"]]
    scores = np.array([greatest(alarm, signals_of(row)) for row in rows])
    rng, rates = np.random.default_rng(seed), []
    for _ in range(SPLITS):
        mixed = rng.permutation(scores)
        rates.append((mixed[alarm.n :] > conformal(mixed[: alarm.n], ALPHA)).mean())
    return float(np.mean(rates))


def study(cases: dict[str, tuple[str, str]]) -> Study:
    """The study of named (CALM, FRESH) records."""
    rows, commands = [], []
    for name, paths in cases.items():
        calm, fresh = (read_record(path) for path in paths)
        rows += case(name, calm, fresh)
        commands += [watch_command(record) for record in (calm, fresh)]
    words = " ".join(f'"{name}={",".join(paths)}"' for name, paths in cases.items())
    command = "\n".join([*dict.fromkeys(commands), f"understudy study alarm {words} --out FILE.json"])
    return Study(title="A run-time alarm", command=command, columns=COLUMNS, rows=rows, notes=NOTES)


def watch_command(record: Record) -> str:
    """The command that makes a monitored record again."""
    from ..ledger.origin import repeat_command

    return repeat_command(record.manifest).replace("--out out/again", f"--videos 0 --out {record.root}")


def _world(record: Record) -> dict:
    return {key: value for key, value in record.manifest["world"].items() if key != "config"}


def _slack() -> float:
    return Calibrate.__dataclass_fields__["slack"].default
