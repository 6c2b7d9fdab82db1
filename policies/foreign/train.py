"""Stock lerobot-train on a local dataset, so that a foreign policy can be made and then judged here.

    python -m understudy.policies.foreign.train configs/foreign/pusht_diffusion.yaml --steps=500 --output_dir=out/x

The first word is a YAML file of lerobot-train's own flags, later words are flags as they are. What runs is lerobot's
own `main`, unchanged: only the imports get the help that a CPU build of torch needs, and the hub is never asked.
The folder to judge afterwards is OUTPUT_DIR/checkpoints/last/pretrained_model.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


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


def main(words: list[str]) -> None:
    """Train. Raises ImportError (how to install lerobot) or what lerobot raises."""
    from ...configs.compat import prepare_lerobot

    if not words or not words[0].endswith(".yaml"):
        raise SystemExit(__doc__)
    flags = merge(flags_of(words[0]), words[1:])
    prepare_lerobot()
    from lerobot.scripts.lerobot_train import main as train

    sys.argv = ["lerobot-train", *flags]
    train()


def _spell(value) -> str:
    return os.path.expandvars(value) if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    main(sys.argv[1:])
