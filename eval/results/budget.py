"""What a policy was trained with, by the command that `chains.yaml` keeps of it: steps, windows a step, demonstrations.

    budget_of("runs/lift", chains)                    # understudy train configs/train/lift.yaml ...
    budget_of("out/grid/lift_few/flow_b", chains)     # a setting of a grid, understudy run configs/grid/lift_few.yaml
    budget_of("out/foreign/x/checkpoints/001000", chains)   # understudy lerobot-train configs/foreign/x.yaml

Nothing is trained and nothing opened but the YAML files that a command names.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...configs.settings.load import load
from ..ledger.chains import CODE, CONFIG, Chains

STEP = re.compile(r"/checkpoints/0*(\d+)")
RANGE = re.compile(r"(\d+)-(\d+)")


class BudgetError(ValueError):
    """A policy whose training nobody can tell; the message says what is missing."""


@dataclass(frozen=True)
class Budget:
    """What one training was given."""

    demonstrations: int  # recorded episodes, those held out of the training included
    steps: int  # of the optimiser
    batch: int  # windows a step


def budget_of(path: str, chains: Chains) -> Budget:
    """The budget of a run, of a setting of a grid, or of a checkpoint of lerobot's, by its path.

    Raises:
        BudgetError: no command makes it, or the command does not say.
    """
    name = chains.maker(path)
    if name is None:
        raise BudgetError(f"no command in chains.yaml makes '{path}'")
    verb, *words = _words(chains.made[name])
    file = next(iter(CONFIG.findall(" ".join(words))), None)
    if file is None:
        raise BudgetError(f"the command of '{name}' names no file of settings")
    if verb == "run":
        setting = path.removeprefix(f"{name}/").partition("/")[0]
        return budget_of_setting(file, setting, chains)
    keys = _file(file) | _flags(words)
    if verb == "lerobot-train":
        at = STEP.search(path)
        steps = int(at[1]) if at else _number(keys, "steps", path)
        return Budget(
            demonstrations(_said(keys, "dataset.root", path), chains), steps, _number(keys, "batch_size", path)
        )
    return Budget(*_ours(keys, path, chains))


def budget_of_setting(grid: str, setting: str, chains: Chains) -> Budget:
    """The budget of each training of a setting of a grid (`configs/grid/..yaml`).

    Raises:
        BudgetError: no such setting, or no steps, batch or data in its files.
    """
    keys, where = _file(grid), f"{setting} of {grid}"
    foreign = keys.get("foreign") or {}
    if setting in foreign:
        part = foreign[setting]
        found = _file(part["config"]) | dict(part.get("set") or {})
        data = _said(found, "dataset.root", where)
        return Budget(demonstrations(data, chains), _number(found, "steps", where), _number(found, "batch_size", where))
    if setting not in (keys.get("vary") or {}):
        raise BudgetError(f"{grid} has no setting '{setting}'")
    train = keys["train"]
    config = train["config"] if isinstance(train["config"], Mapping) else _file(train["config"])
    return Budget(*_ours({**config, **(train.get("set") or {}), **(keys["vary"][setting] or {})}, where, chains))


def demonstrations(data: str, chains: Chains) -> int:
    """How many episodes datasets hold (several are joined by commas), by the commands that made them.

    Raises:
        BudgetError: no command makes one, or it does not say how many.
    """
    return sum(_episodes(part.strip(), chains) for part in data.split(","))


def _episodes(data: str, chains: Chains) -> int:
    name = chains.maker(data)
    said = str(_flags(_words(chains.made[name])).get("episodes", "")) if name else ""
    if found := RANGE.fullmatch(said):
        return int(found[2]) - int(found[1]) + 1
    if not said.isdigit():
        raise BudgetError(f"no command in chains.yaml says how many episodes '{data}' holds")
    return int(said)


def _ours(keys: Mapping, where: str, chains: Chains) -> tuple[int, int, int]:
    data = _said(keys, "data", where)
    return demonstrations(data, chains), _number(keys, "steps", where), _number(keys, "batch", where)


def _said(keys: Mapping, key: str, where: str) -> str:
    if not keys.get(key):
        raise BudgetError(f"the training of {where} states no {key}")
    return str(keys[key])


def _number(keys: Mapping, key: str, where: str) -> int:
    said = _said(keys, key, where)
    if not said.isdigit():
        raise BudgetError(f"the training of {where} states {key} {said}")
    return int(said)


def _file(name: str) -> dict:
    return load(Path(CODE) / name)


def _words(command: str) -> list[str]:
    """The words behind `understudy`."""
    return shlex.split(" ".join(command.split()))[1:]


def _flags(words: Sequence[str]) -> dict[str, str]:
    """`--name value` and `--name=value`."""
    found = {}
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name] = value if equals else after
    return found
