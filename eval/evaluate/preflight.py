"""Whether the world of an evaluation takes a policy that is yet to be trained: what `train --eval` asks first.

`learning/side_evaluation.py` asks in a process of its own, by `main`. That one ends with status 2 and one line of words
where the config cannot be read, the world is unknown, its actions differ from the embodiment's, or it does not offer an
observation. Opens no world and reads no policy.
"""

from __future__ import annotations

import sys

from ...configs.parse import parse
from ...configs.plugins import discover
from ...configs.spec import IMAGES, Embodiment
from ...configs.world import looked_at
from .evaluate import Eval, open_stage

ANY_SIZE = (64, 64)  # of pictures: nothing is drawn


def preflight(config: str, embodiment: Embodiment, inputs: tuple[str, ...]) -> None:
    """Refuse what `understudy eval CONFIG` would refuse of a policy for this embodiment that reads `inputs`.

    Raises:
        ValueError, LookupError, OSError: what is wrong, in words; see `Embodiment.check`, `read_world`.
    """
    discover(*Eval.DISCOVER)
    settings = parse(Eval, config, ["--policy=none", "--out=none"])
    if settings.world is None:
        raise ValueError(f"{config} names no world; add `world: NAME` (understudy list worlds)")
    world = open_stage(settings)
    read = {key: ANY_SIZE for key in inputs if key.startswith(IMAGES)}
    embodiment.check(looked_at(world, read).embodiment(), inputs)


def main(config: str, *inputs: str) -> None:
    """`preflight` with the embodiment of stdin; what is wrong on stderr, and status 2."""
    try:
        preflight(config, Embodiment.from_json(sys.stdin.read()), inputs)
    except (ValueError, LookupError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
