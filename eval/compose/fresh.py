"""The report of `understudy compose`: the chosen mixture, its parents and a control on fresh initial conditions.

Each of them is an ordinary `understudy eval` record. See `report.py` for what is made of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...configs.plugins import lookup
from ...policies.learning.checkpoint import find_checkpoint, is_of
from ...policies.learning.run import run_folder
from ..evaluate.evaluate import Eval, evaluate
from ..evaluate.report import write_report
from ..ledger.record import MANIFEST, REPORT, Record, read_record
from ..rollout.crew import Crew
from .report import CONTROL, MIXTURE, PARENT, Report, compared, entry, optimism
from .search import SearchResult, Weights
from .stage import slug

if TYPE_CHECKING:
    from ...policies.compositions.mixture import Mixture
    from ...policies.policy import Planner
    from .settings import Settings

SEARCHED, FRESH = "validation", "fresh"  # folders of records


def open_mixture(config: Settings, parents: Sequence[str]) -> tuple[Mixture, list[Path]]:
    """The parents at equal weights, one sampler and E for all weights; and their checkpoint folders."""
    from ...policies.compositions.mixture import Mixture
    from ...policies.field import Solver
    from ...policies.load import load_policy

    loaded = [load_policy(path) for path in parents]
    policies = [policy.to(config.device) for policy, _ in loaded]
    equal = [1 / len(policies)] * len(policies)
    own = Mixture(policies, equal)
    solver = lookup("solver", config.solver, {choice.value: choice for choice in Solver}) if config.solver else None
    sampler = own.sampler.changed(steps=config.steps, solver=solver, scheduler=config.scheduler)
    mixture = Mixture(policies, equal, sampler=sampler, n_action_steps=config.n_action_steps or own.n_action_steps)
    return mixture.to(config.device).eval(), [Path(info["path"]) for _, info in loaded]


def evaluation(config: Settings, policy: str, episodes: int, env_seed: int, **changes) -> Eval:
    """The settings of one policy's episodes, as `understudy eval` would have them."""
    how = ("block", "task_text", "n_action_steps", "policy_seed", "steps", "solver", "scheduler", "threads", "device")
    where = ("world", "workers", "engine", "address", "timeout", "videos")
    values = {name: getattr(config, name) for name in (*where, *how)}
    return Eval(policy=policy, episodes=episodes, env_seed=env_seed, **values | {"out": ""} | changes)


def on_fresh_starts(config: Settings, report: Report, crew: Crew, parents: Sequence[Planner]) -> Report:
    """The chosen mixture, the parents and the control from initial conditions that no weight was chosen on.

    Args:
        parents: those of the mixture, of which some may read the text of their task.
    """
    from ...policies.agent.open import reads_text
    from ...policies.load import save_mixture

    result, folder = report.found, config.folder
    read = [reads_text(parent) for parent in parents]
    read.insert(0, any(read))
    who = [(f"mixture {slug(result.chosen)}", MIXTURE, str(folder / MIXTURE), slug(result.chosen), result.chosen)]
    for i, path in enumerate(config.parents):
        corner = tuple(float(i == j) for j in range(len(config.parents)))
        who.append((path, PARENT, path, f"parent-{i + 1}", corner))
    if config.control:
        seeds = (config.parents[0], *config.control)
        mixture, paths = open_mixture(config, seeds)
        save_mixture(folder / CONTROL, mixture, paths)
        who.append((f"{len(seeds)} seeds of {config.parents[0]}", CONTROL, str(folder / CONTROL), CONTROL, None))
        read.append(reads_text(mixture))
    told = [dataclasses.replace(config, task_text=config.task_text if reads else None) for reads in read]
    records = [_fresh(each, path, name, crew) for each, (_, _, path, name, _) in zip(told, who, strict=True)]
    seen = [_seen(config, result, corner) for *_, corner in who]
    rows = [
        entry(name, role, record, validation)
        for (name, role, *_), record, validation in zip(who, records, seen, strict=True)
    ]
    entries = compared(rows, records, config.env_seed)
    hoped = optimism(seen[0], records[0]) if seen[0] is not None else None
    report = dataclasses.replace(report, entries=entries, optimism=hoped)
    return dataclasses.replace(report, notes=tuple(_notes(config, report)))


def _fresh(config: Settings, policy: str, name: str, crew: Crew) -> Record:
    """The record of `understudy eval` on the fresh initial conditions; gone on with if it was begun."""
    folder = config.folder / FRESH / name
    begun = (folder / MANIFEST).is_file()
    if begun and (record := read_record(folder)).manifest.get("complete") and len(record.table) == config.report:
        fingerprint_then = record.manifest["policy"].get("fingerprint")
        if (
            is_of(fingerprint_then, find_checkpoint(policy))
            and record.manifest["starts"]["first"] == config.report_seed
        ):
            if not (folder / REPORT).is_file():  # killed before it was drawn
                write_report(record, run=run_folder(policy))
            return record
    place = {"out": None, "resume": str(folder)} if begun else {"out": str(folder)}
    return evaluate(evaluation(config, policy, config.report, config.report_seed, **place), crew)


def _seen(config: Settings, result: SearchResult, weights: Weights | None) -> Record | None:
    """What the search recorded of these weights."""
    if weights is None or result.of(weights) is None or not result.of(weights).outcomes:
        return None
    return read_record(config.folder / SEARCHED / slug(weights))


def _notes(config: Settings, report: Report) -> Iterator[str]:
    """What a reader must bear in mind."""
    if config.control:
        if len(config.control) + 1 != len(config.parents):
            asked = len(config.control) + 1
            yield f"The control asks {asked} networks, the mixture {len(config.parents)}: the costs differ."
        if report.better.name != config.parents[0]:
            yield f"The control mixes seeds of {config.parents[0]}, but {report.better.name} was the better parent."
    else:
        yield "No control: a mixture of two seeds of the better parent costs as much and may gain as much (--control)."
    yield "Parents act with their own samplers and executed actions, unless given; the search has one for all weights."
    yield "Intervals speak of these checkpoints; other training seeds differ by more."
