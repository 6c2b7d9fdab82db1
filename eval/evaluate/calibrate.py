"""`understudy calibrate`: an alarm from a monitored record of a policy, and what a monitored evaluation says of it.

    understudy eval --policy RUN --world W --env_seed 0 --episodes 300 --monitor 8 --out CALM
    understudy calibrate CALM --alpha 0.05 --out alarm.json
    understudy eval --policy RUN --world W --alarm alarm.json --out REC

Of dreamt records, beside true ones of the same policies and starts, it makes a promise of what the dream may be
believed (`eval/world_model/promise.py`), and reads other dreamt records by it:

    understudy calibrate out/dreamt --truth out/true out/true_again --out promise.json
    understudy calibrate out/dreamt_new --promise promise.json --out believed.json

Of the successful episodes every third gives the normal course of the signals, the others set the threshold. What the
numbers mean, and what they promise: `policies/agent/alarm.py`. Acting and drawing are done elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...configs.world import REPORT_STARTS
from ..ledger.record import Record, read_record
from ..ledger.table import RecordError
from .detections import Detection, tally

if TYPE_CHECKING:
    from ...policies.agent.alarm import Alarm


EVERY = 3  # every third success gives the normal course


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Make a run-time alarm with a stated false-alarm rate from a monitored record, or a promise of a dream."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("record",)

    record: str  # record that `understudy eval --monitor N` wrote, from evaluation seeds 0-999
    out: str  # the alarm file to write
    alpha: float = 0.05  # share of successful episodes that may raise the alarm by mistake
    signals: tuple[str, ...] = ("recall", "spread", "drift")  # signals that count, of those that the policy gives
    slack: float = 0.0  # slack of the cumulative sum, in standard deviations of a signal; 0: plain sum
    truth: tuple[str, ...] = ()  # of a dream: true records of the same policies and starts, with repeats
    promise: str | None = None  # of a dream: a promise that was made before, to read these dreamt records by

    def run(self) -> None:
        if self.truth or self.promise:
            print("\n".join(calibrate_dream(self)))
            return
        record = read_record(self.record)
        alarm = calibrate(record, self.alpha, self.signals, self.slack)
        path = alarm.save(self.out)
        print(f"{path}: raised in at most {100 * alarm.alpha:g} % of successful episodes (n = {alarm.n})")
        print(f"signals         {', '.join(alarm.signals)}; score above {alarm.threshold:.4g}")
        print(f"a clock         of the same rate is raised after {alarm.clock} steps")
        print(f"on this record  {tally(detections(record, alarm)).text()}")


def calibrate_dream(config: Calibrate) -> list[str]:
    """Make a promise of dreamt and true records, or read dreamt ones by it; what the terminal says.

    Raises:
        ValueError: records that do not belong together, too few trainings, a model that may not rank.
    """
    from pathlib import Path

    from ...configs.files import replace_text
    from ..ledger.dreams import refuse_unproven, shared_noise
    from ..ledger.identity import open_records
    from ..world_model.cells import PromiseError, dream_of, gather
    from ..world_model.promise import Promise, as_json, promise, told

    _refuse_ignored(config)
    dreamt = open_records([config.record])
    world = dream_of(dreamt)
    refuse_unproven(dreamt)
    if config.promise:
        if config.truth:
            raise PromiseError("give --truth to make a promise, or --promise to read records by one")
        made, cells = Promise.load(config.promise), gather(dreamt)
        made.check(cells, world)
        return [*told(made, None, cells), str(replace_text(Path(config.out), as_json(made, cells)))]
    true = open_records(config.truth)
    cells, alike = gather(dreamt, true), shared_noise(dreamt, true)
    made, held = promise(cells, world, config.alpha)
    note = [f"note            {alike}; dream with another --policy_seed"] if alike else []
    return [*told(made, held, cells), *note, str(made.save(config.out))]


def _refuse_ignored(config: Calibrate) -> None:
    """Raise ValueError for settings that a promise would not read."""
    names = ("signals", "slack", *(("alpha",) if config.promise else ()))
    for name in (name for name in names if getattr(config, name) != getattr(Calibrate, name)):
        why = (
            "the promise says it" if name == "alpha" else "is of alarms; of a dream's signals those that help are taken"
        )
        raise ValueError(f"--{name}: {why}. Leave it out")


def calibrate(record: Record, alpha: float, signals: tuple[str, ...], slack: float) -> Alarm:
    """The alarm of a record.

    Raises:
        RecordError: not monitored, or not from initial conditions for choosing.
        AlarmError: too few successes for alpha; no signal that tells.
    """
    from ...configs.plugins import lookup
    from ...policies.agent.alarm import SIGNALS, Alarm, AlarmError, conformal, normal_course

    rows, starts = _calm(record)
    names = [lookup("signal", name, dict.fromkeys(SIGNALS)) or name for name in signals]

    courses = [signals_of(row) for row in rows]
    fit, held = courses[::EVERY], [course for i, course in enumerate(courses) if i % EVERY]
    conformal(range(len(held)), alpha)  # refuses before there is anything to fit

    normal = {name: centre_scale for name in names if (centre_scale := normal_course(fit, name))}
    if not normal:
        raise AlarmError(f"none of the signals {', '.join(names)} tells or varies in '{record.root}'")

    agent = dict(record.manifest["agent"])
    alarm = Alarm(
        policy=record.manifest["policy"]["fingerprint"],
        agent=agent,
        candidates=agent["monitor"],
        world={key: value for key, value in record.manifest["world"].items() if key != "config"},
        signals=tuple(normal),
        centre={name: centre for name, (centre, _) in normal.items()},
        scale={name: scale for name, (_, scale) in normal.items()},
        slack=slack,
        threshold=0.0,
        clock=int(conformal([row["length"] for i, row in enumerate(rows) if i % EVERY], alpha)),
        alpha=alpha,
        n=len(held),
        fit=len(fit),
        starts=starts,
    )

    return dataclasses.replace(alarm, threshold=conformal([greatest(alarm, course) for course in held], alpha))


def signals_of(row: Mapping) -> np.ndarray:
    """(K, S) signals of an episode at its K replannings, in the order of `alarm.SIGNALS`; NaN where one cannot tell."""
    from ...policies.agent.alarm import SIGNALS

    columns = [row.get(f"signal_{name}") or [] for name in SIGNALS]
    return np.array([[np.nan if value is None else value for value in column] for column in columns], np.float64).T


def greatest(alarm: Alarm, signals: np.ndarray) -> float:
    """The greatest score of an episode, 0 of one without replannings."""
    return float(alarm.scores(signals).max(initial=0.0))


def detections(record: Record, alarm: Alarm) -> list[Detection]:
    """What an alarm would have done in the episodes of a monitored record; those that broke off are left out."""
    n_action_steps, detected = record.manifest["agent"]["n_action_steps"], []
    for row in record.table.to_pylist():
        over = np.flatnonzero(alarm.scores(signals_of(row)) > alarm.threshold)
        if not row["error"]:
            detected.append(
                Detection(row["success"], row["length"], int(over[0]) * n_action_steps if len(over) else -1)
            )
    return detected


def _calm(record: Record) -> tuple[list[dict], str]:
    """Successful episodes of a monitored record, by env seed, and which env seeds they came from."""
    if not record.manifest.get("agent", {}).get("monitor") or "signal_spread" not in record.table.column_names:
        raise RecordError(f"'{record.root}' holds no signals; evaluate with --monitor 8")
    starts = record.column("env_seed")
    if max(starts, default=0) >= REPORT_STARTS:
        raise RecordError(
            f"'{record.root}' has env seeds up to {max(starts)}; calibrate on 0-{REPORT_STARTS - 1}, "
            "so that those for reporting stay fresh"
        )
    rows = sorted((row for row in record.table.to_pylist() if row["success"]), key=lambda row: row["env_seed"])
    return rows, f"{min(starts, default=0)}..{max(starts, default=0)}"
