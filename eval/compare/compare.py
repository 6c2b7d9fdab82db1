"""`understudy compare A B ...`: which policy is better, from finished records or live, until that is decided.

The composition root of comparisons. Folders with a manifest are records and are read; runs and checkpoints are policies
and act, two of them, from the same initial conditions in one world (`live.py`).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...configs.devices import check_device
from ...configs.plugins import discover
from ...policies.agent.open import check_policy
from ...policies.agent.stage import check_saved
from ...policies.learning.checks import check_data
from ..ledger.dreams import refuse_unproven
from ..ledger.record import MANIFEST, read_record
from ..offline.record import is_error_record
from .checks import check_folder, check_kind, checked_world, stage_of
from .comparison import Comparison, compare_records, known_starts
from .live import hold
from .open_loop import ErrorComparison, compare_error_records, judge_and_compare
from .page import PAGE, write_comparison
from .settings import Settings

ACTING = "policies", "sim", "hardware"  # folders whose registries policies need; comparing records does without


@dataclass(frozen=True, kw_only=True)
class Compare(Settings):
    """Say which policy is better: compare finished records, or let two policies act until that is decided.

    Records of open-loop errors are joined by episode; with --data DATASET two policies are judged by recorded episodes.
    """

    def check_names(self) -> None:
        """Refuse names and paths that are not there, before anything heavy is imported; the folder comes last."""
        paths = [Path(os.path.expandvars(word)) for word in self.what]
        recorded = [(path / MANIFEST).is_file() for path in paths]
        if any(map(is_error_record, paths)) or any(recorded):
            self.refuse_arm("these are records")
            errors = any(map(is_error_record, paths))
            read = OF_RECORDS if errors else (*OF_RECORDS, "name", "env_seed", "data")
            _refuse_others(self, read, "is of policies, and these are records: leave it out")
            if not errors:
                _refuse_mixed(paths, recorded)
            return
        check_device(self.device)
        for policy in self.what:
            check_policy(policy)
        if self.data is not None:
            self.refuse_arm("with --data nobody acts")
            for source in self.data.split(","):
                check_data(source)
            _checked_two(self)
            return
        check_kind(self)
        world = checked_world(self, stage_of(self, tell=False))
        for policy in self.what:
            check_saved(policy, world)
        check_folder(self)

    def run(self) -> None:
        comparison = compare(self)
        print(comparison.text())
        folder = self.resume or self.out
        if folder:
            print(f"\nreport          {Path(os.path.expandvars(folder)) / PAGE}")


def compare(config: Compare) -> Comparison | ErrorComparison:
    """Compare records, or hold the sequential comparison; with `data`, or of such records, compare open-loop errors.

    Raises:
        ValueError: records and policies mixed, a third policy in a live comparison, a policy against itself
            with equal noise.
    """
    paths = [Path(os.path.expandvars(word)) for word in config.what]
    recorded = [(path / MANIFEST).is_file() for path in paths]
    place = config.resume or config.out
    out = None if place is None else Path(os.path.expandvars(place))

    if config.data is not None and not any(recorded):
        return judge_two(config, out)
    if config.data is not None:
        raise ValueError("--data is for policies: these are records already. Leave it out")
    if any(map(is_error_record, paths)):
        return compare_error_records(paths, config.alpha, out)

    if not any(recorded):
        discover(*ACTING)
        return hold(config)

    _refuse_mixed(paths, recorded)
    records = [read_record(path) for path in paths]
    refuse_unproven(records)
    comparison = compare_records(records, config.alpha, config.env_seed, name=config.name)
    if config.out:
        comparison.write(os.path.expandvars(config.out))
        write_comparison(comparison, known_starts(records), os.path.expandvars(config.out))
    return comparison


def _refuse_mixed(paths: Sequence[Path], recorded: Sequence[bool]) -> None:
    """Raise ValueError where some are records of episodes and others are not."""
    if all(recorded):
        return
    both = list(zip(paths, recorded, strict=True))
    records, others = ([str(path) for path, is_record in both if is_record == want] for want in (True, False))
    missing = [str(path) for path, is_record in both if not is_record and not path.exists()]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)}: there is no such folder")
    raise ValueError(f"{', '.join(records)}: episode records; {', '.join(others)}: not. Compare records with records")


OF_RECORDS = ("what", "alpha", "out")  # settings that any comparison of records reads


def _refuse_others(config: Compare, read: Collection[str], why: str) -> None:
    """Raise ValueError where a setting is given that is not among those that are `read`."""
    for item in dataclasses.fields(config):
        if item.name not in read and getattr(config, item.name) != item.default:
            raise ValueError(f"--{item.name} {why}")


PLANNING = ("n_action_steps", "threads", "device")  # settings that say how policies plan, also where nobody acts


def judge_two(config: Compare, out: Path | None) -> ErrorComparison:
    """Compare the open-loop errors of two policies on recorded data. Raises ValueError for settings of acting."""
    _checked_two(config)
    assert out is not None
    discover(*ACTING)
    seeds = config.policy_seed, config.policy_seed if config.other_seed is None else config.other_seed
    planning = {name: getattr(config, name) for name in PLANNING}
    return judge_and_compare(config.what, str(config.data), out, config.alpha, seeds, planning)


def _checked_two(config: Compare) -> None:
    """Refuse what cannot be a comparison by recorded episodes."""
    shared = {*PLANNING, "what", "alpha", "out", "resume", "data", "policy_seed", "other_seed"}
    _refuse_others(config, shared, "is of policies that act; with --data nobody acts. Leave one of them out")
    place = config.resume or config.out
    if len(config.what) != 2 or place is None:
        raise ValueError("give two policies and a folder: compare A B --data DATASET --out DIR (or --resume DIR)")
    if not config.resume and Path(os.path.expandvars(place)).exists():
        raise ValueError(f"'{place}' exists; give another --out, or --resume {place} to go on with it")
