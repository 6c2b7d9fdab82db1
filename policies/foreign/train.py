"""Stock lerobot-train on a local dataset, so that a foreign policy can be made and then judged here.

    understudy lerobot-train configs/foreign/pusht_diffusion.yaml --steps=500 --output_dir=out/x

The first word is a YAML file of lerobot-train's own flags, later words are flags as they are. What runs is lerobot's
own `main`, unchanged: only the imports get the help that a CPU build of torch needs, and the hub is never asked. A flag
that lerobot has renamed may be written by either name.
The folder to judge afterwards is OUTPUT_DIR/checkpoints/last/pretrained_model.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from ...configs.settings.refusals import UsageError
from ...configs.settings.shipped import find_config, is_config

FLAGS_RENAMED = (("eval_freq", "env_eval_freq"),)  # before lerobot 0.6, since


@dataclass(frozen=True, kw_only=True)
class LerobotTrain:
    """Train a policy of lerobot's by its own lerobot-train: a YAML file of its flags, then flags as they are."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("flags",)

    flags: tuple[str, ...]  # flags of lerobot-train as they are, --name=value; they win over those of the file

    @classmethod
    def from_words(cls, words: list[str]) -> LerobotTrain:
        """The words as they are: the file, then flags. Raises UsageError without a file."""
        if not words or not is_config(words[0]):
            raise UsageError("give a YAML file of lerobot-train's flags first, as configs/foreign/pusht_diffusion.yaml")
        return cls(flags=tuple(merge(flags_of(find_config(words[0])), words[1:])))

    @property
    def steps(self) -> int:
        """Optimiser steps that the flags ask for; 0 where they leave that to lerobot."""
        said = next((flag.partition("=")[2] for flag in self.flags if flag.startswith("--steps=")), "")
        return int(said) if said.isdigit() else 0

    def run(self) -> None:
        """Train. Raises ImportError (how to install lerobot) or what lerobot raises."""
        from ...configs.compat import prepare_lerobot

        prepare_lerobot()
        from lerobot.configs.train import TrainPipelineConfig
        from lerobot.scripts.lerobot_train import main as train

        known = {field.name for field in fields(TrainPipelineConfig)}
        flags = merge([], for_installed(self.flags, known))  # a later flag wins, by whichever name
        sys.argv = ["lerobot-train", *flags]
        train()


def flags_of(file: str | Path) -> list[str]:
    """The flags that a YAML file of `name: value` stands for; `$VAR` in text is expanded.

    Raises:
        ValueError: the file holds no mapping.
    """
    import yaml

    values = yaml.safe_load(Path(file).read_text())
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold flags of lerobot-train, one `name: value` a line")
    return [f"--{name}={_spell(value)}" for name, value in values.items()]


def merge(flags: list[str], later: list[str]) -> list[str]:
    """Both lists, a later flag replacing an earlier one of the same name."""
    named = {flag.partition("=")[0]: flag for flag in [*flags, *later]}
    return list(named.values())


def for_installed(flags: Sequence[str], known: Collection[str]) -> list[str]:
    """`flags` under the names that the installed lerobot gives them.

    Args:
        known: the settings that its `TrainPipelineConfig` has.
    """
    renamed = {old: new for old, new in FLAGS_RENAMED if old not in known and new in known}
    renamed |= {new: old for old, new in FLAGS_RENAMED if new not in known and old in known}
    renamed = {f"--{name}": f"--{here}" for name, here in renamed.items()}
    parts = (flag.partition("=") for flag in flags)
    return [f"{renamed.get(name, name)}{equals}{value}" for name, equals, value in parts]


def _spell(value) -> str:
    return os.path.expandvars(value) if isinstance(value, str) else json.dumps(value)
