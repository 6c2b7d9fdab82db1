"""What a live comparison refuses before anything is opened, and what one that is gone on with holds to."""

from __future__ import annotations

import os
from pathlib import Path

from ...configs.engines import LOCAL
from ...configs.lanes.pulse import TIMEOUT
from ...configs.world import World, name_of, read_world
from ...policies.agent.stage import world_of
from ..ledger.record import MANIFEST, read_manifest, read_record
from ..rollout.standing import check_paced
from .arm import acts_one_by_one, as_arm
from .blind import secret_order
from .comparison import FILE, read_comparison
from .imagine import Imagination
from .restore import check_starts
from .sequential import Rules
from .settings import Settings

SIDES = ("a", "b")  # folders of the records of a sequential comparison
ONE_BY_ONE = {"videos": (0, Settings.videos), "block": (1, Settings.block)}  # what trials in blinded order may be given
SECRET = "order"  # of a plan: the seed of the order of the trials


def stage_of(config: Settings, tell: bool = True) -> dict | str:
    """The world to act in: as asked, of the comparison that is gone on with, or where both policies were trained."""
    if config.arm_asked:
        if config.world is not None:
            raise ValueError("--world names where policies act, as --robot and --emulate do: leave one out")
        return config.arm_world() or {}
    begun = Path(os.path.expandvars(config.resume or "")) / SIDES[0]
    if config.world is None and config.resume and (begun / MANIFEST).is_file():
        return read_record(begun).manifest["world"]["config"]
    return world_of(config.what, tell=tell) if config.world is None else config.world


def checked_world(config: Settings, world: dict | str) -> World:
    """The world; where it is an arm, its settings are checked, elsewhere refused."""
    opened = read_world(world)
    arm = as_arm(opened)
    if arm is None:
        config.refuse_arm(f"this one is in {name_of(opened)}")
        check_paced(config, opened)
        return opened
    config.check_arm(arm.emulate, config.operator)
    if acts_one_by_one(config, arm, config.operator):
        one_arm = {"workers": (None, 0, 1), "engine": (LOCAL,), "timeout": (TIMEOUT,), "imagine": (None,)}
        for name, allowed in (one_arm | ONE_BY_ONE).items():
            if getattr(config, name) not in allowed:
                raise ValueError(f"--{name}: two policies share one arm, a trial at a time; leave it out")
        if config.test == "table":
            raise ValueError("--test table is of independent starts; on an arm they come in pairs: --test betting")
    if config.starts_folder is not None:
        check_starts(config.starts_folder, range(config.env_seed, config.env_seed + config.max))
    return arm


def check_live(config: Settings) -> Rules:
    """Refuse what cannot be a sequential comparison before anything is opened."""
    check_kind(config)
    assert config.world is not None
    checked_world(config, config.world)
    check_folder(config)
    return Rules(config.on, config.until_decided, config.give_up)


def check_kind(config: Settings) -> None:
    if len(config.what) != 2:
        raise ValueError(
            "a live comparison is between two policies; evaluate more of them first and compare their records"
        )
    if config.out is None and config.resume is None:
        raise ValueError(
            "a live comparison records its episodes: give --out DIR, or --resume DIR to go on with one; by recorded "
            "episodes alone: --data DATASET"
        )
    same = len({str(Path(os.path.expandvars(word)).resolve()) for word in config.what}) == 1
    if same and config.other_seed in (None, config.policy_seed) and config.test == "betting":
        raise ValueError("both are the same policy with the same noise, so every pair is equal; give --other_seed")
    if config.test == "table" and config.on != "success":
        raise ValueError("the table is for success; give --test betting to decide on progress")
    if config.proposal not in ("policy", "noiseless"):
        raise ValueError(f"--proposal of a comparison is policy or noiseless, not '{config.proposal}'")
    of_dreams = {name: getattr(config, name) for name in ("past", "imagined", "dreams")}
    if config.imagine is None and any(value != getattr(Settings, name) for name, value in of_dreams.items()):
        raise ValueError(
            "--past, --imagined and --dreams are of --imagine MODEL; leave them out, or name a world model"
        )
    if config.imagine is not None:
        Imagination(config.imagine, config.past, config.imagined, config.dreams).check()
        if config.test != "betting" or not config.until_decided:
            raise ValueError("--imagine goes with --test betting and --until_decided")
    if config.operator and config.test == "table":
        raise ValueError("a person scores both policies from the same initial conditions: use --test betting")
    for name, allowed in ONE_BY_ONE.items() if config.operator else ():
        if getattr(config, name) not in allowed:
            raise ValueError(f"--{name}: a person scores trial after trial, and nothing is filmed; leave it out")


def check_folder(config: Settings) -> None:
    if not config.resume and Path(os.path.expandvars(config.out or "")).exists():
        raise ValueError(f"'{config.out}' exists; give another --out, or --resume {config.out} to go on with it")

    if config.resume and (Path(os.path.expandvars(config.resume)) / FILE).is_file():
        ended = read_comparison(os.path.expandvars(config.resume))["sequential"]
        if ended.get("decision"):
            raise ValueError(f"the comparison in '{config.resume}' has ended: {ended['says']}")


def order_of(config: Settings) -> int:
    """The seed of the order of the trials: a secret, or that of the comparison that is gone on with."""
    begun = begun_record(config, SIDES[0])
    if begun is None or not (begun / MANIFEST).is_file():
        return secret_order()
    return read_manifest(begun)["sequential"].get(SECRET, config.env_seed)


def begun_record(config: Settings, side: str) -> Path | None:
    """The record of a side that is gone on with."""
    return None if config.resume is None else Path(os.path.expandvars(config.resume)) / side


def goes_on(folder: Path, plan: dict, first: int) -> bool:
    """Whether a side was begun; its rules must be the same, or the test's promise would be void.

    Args:
        plan: what the manifest says of the test.
        first: env seed of the side's first start.

    Raises:
        ValueError: naming what differs, but never the order of the trials.
    """
    if not (folder / MANIFEST).is_file():
        return False
    manifest = read_record(folder).manifest
    then = {"env_seed": manifest["starts"]["first"]} | (manifest.get("sequential") or {})
    now = {"env_seed": first} | plan
    differ = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    if differ:
        said = [f"{name} was {then.get(name)}, now {now.get(name)}" for name in differ if name != SECRET]
        said += ["one asks for trials one by one, the other does not"] if SECRET in differ else []
        raise ValueError(f"'{folder.parent}' was begun with other rules: {'; '.join(said)}")
    return True
