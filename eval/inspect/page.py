"""What `understudy inspect --policy` says: two tables on the terminal, as studies, and a page with one chart.

Measures nothing; see `policy.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...configs.command import command_of
from ...configs.files import replace_text
from ...configs.progress import counted
from ..ledger.study import Study, show
from ..pages.charts import Line, Mark, chart
from ..pages.page import page
from .past_matters import FRAME, GIVEN, NOISE, PINNED, Change, interval_of
from .policy import Predictability, arms_of, find_changes, find_predictability, find_sights, starts_of
from .predictability import mean_error, pooled, ratio
from .settings import page_place
from .sight_map import SightMap

if TYPE_CHECKING:
    from ..statistics.intervals import Interval
    from .settings import Settings

PAGE = "past.html"
INCIDENTAL = ("out", "workers", "timeout", "threads")  # settings that change no number
STYLES = ("a", "b", "c", "d", "e", "f", "success", "failure", "mean")
Changes = Mapping[str, Sequence[Sequence[Change]]]  # label -> training seed -> parts
SIGHT = ("who", "camera", "moments", "change, all blurred", "change, one part", "area of half the change")
WHO = ("who", "trainings", "rollouts of each", "success", "squared error, 1/1000", "ratio", "of each", "inside chunks")


def report(config: Settings) -> Path:
    """Ask the policies, print, write. Returns the page."""
    import torch

    torch.set_num_threads(config.threads)
    arms = arms_of(config)

    out = page_place(config.out, f"policy-{'-'.join(arm.label for arm in arms)[:60].replace('/', '-')}")

    # With a world, rollouts too.
    studies = []
    if config.world:
        studies.append(predictability_study(config, find_predictability(config, arms)))
        _tell(studies[-1])

    # Where those that see look.
    sights = find_sights(config, arms) if config.world else {}
    if sights:
        studies.append(sights_study(config, sights))
        _tell(studies[-1])

    # What swapped frames change.
    by_label = find_changes(config, arms)
    studies.append(frames_study(config, by_label))
    _tell(studies[-1])
    if not config.world:
        print("The action predictability ratio needs rollouts: name a world by --world.")

    # Kept as studies and drawn.
    if config.record is not None:
        frames = config.record.with_name(f"{config.record.stem}-frames.json")
        kept = [study for study in studies if study.columns[: len(SIGHT)] != SIGHT]
        for study, path in zip(kept, [config.record, frames][-len(kept) :], strict=True):
            print(f"written: {study.write(path)}")

    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, render(by_label, studies, sights))
    print(f"page: {out}")
    return out


def predictability_study(config: Settings, measured: Predictability) -> Study:
    """A row for the demonstrations against themselves, and one for each arm."""
    rng = np.random.default_rng(0)

    # The control: demonstrations against others.
    first, second = measured.halves
    control = ratio(first, second, rng)
    errors = _thousandths(mean_error(measured.halves, rng))
    rows = [("demonstrations against others", None, len(first.steps), None, errors, control, None, None)]

    # A row for each arm.
    for label, errors in measured.arms.items():
        acted = measured.acted[label]
        played = sum(len(rollouts.actions) for rollouts in acted)
        inside = [of_seed.inside(did.n_action_steps) for of_seed, did in zip(errors, acted, strict=True)]
        each = ", ".join(show(measured.expert.mean / of_seed.mean) for of_seed in errors)
        counts = len(errors), len(acted[0].actions), sum(rollouts.successes for rollouts in acted) / played
        numbers = _thousandths(mean_error(errors, rng)), pooled(measured.expert, errors, rng), each
        rows.append((label, *counts, *numbers, pooled(measured.expert, inside, rng)))

    what = starts_of(config)
    return Study(
        title=f"Action predictability ratio, {what.partition(',')[0]}",
        command=command_of(config, "inspect", without=INCIDENTAL),
        columns=WHO,
        rows=rows,
        notes=(
            "How well one action predicts the next: mean squared error on held-out demonstrations over "
            "that on held-out rollouts. 1: as in the demonstrations, below: less, above: more",
            f"Rollouts: {what}, one try each, successes and failures alike, the actions sent to the world; "
            "as many demonstrations as rollouts",
            "Probe as published: 64 ReLU units, 20 epochs; ten folds by trajectory, "
            f"{counted(config.repeats, 'seed')}, the same number of updates for all",
            "Squared error: thousandths, of scaled actions (half of the range is 1). Inside chunks: without the first "
            "action of each action chunk, where chunks meet",
            "95 % intervals: bootstrap over trajectories; of several trainings Student's t over their logarithms, "
            "never narrower than the bootstrap",
        ),
    )


def frames_study(config: Settings, by_label: Changes) -> Study:
    """A row for each part of the past, a column for each arm."""
    rows = []
    for what, key, offset in _parts(by_label):
        name = what + (f", {key} alone" if key else "")
        intervals = [_interval(_chosen(seeds, what, key, offset)) for seeds in by_label.values()]
        rows.append((name, offset if what in (FRAME, GIVEN) else None, *intervals))

    windows = min(len(change.moved) for seeds in by_label.values() for seed in seeds for change in seed[:1])
    return Study(
        title="How much each observed frame matters to the action chunk",
        command=command_of(config, "inspect", without=INCIDENTAL),
        columns=("swapped", "offset, steps", *by_label),
        rows=rows,
        notes=(
            "Change of the executed actions when one frame is taken from another episode at the same step, under the "
            "same noise, relative to taking all of them: 0: not used, 1: as much as everything; root mean square",
            "Recalled actions as executed: how much the chunk changes when its own version of the past actions is "
            "replaced by the executed ones while it is denoised",
            "Another noise: how much chunks of one past differ among themselves, in the same unit",
            f"{counted(windows, 'window')} or more of episodes held out of each training; trainings together, 95 % "
            "bootstrap intervals over episodes, for these trainings",
        ),
    )


def sights_study(config: Settings, sights: Mapping[str, Sequence[SightMap]]) -> Study:
    """A row for each camera of each policy that sees."""
    rows = []
    for label, maps in sights.items():
        for camera in dict.fromkeys(one.camera for one in maps):
            own = [one for one in maps if one.camera == camera]
            part, whole = (
                float(np.mean(values)) for values in zip(*((m.change.max(), m.whole) for m in own), strict=True)
            )
            rows.append((label, camera, len(own), whole, part, float(np.mean([one.half for one in own]))))
    return Study(
        title=f"Where in its pictures a policy looks, {starts_of(config).partition(',')[0]}",
        command=command_of(config, "inspect", without=INCIDENTAL),
        columns=SIGHT,
        rows=rows,
        notes=(
            "Change of the executed actions when a part of the picture, or all of it, is blurred in all frames, "
            "under the same noise; root mean square, 1 is half of the action range; means over moments of rollouts",
            "Area: the part of the picture that holds half of the squared change; .5: all parts weigh alike",
            "Of two places of which one is enough, each looks unimportant",
        ),
    )


def render(by_label: Changes, studies: Sequence[Study], sights: Mapping[str, Sequence[SightMap]] | None = None) -> str:
    """The page."""
    from markupsafe import Markup

    maps = [(label, [one.drawn() for one in some]) for label, some in (sights or {}).items()]
    chart = Markup(frames_chart(by_label))
    return page(PAGE, names=list(by_label), chart=chart, studies=studies, show=show, maps=maps)


def frames_chart(by_label: Changes) -> str:
    """Change against offset, a line for each arm; of a single arm also for each key and the level of the noise."""
    lines, single = [], len(by_label) == 1
    kinds = list(dict.fromkeys((what, key) for what, key, _ in _parts(by_label) if what in (FRAME, GIVEN)))

    # A line for each label and kind.
    for label, seeds in by_label.items():
        for what, key in kinds if single else [(FRAME, "")]:
            name = label if not single else (key or ("whole frame" if what is FRAME else GIVEN))
            offsets = [part[2] for part in _parts({label: seeds}) if part[:2] == (what, key)]
            line = _line(seeds, what, key, offsets, STYLES[len(lines) % len(STYLES)], name)
            lines += [line] if line else []

    # The level of the noise.
    if single:
        (seeds,) = by_label.values()
        level = _interval(_chosen(seeds, NOISE, "", 0))
        ends = [min([-1, *(x for line in lines for x in line.x)]), 0]
        lines += [Line(ends, [level[1]] * 2, "soft", NOISE)] if level else []

    top = max((y for line in lines for y in (line.high or line.y)), default=1)
    words = {"x_label": "offset of the swapped frame, control steps (0 = now)", "y_label": "change of the action chunk"}
    points = [Mark(dot.x[0], dot.y[0], dot.style, y_bar=(dot.low[0], dot.high[0])) for dot in lines if len(dot.x) == 1]
    return chart(lines, y_range=(0, max(0.1, top)), marks=points, **words)


def _line(seeds, what: str, key: str, offsets: Sequence[int], style: str, name: str) -> Line | None:
    intervals = {offset: _interval(_chosen(seeds, what, key, offset)) for offset in offsets}
    intervals = {offset: interval for offset, interval in intervals.items() if interval}
    if not intervals:
        return None
    low, middle, high = zip(*intervals.values(), strict=True)
    return Line(list(intervals), middle, style, name, low, high)


def _parts(by_label: Changes) -> list[tuple[str, str, int]]:
    """(what, key, offset) of everything that was swapped for anybody, frames first, oldest first."""
    parts = {(part.what, part.key, part.offset) for seeds in by_label.values() for seed in seeds for part in seed}
    order = (FRAME, GIVEN, PINNED, NOISE)
    return sorted(parts, key=lambda part: (order.index(part[0]), part[1], part[2]))


def _chosen(seeds: Sequence[Sequence[Change]], what: str, key: str, offset: int) -> list[Change]:
    return [part for seed in seeds for part in seed if (part.what, part.key, part.offset) == (what, key, offset)]


def _interval(some: Sequence[Change]) -> Interval | None:
    return interval_of(some, np.random.default_rng(0)) if some else None


def _thousandths(interval: Interval) -> Interval:
    return type(interval)(*(1000 * part for part in interval))


def _tell(study: Study) -> None:
    print(f"{study.title}\n\n{study.markdown()}\n")
    print("\n".join(f"{note}." for note in study.notes) + "\n")
