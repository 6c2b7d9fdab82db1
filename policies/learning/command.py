"""`understudy train`, as far as it goes without torch: the words, and what can be refused by them.

What is found possible is handed to `train.py`. Names and paths are looked at before the folder of the run: somebody who
mistyped the dataset, too, should not first be told of the folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from ...configs.devices import check_device
from ...configs.help import describe, lines_of, summary
from ...configs.parse import check_words
from ...configs.plugins import discover, lookup
from ...configs.settings.listing import Setting, settings_of
from ...configs.settings.load import load
from ...configs.settings.outline import registered_names
from ...configs.settings.refusals import UsageError
from ...configs.settings.shipped import is_config
from ..kinds import CriticConfig, PolicyConfig, WorldModelConfig
from .checks import check_cameras, check_names
from .places import check_free, locate
from .processes import check_launcher, is_main, size_of
from .run import SETTINGS
from .settings import NOTHING, Settings, take_resume
from .stages import staged

BASES = {"policy": PolicyConfig, "critic": CriticConfig, "world_model": WorldModelConfig}
TYPES = tuple(f"{group}.type" for group in BASES)
INPUTS = tuple(f"--{group}.inputs" for group in BASES)
EXAMPLES = (
    "understudy train --data lerobot/pusht --policy.type diffusion --out runs/pusht",
    "understudy train configs/train/lift.yaml --policy.type flow --out runs/lift-flow --seed 1",
    "understudy train --resume runs/lift-flow --steps 12000",
)
COMMON = (
    "data", "episodes", "policy.type", "critic.type", "world_model.type", "out", "steps", "batch", "optimize.lr",
    "seed", "device", "threads", "validation", "validate_every", "save_every", "eval", "every", "scale", "embodiment",
    "init", "resume", "wandb",
)  # fmt: skip
FURTHER = (
    "  understudy train --help policy flow    the settings of one type of policy; --help critic iql: of a critic",
    "  understudy train --help optimize       a group of settings; also weighting, task_spec",
    "  understudy train CONFIG.yaml --help    what a config may set: the flags above and those of its type",
    "  understudy train --help all            every flag",
    "  understudy list configs                the configs that are shipped",
)


@dataclass(frozen=True, kw_only=True)
class TrainCommand(Settings):
    """Train a policy on demonstrations, a critic on what succeeded and what did not, or a world model on both."""

    @classmethod
    def from_words(cls, words: list[str]) -> Any:
        """The training that the words ask for. Raises before torch is imported where that is possible."""
        queue = list(words)
        resume = take_resume(queue)
        path = queue.pop(0) if queue and is_config(queue[0]) else None
        if resume is None:
            _check(path, queue)
        else:
            run, _ = locate(Path(os.path.expandvars(resume)))
            _check_beside(str(run / SETTINGS), queue)

        discover(*cls.DISCOVER)
        from .train import Train

        return Train.from_words(words)

    @classmethod
    def explain(cls, command: str, words: list[str]) -> str:
        """The help on one screen; of a group, a type, a config or all, what is asked for."""
        if not words:
            return summary(cls, command, EXAMPLES, COMMON, FURTHER)
        if words == ["all"]:
            discover(*cls.DISCOVER)
            return describe(cls, command)
        config = load(words[0]) if is_config(words[0]) else {}
        asked = _type_asked(words, config)
        if asked is None:
            return "\n".join(lines_of(_group(words[0])))
        discover(*cls.DISCOVER)
        group, kind = asked
        own = list(lines_of(_of_type(group, kind)))
        if words[0] in BASES:
            return "\n".join([f"settings of the {group} type '{kind}':", *own])
        head = summary(cls, command, EXAMPLES, (name for name in COMMON if name not in TYPES), ())
        return head.replace("\n\nmore:\n", f"\n\n{group} type '{kind}':\n" + "\n".join(own) + "\n")

    def run(self) -> None:
        """Train, or go on."""
        from .train import Train

        Train(**{item.name: getattr(self, item.name) for item in fields(self)}).run()


def _check(path: str | None, words: list[str]) -> None:
    """Refuse what of a new training can be refused without torch."""
    if path and (stages := staged(path, words)):
        stages.check_begun()
        stages.check(partial(_check_training, of_stage=stages.is_of_stage))
        return
    asked = _check_training(path, words)
    if asked.resume is None and (asked.data or asked.out) and is_main():
        check_free(asked.folder)


def _check_training(
    path: str | None, words: list[str], of_stage: Callable[[str | None], bool] | None = None
) -> Settings:
    """Refuse what of one training can be refused without torch, but for its folder; `of_stage`: what comes to be."""
    asked, given = check_words(Settings, path, words)
    check_device(asked.device)
    if asked.resume is not None:
        return asked
    check_names(replace(asked, init=None) if of_stage and of_stage(asked.init) else asked)
    if len(given & set(BASES)) != 1:
        raise ValueError(NOTHING)
    check_cameras(asked, _inputs_asked(path, words))
    size_of(asked.processes)
    check_launcher(asked)
    return asked


def _inputs_asked(path: str | None, words: list[str]) -> list[str]:
    """What the words, or else the config, name as inputs, as far as that is plain."""
    for word, after in pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name in INPUTS:
            inputs = yaml.safe_load(value if equals else after)
            return [str(key) for key in inputs or ()] if isinstance(inputs, list | None) else [str(inputs)]
    groups = [held for group in BASES if isinstance(held := (load(path) if path else {}).get(group), dict)]
    return [key for held in groups for key in held.get("inputs") or ()]


def _check_beside(settings: str, words: list[str]) -> None:
    """Refuse flags beside --resume that no training has; of settings that cannot be read `train.py` says more."""
    try:
        check_words(Settings, settings, [])
    except UsageError:
        return
    asked, _ = check_words(Settings, settings, words)
    check_device(asked.device)
    size_of(asked.processes or 1, f"{Path(settings).parent}, as it began,")
    check_launcher(asked)


def _type_asked(words: list[str], config: dict) -> tuple[str, str] | None:
    """(what is trained, its type) that the words of a help name, or the config among them; None: another group.

    Raises:
        UsageError: no type is named.
    """
    for group in BASES:
        given = [word.partition("=")[2] or after for word, after in pairwise([*words, ""])
                 if word.partition("=")[0] in (f"--{group}.type", f"--{group}")]  # fmt: skip
        held = config.get(group)
        kind = given[0] if given else held.get("type") if isinstance(held, dict) else held
        if kind:
            return group, str(kind)
    if words[0] not in BASES:
        return None
    if len(words) == 1:
        known = registered_names(BASES[words[0]])
        raise UsageError(f"say which: understudy train --help {words[0]} TYPE. Known: {', '.join(sorted(known))}")
    return words[0], words[1]


def _of_type(group: str, kind: str) -> Iterator[Setting]:
    """The settings of a registered type."""
    known = BASES[group].get_known_choices()  # type: ignore[attr-defined]  # a ChoiceRegistry
    return settings_of(lookup(f"{group} type", kind, known), f"{group}.")


def _group(name: str) -> list[Setting]:
    """The settings of a group, or the one of this name."""
    name = name.removeprefix("--")
    listed = list(settings_of(Settings))
    found = [setting for setting in listed if setting.name == name or setting.name.startswith(f"{name}.")]
    if not found:
        groups = dict.fromkeys(setting.name.partition(".")[0] for setting in listed)
        lookup("group of settings", name, groups)
    return found
