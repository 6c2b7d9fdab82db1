"""`understudy agree`: do two worlds rank policies alike, and may one choose policies in the cheaper one?

Reads episode records of the same policies in a truth (the real arm, a simulator) and in a proxy (a dream, a twin,
another simulator); joins them on what identifies a policy and on env seeds. The composition of `identity.py`,
`verdict.py` and the page.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...configs.command import command_of
from ...configs.files import replace_text
from ...configs.progress import counted
from ..ledger.dreams import is_dream, refuse_unproven, refused_starts, shared_noise, without
from ..ledger.identity import (
    MatchError,
    Tested,
    by_policy,
    matched,
    one_world,
    open_records,
    same_scene,
    same_world,
    todays,
    world_name,
)
from ..ledger.provenance import provenance
from ..ledger.record import Record
from ..ledger.study import Study
from ..pages.charts import Line, Mark, chart
from ..pages.page import page
from ..statistics.agreement import MEASURES, Bound
from ..statistics.intervals import Interval
from .judged import Judged, Start, by_verdicts, check_files
from .verdict import Agreement, agree

PAGE, NUMBERS = "agree.html", "agree.json"
MEASURE_NAMES = {"r": "Pearson r", "rho": "Spearman rho", "tau": "Kendall tau", "mmrv": "MMRV"}


@dataclass(frozen=True, kw_only=True)
class Agree:
    """Judge whether a proxy world ranks policies as the truth does."""

    truth: tuple[str, ...]  # evaluation records (or folders of them) of the policies in the environment that counts
    proxy: tuple[str, ...]  # records of the same policies in the environment that would stand in for it
    again: tuple[
        str, ...
    ] = ()  # records of a second true run with other policy noise: how far the truth agrees with itself
    truth_verdicts: tuple[
        str, ...
    ] = ()  # files of `understudy judge`: their verdicts are the truth's success, in place of the records' own
    proxy_verdicts: tuple[str, ...] = ()  # the same of the proxy, such as a dream whose films a person judged
    by: str = "success"  # what the verdict is about: success | progress
    out: str | None = None  # folder for agree.html and agree.json, which must be new
    study: str | None = None  # file for the numbers as a study, which `understudy results` prints
    seed: int = 0  # seed of the bootstrap
    draws: int = 2000  # bootstrap resamples

    def check_names(self) -> None:
        """Refuse what cannot be, before records are read."""
        check_files(self.truth_verdicts, "truth_verdicts")
        check_files(self.proxy_verdicts, "proxy_verdicts")
        if self.by == "progress" and (self.truth_verdicts or self.proxy_verdicts):
            raise ValueError(
                "verdicts say success or failure and no progress; leave out --by progress, or the verdicts"
            )

    def run(self) -> None:
        if self.out is not None and Path(os.path.expandvars(self.out)).exists():
            raise ValueError(f"'{self.out}' exists; give another --out")
        truth, proxy = open_records(self.truth), open_records(self.proxy)
        if both := {record.root.resolve() for record in truth} & {record.root.resolve() for record in proxy}:
            raise ValueError(f"'{min(both)}' is on both sides; give records of two worlds")

        refuse_unproven((*truth, *proxy))
        same_scene(truth[0], proxy[0])
        again, refused = open_records(self.again), refused_starts(proxy)
        if refused:
            left_out = counted(len(refused), "start", "is", "are")
            print(f"{left_out} left out in both worlds: the dream does not know their scenes\n")
        truth, again, proxy, judges, undecided = self._judged(truth, again, proxy)
        if undecided:
            left_out = counted(len(undecided), "start", "is", "are")
            print(f"{left_out} left out in both worlds: not decided by who judged them\n")
        if starts := {*refused, *undecided}:
            truth, again, proxy = (without(side, starts) for side in (truth, again, proxy))
        twice = second_run(truth, again)
        agreement = agree(matched(truth, proxy), self.by, np.random.default_rng(self.seed), self.draws, twice)
        worlds = {"truth": world_name(truth[0]), "proxy": world_name(proxy[0])}
        told = [str(one) for one in judges]
        if again and is_dream(proxy[0].manifest.get("world") or {}) and (alike := shared_noise(proxy, truth)):
            told.append(f"{alike}, which the second true run has")
        if one_world(truth[0], proxy[0]):
            told.append(
                f"truth and proxy are of one world, {worlds['truth']}: this says how far it agrees with itself "
                "(a twin is followed where its world has real or robot)"
            )
        print(text(agreement, worlds, told))

        if self.study is not None:
            as_study(agreement, worlds, self.command(), told).write(os.path.expandvars(self.study))
        if self.out is not None:
            folder = Path(os.path.expandvars(self.out))
            folder.mkdir(parents=True)
            about = {"records": {"truth": _roots(truth), "proxy": _roots(proxy)}, "worlds": worlds}
            about |= {"verdicts": {one.side: dataclasses.asdict(one) for one in judges}} if judges else {}
            about |= {"seed": self.seed, "draws": self.draws} | provenance()
            (folder / NUMBERS).write_text(as_json(agreement, about))
            print(f"\nreport          {replace_text(folder / PAGE, render(agreement, worlds, about, told))}")

    def _judged(
        self, truth: list[Record], again: list[Record], proxy: list[Record]
    ) -> tuple[list[Record], list[Record], list[Record], list[Judged], set[Start]]:
        """Truth, again and proxy with the success that was judged where it is asked for, by whom, and what was not."""
        judges, undecided, every = [], set(), (*truth, *again, *proxy)
        if self.truth_verdicts:
            both, one, left = by_verdicts([*truth, *again], self.truth_verdicts, "truth", every)
            truth, again = both[: len(truth)], both[len(truth) :]
            judges.append(one)
            undecided.update(left)
        if self.proxy_verdicts:
            proxy, one, left = by_verdicts(proxy, self.proxy_verdicts, "proxy", every)
            judges.append(one)
            undecided.update(left)
        return truth, again, proxy, judges, undecided

    def command(self) -> str:
        """What a reader runs for these numbers."""
        return command_of(self, "agree", without=("out", "study"))


def second_run(truth: Sequence[Record], again: Sequence[Record]) -> list[tuple[Tested, Tested]]:
    """The policies that acted in the truth twice.

    Raises:
        MatchError: none did, or with the same noise, so that the second run is the first.
    """
    if not again:
        return []
    today = todays(truth, again)
    first, second = by_policy(truth, "truth", today), by_policy(again, "again", today)
    both = [(first[key], second[key]) for key in second if key in first]
    if not both:
        raise MatchError("--again holds none of the policies of the truth; give a second true run of the same ones")
    same_world(truth[0], again[0], "truth and again")
    seeds = [{seed for record in side for seed in record.column("policy_seed")} for side in (truth, again)]
    if shared := seeds[0] & seeds[1]:
        raise MatchError(
            f"both true runs have policy_seed {min(shared)}, so they are the same; give the second --policy_seed"
        )
    return both


def text(agreement: Agreement, worlds: dict[str, str], judges: Sequence[str] = ()) -> str:
    """What the terminal shows. `judges`: who says what succeeded, where it is not the records."""
    lines = [f"{worlds['proxy']} (proxy) beside {worlds['truth']} (truth), by {agreement.by}"]
    lines += [*(f"Note: {one}." for one in judges), ""]
    lines.append(f"{'policy':<46}{'truth':>22}{'n':>6}{'proxy':>22}{'n':>6}")
    for point in agreement.points:
        name = point.name if len(point.name) <= 45 else "..." + point.name[-42:]
        lines.append(f"{name:<46}{point.truth!s:>22}{point.n_truth:>6}{point.proxy!s:>22}{point.n_proxy:>6}")

    other = "progress" if agreement.by == "success" else "success"
    lines += ["", f"{'':<16}{agreement.by:<28}{other}"]
    lines += [
        f"{MEASURE_NAMES[name]:<16}{interval_text(agreement.measures[name]):<28}{interval_text(agreement.other[name])}"
        for name in MEASURES
    ]
    lines += [f"{name:<16}{value}" for name, value in facts(agreement)]

    lines += ["", *agreement.verdict.words, *(f"Note: {warning}" for warning in agreement.verdict.warnings)]
    lines += [f"  {mark:<6}{name}" for name, mark in agreement.verdict.ranking]
    lines += ["Policies that share a letter are not told apart in the proxy."] if agreement.verdict.ranking else []

    return "\n".join(lines)


def facts(agreement: Agreement) -> list[tuple[str, str]]:
    """(what, value) of everything beside the correlations."""
    bound, judged = agreement.bound, agreement.judged
    rows = [("permutation", f"p = {bound.p:.2g} of an order as good by chance; least possible {bound.least:.2g}")]

    if math.isnan(agreement.ceiling.estimate):
        rows.append(("noise ceiling", "none: noise explains all differences in the truth"))
    else:
        rows.append(("noise ceiling", f"r {interval_text(agreement.ceiling)} is what a perfect proxy would show"))

    if judged is None:
        rows.append(("judge", "the worlds share no initial condition, so single outcomes cannot be compared"))
    else:
        kappa = "" if math.isnan(judged.kappa) else f", kappa {judged.kappa:.2f}"
        apart = f"{judged.false_positive} successes in the proxy alone, {judged.false_negative} in the truth alone"
        rows.append(
            (
                "judge",
                f"{interval_text(judged.accuracy)} of {judged.episodes} outcomes are the same "
                "from the same initial condition",
            )
        )
        rows.append(("judge, chance", f"{judged.chance:.3f}{kappa}; {apart}"))

    if (again := agreement.again) is not None:
        r = "" if math.isnan(agreement.again_r) else f"; r {agreement.again_r:.3f}"
        rows.append(
            (
                "the truth again",
                f"{interval_text(again.accuracy)} of {again.episodes} outcomes are the same in a second true run "
                f"with other "
                f"policy noise (chance {again.chance:.3f}{r}): no proxy can be asked for more",
            )
        )
    rows.append(
        ("bias", f"{interval_text(agreement.bias)} is what the proxy says more than the truth, mean over policies")
    )
    raw, after = agreement.lined
    line = "none: policies of three or more trainings are needed" if math.isnan(after) else f"{after:.3f} by the line"
    rows.append(("line of others", f"mean error of a policy {raw:.3f} as it stands; fitted on other trainings: {line}"))

    rates = [point.truth.estimate for point in agreement.points]
    spread = max(rates) - min(rates)

    return [*rows, ("spread of truth", f"{spread:.3f} between best and worst; MMRV cannot exceed it")]


def interval_text(interval: Interval) -> str:
    """An interval, or why there is none."""
    if math.isnan(interval.estimate):
        return "undefined"
    return f"{interval.estimate:.3f} (no interval)" if math.isnan(interval.low) else str(interval)


def scatter(agreement: Agreement) -> str:
    """Policies as points, truth across and proxy up, with 95 % bars; the dashed line is where they are equal."""
    marks = [
        Mark(point.truth.estimate, point.proxy.estimate, "a", str(i), point.truth[::2], point.proxy[::2])
        for i, point in enumerate(agreement.points, 1)
    ]
    equal = Line([0, 1], [0, 1], "soft", "equal in both")
    axes = {"x_label": f"{agreement.by} in the truth", "y_label": f"{agreement.by} in the proxy", "y_range": (0, 1)}
    return chart([equal], **axes, marks=marks, square=True)


def render(agreement: Agreement, worlds: dict[str, str], about: dict, judges: Sequence[str] = ()) -> str:
    """The HTML text of the page; `judges` as in `text`."""
    from markupsafe import Markup

    from ..ledger.origin import facts as sections

    shown = about | {"records": {side: ", ".join(roots) for side, roots in about["records"].items()}}
    return page(
        PAGE,
        agreement=agreement,
        worlds=worlds,
        judges=judges,
        provenance=list(sections(shown)),
        scatter=Markup(scatter(agreement)),
        rest=facts(agreement),
        names=MEASURE_NAMES,
        interval_text=interval_text,
        letters=dict(agreement.verdict.ranking),
        other="progress" if agreement.by == "success" else "success",
    )


def as_study(agreement: Agreement, worlds: dict[str, str], command: str, judges: Sequence[str] = ()) -> Study:
    """The policies as a table, the rest as notes; `judges` as in `text`."""
    rows = [(point.name, point.n_truth, point.truth, point.n_proxy, point.proxy) for point in agreement.points]
    measures = ", ".join(
        f"{MEASURE_NAMES[name]} {interval_text(interval)}" for name, interval in agreement.measures.items()
    )
    notes = [*(f"{one}." for one in judges), *agreement.verdict.words, *agreement.verdict.warnings, f"{measures}."]
    return Study(
        title=f"Does {worlds['proxy']} rank policies as {worlds['truth']} does, by {agreement.by}",
        command=command,
        columns=("policy", "n, truth", "truth", "n, proxy", "proxy"),
        rows=rows,
        notes=(*notes, *(f"{name}: {value}." for name, value in facts(agreement))),
    )


def as_json(agreement: Agreement, about: dict) -> str:
    """Everything as JSON; what is undefined is null."""
    return json.dumps({"format": 1, "kind": "agreement"} | about | _plain(agreement), indent=1, allow_nan=False) + "\n"


def _plain(value):
    if isinstance(value, Interval | Bound):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if dataclasses.is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _roots(records) -> list[str]:
    return [str(record.root) for record in records]
