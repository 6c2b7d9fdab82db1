"""Two records of open-loop errors side by side: whose plans lie nearer to what was recorded, episode by episode.

Joins on the episode; refuses records of other actions, recordings or choices of observations. Paired Student's t over
episodes: of all dimensions in spreads, and of each dimension in its unit, with Holm's correction over the dimensions.
A - B below 0 means that A is nearer. `compare A B --data DATASET` judges two policies first, on episodes that neither
was trained on.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...configs.documents import sealed
from ...configs.files import replace_text
from ...configs.progress import counted
from ..evaluate.open_loop import OpenLoop, check_actions, judge
from ..ledger.origin import facts, origin
from ..ledger.pairs import PairingError
from ..ledger.record import Record
from ..offline.errors import relative
from ..offline.held_out import training_of
from ..offline.record import is_error_record, over_steps, read_errors, rows_of
from ..offline.summary import CAVEAT, WITHOUT, over_episodes, steps_of
from ..pages.charts import Line, chart
from ..pages.page import page
from ..statistics.intervals import Interval
from ..statistics.multiple import holm
from ..statistics.paired import paired_t
from .comparison import FILE
from .page import PAGE

FORMAT, KIND, TEMPLATE = 1, "open-loop comparison", "open_loop_compare.html"
FEW = 10  # episodes; fewer carry a caveat
SIDES = ("a", "b")  # folders of the records that a comparison of policies makes


@dataclass(frozen=True)
class DimensionDifference:
    """One action dimension; errors in its unit."""

    name: str
    unit: str
    a: float
    b: float
    difference: Interval  # A - B
    p: float | None  # paired t
    p_holm: float | None  # corrected for the number of dimensions


@dataclass(frozen=True)
class ErrorComparison:
    """What two records allow to conclude. Errors of all dimensions are in spreads."""

    alpha: float
    titles: tuple[str, str]
    n: int
    steps: int  # first actions of each chunk that count
    errors: tuple[Interval, Interval]
    difference: Interval  # A - B
    p: float | None
    dimensions: tuple[DimensionDifference, ...]
    episodes: tuple[tuple[int, float, float], ...]  # (episode, error of A, of B)
    caveats: tuple[str, ...]
    says: str

    def text(self) -> str:
        """For a terminal."""
        width = max(9, *(len(one.name) for one in self.dimensions))
        lines = [f"{label}  {title}" for label, title in zip("AB", self.titles, strict=True)]
        lines += ["", self.says, ""]
        lines.append(f"{'dimension':<{width}}  {'unit':<5}{'A':>10}{'B':>10}{'A - B, 95 %':>34}{'p, Holm':>10}")
        for one in self.dimensions:
            p = "-" if one.p_holm is None else f"{one.p_holm:.2g}"
            numbers = f"{one.a:>10.3g}{one.b:>10.3g}{_interval(one.difference):>34}{p:>10}"
            lines.append(f"{one.name:<{width}}  {one.unit:<5}{numbers}")
        return "\n".join([*lines, "", *(f"- {caveat}" for caveat in self.caveats)])

    def write(self, folder: str | Path) -> Path:
        """Write `compare.json` into a folder, beside and renamed."""
        plain = {"format": FORMAT, "kind": KIND} | dataclasses.asdict(self)
        return replace_text(Path(folder) / FILE, json.dumps(sealed(_finite(plain)), indent=1) + "\n")


def compare_error_records(paths: Sequence[Path], alpha: float, out: Path | None) -> ErrorComparison:
    """Compare two records of open-loop errors, with a page where `out` is given.

    Raises:
        ValueError: more than two, or some of another kind.
        PairingError: records that do not fit together.
    """
    if others := [str(path) for path in paths if not is_error_record(path)]:
        raise ValueError(f"{', '.join(others)}: no open-loop errors; the rest are. Compare records of one kind")
    if len(paths) != 2:
        raise ValueError("open-loop errors are compared two at a time: understudy compare A B")
    records = [read_errors(path) for path in paths]
    comparison = compare_errors(records, alpha)
    if out is not None:
        comparison.write(out)
        replace_text(out / PAGE, render(comparison, records))
    return comparison


def judge_and_compare(
    policies: Sequence[str], data: str, out: Path, alpha: float, seeds: Sequence[int], planning: Mapping[str, Any]
) -> ErrorComparison:
    """Judge two policies on recorded episodes that neither was trained on, and compare their records in `out`.

    Args:
        out: goes on with what is there already.
        seeds: of the noise of each policy.
        planning: further settings of `OpenLoop` for both.

    Raises:
        ValueError: nothing to judge by, or data that do not fit.
    """
    held_out_of = who_held_out(policies, data)
    for policy in policies:
        check_actions(OpenLoop(policy=policy, data=data, out=str(out), **planning))
    for side, policy, seed in zip(SIDES, policies, seeds, strict=True):
        place: dict[str, Any] = {"resume" if (out / side).exists() else "out": str(out / side)}
        judge(OpenLoop(policy=policy, data=data, held_out_of=held_out_of, policy_seed=seed, **place, **planning))
    return compare_error_records([out / side for side in SIDES], alpha, out)


def who_held_out(policies: Sequence[str], data: str) -> tuple[str, ...]:
    """Those of `policies` whose training is known to have read `data`: what they held out is judged."""
    from ...policies.data.open import open_dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is opened again for each policy
        dataset = open_dataset(data, columns=(), check=False)
    trainings = {policy: training_of(policy, dataset, data) for policy in policies}
    return tuple(policy for policy, training in trainings.items() if training.known and training.same)


def compare_errors(records: Sequence[Record], alpha: float = 0.05) -> ErrorComparison:
    """A against B on the episodes that both have.

    Raises:
        PairingError: other actions, recordings or observations, or no common episode.
    """
    first, second = records
    _check_alike(first, second)
    rows, theirs = ({row["episode"]: row for row in rows_of(record)} for record in records)
    shared = sorted(set(rows) & set(theirs))
    if not shared:
        have = "; ".join(f"'{record.root}' has {_listed(record.column('episode'))}" for record in records)
        raise PairingError(f"the records share no episode: {have}. Judge both by the same: --episodes")
    for episode in shared:
        if rows[episode]["recorded"] != theirs[episode]["recorded"]:
            raise PairingError(
                f"episode {episode} is not the same recording in '{first.root}' and '{second.root}': they are of"
                " different data"
            )

    executed = [record.manifest["agent"]["n_action_steps"] for record in records]
    steps, about = min(executed), first.manifest["data"]
    spread = np.asarray(about["spread"], np.float64)
    pairs = [(rows[episode], theirs[episode]) for episode in shared]
    units = np.array([[over_steps(row, "error_by_step", steps) for row in pair] for pair in pairs])  # (n, 2, D)
    moving = spread > 0
    if not moving.any():
        raise PairingError("every action dimension is constant in these data: there is nothing to compare")
    overall = np.array([[np.nanmean(relative(row, "error", spread, steps)) for row in pair] for pair in pairs])

    tests = [paired_t(units[:, 0, d] - units[:, 1, d]) for d in range(len(spread))]
    ps = [p for _, p in tests]
    adjusted = [None] * len(ps) if None in ps else holm(ps).tolist()
    difference, p = paired_t(overall[:, 0] - overall[:, 1])
    guesses = {
        what: float(np.mean([np.nanmean(relative(rows[episode], guess, spread, steps)) for episode in shared]))
        for guess, what in WITHOUT.items()
    }
    titles = _titles(records)
    caveats = _caveats(records, shared, executed, steps)
    return ErrorComparison(
        alpha=alpha,
        titles=titles,
        n=len(shared),
        steps=steps,
        errors=(over_episodes(overall[:, 0]), over_episodes(overall[:, 1])),
        difference=difference,
        p=p,
        dimensions=tuple(
            DimensionDifference(
                name=name,
                unit=about["units"][d],
                a=float(units[:, 0, d].mean()),
                b=float(units[:, 1, d].mean()),
                difference=tests[d][0],
                p=ps[d],
                p_holm=adjusted[d],
            )
            for d, name in enumerate(about["action"])
        ),
        episodes=tuple((episode, float(a), float(b)) for episode, (a, b) in zip(shared, overall.tolist(), strict=True)),
        caveats=tuple(caveats),
        says=_beside(overall.mean(0), guesses, _say(len(shared), difference, p, alpha, _seen(records, shared))),
    )


def _check_alike(first: Record, second: Record) -> None:
    """Raises PairingError naming the first difference of what was judged."""
    ours, theirs = first.manifest["data"], second.manifest["data"]
    for key, what in (("action", "actions"), ("units", "units"), ("rate", "rate"), ("every", "--every")):
        if ours.get(key) != theirs.get(key):
            one, other = ours.get(key), theirs.get(key)
            if isinstance(one, list) and isinstance(other, list):
                place = next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
                one, other = (len(one), len(other)) if place is None else (one[place], other[place])
            raise PairingError(f"'{first.root}' and '{second.root}' differ in {what}: {one} against {other}")


def _plans_the_mean(record: Record) -> bool:
    return record.manifest.get("policy", {}).get("type") == "regression"


def _say(n: int, difference: Interval, p: float | None, alpha: float, seen: dict[str, int]) -> str:
    number = f"A - B is {_interval(difference)} of the actions' spread on {n} common episode{'' if n == 1 else 's'}"
    if p is None:
        text = f"One episode cannot show whether A or B is nearer: {number}."
    elif p <= alpha:
        near, far = ("A", "B") if difference.estimate < 0 else ("B", "A")
        text = f"{near}'s actions are nearer to the recorded ones than {far}'s: {number} (paired t, p = {p:.2g})."
    else:
        text = f"A and B are not shown to differ: {number} (paired t, p = {p:.2g}). That is no evidence of being equal."
    for label, count in seen.items():
        text += f" But {label} was TRAINED on {count} of these episodes."
    return text


def _beside(errors: np.ndarray, guesses: Mapping[str, float], said: str) -> str:
    """What was `said` of two, with what both are worth beside guesses: first, where the nearer is of no use either."""
    beside = " and ".join(f"{what} by {error:.3g}" for what, error in guesses.items())
    levels = f"A is off by {errors[0]:.3g} and B by {errors[1]:.3g} of the spread; without any policy, {beside}."
    better = [what for what, error in guesses.items() if error <= min(errors)]
    if not better:
        return f"{said} {levels}"
    return (
        f"Neither does better than {' or '.join(better)}: {levels} Trained further, the order of the two may be "
        f"another; as it is: {said}"
    )


def _seen(records: Sequence[Record], shared: Sequence[int]) -> dict[str, int]:
    """Label -> how many of the common episodes it was trained on, where it was on any."""
    counts = [len(set(record.manifest["data"]["trained_on"]) & set(shared)) for record in records]
    return {label: count for label, count in zip("AB", counts, strict=True) if count}


def _caveats(records: Sequence[Record], shared: Sequence[int], executed: Sequence[int], steps: int):
    yield CAVEAT
    if len(shared) < FEW:
        yield (
            f"{counted(len(shared), 'episode', 'is', 'are')} few: the interval leans on their differences being "
            "alike. Train with --validation 0.25 to hold more out, or judge both by further ones (understudy eval "
            "--data DATA --episodes ...) and compare the records."
        )
    means = [label for label, record in zip("AB", records, strict=True) if _plans_the_mean(record)]
    if len(means) == 1:
        yield (
            f"{means[0]} plans the mean of what was done, the other one of several ways; the mean is nearer by this"
            " measure and need not act better: two ways round a thing have no middle."
        )
    for label, record in zip("AB", records, strict=True):
        about = record.manifest["data"]
        if about["status"] == "unknown":
            yield f"Nobody knows whether {label} was trained on these episodes."
        if left := len(set(record.column("episode")) - set(shared)):
            yield f"{counted(left, 'episode')} of {label} left out: not in the other record."
        if record.manifest.get("complete") is not True:
            yield f"The record of {label} is unfinished."
    if len(set(executed)) > 1:
        yield f"A executes {executed[0]} actions of a chunk and B {executed[1]}; the first {steps} of both count."
    first, second = (record.manifest["data"] for record in records)
    if not np.allclose(first["spread"], second["spread"], rtol=1e-3):
        yield "The records measured the spread on other episodes; that of A counts for both."
    if first["fingerprint"] != second["fingerprint"]:
        yield "The datasets differ in something else than the recorded actions of these episodes."
    yield "Of these checkpoints; another training seed may differ by more. Dimensions: Holm over all of them."


def render(comparison: ErrorComparison, records: Sequence[Record]) -> str:
    """The HTML text of the page of a comparison."""
    from markupsafe import Markup

    names = [title.rstrip("/") for title in comparison.titles]
    return page(
        TEMPLATE,
        comparison=comparison,
        title=f"{names[0]} or {names[1]}?",
        source=records[0].manifest["data"]["source"],
        seen=_seen(records, [episode for episode, _, _ in comparison.episodes]),
        by_step=Markup(step_chart(comparison, records)),
        dates=sorted({origin(record.manifest)[0] for record in records} - {"-"}),
        interval=_interval,
        sources=[
            (label, title, list(facts(_short(record.manifest))))
            for label, title, record in zip("AB", comparison.titles, records, strict=True)
        ],
    )


def step_chart(comparison: ErrorComparison, records: Sequence[Record]) -> str:
    """Error of both at each step of the chunk that both plan, in the spreads of A, over the common episodes."""
    shared, about = {episode for episode, _, _ in comparison.episodes}, records[0].manifest["data"]
    spread, lines = np.asarray(about["spread"], np.float64), []
    for label, record in zip("AB", records, strict=True):
        rows = [row for row in rows_of(record) if row["episode"] in shared]
        steps = steps_of(rows, "error", spread)
        seconds = [step / about["rate"] for step in range(len(steps))]
        banded = all(np.isfinite(one.low) for one in steps)
        low, high = [max(0.0, one.low) for one in steps], [one.high for one in steps]
        middle = [one.estimate for one in steps]
        lines.append(Line(seconds, middle, label.lower(), label, low if banded else None, high if banded else None))
    if min(len(line.x) for line in lines) < 2:
        return ""
    top = max(max(line.high if line.high is not None else line.y) for line in lines)
    title = "error of A and B by step of the chunk, in standard deviations of the recorded actions"
    return chart(
        lines, x_label="seconds after the observation", y_label="error / spread", y_range=(0, top), title=title
    )


def _titles(records: Sequence[Record]) -> tuple[str, str]:
    paths = [str(record.manifest["policy"].get("path") or record.root) for record in records]
    if paths[0] == paths[1]:
        paths = [f"{path} ({record.root.name})" for path, record in zip(paths, records, strict=True)]
    return paths[0], paths[1]


def _short(manifest: dict) -> dict:
    data = {key: value for key, value in manifest["data"].items() if not isinstance(value, list) or len(value) <= 12}
    return {key: value for key, value in manifest.items() if key not in ("digests", "command")} | {"data": data}


def _listed(episodes: Sequence[int]) -> str:
    more = f" and {len(episodes) - 5} more" if len(episodes) > 5 else ""
    return f"{', '.join(map(str, episodes[:5]))}{more}"


def _interval(interval: Interval) -> str:
    if not np.isfinite(interval.low):
        return f"{interval.estimate:+.3g}"
    return f"{interval.estimate:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}]"


def _finite(value):
    """JSON values, None in place of what is no number."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
