"""What was measured of a world model, noted beside its run, so that nobody ranks policies by one that was not.

`understudy eval --world-model` writes it; worlds that dream read it, by the fingerprint of the weights. Needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..configs.documents import read_object
from ..configs.files import replace_text

FILE = "following.json"  # beside the checkpoints of a run: fingerprint of the weights -> how they follow actions
GATE = 2.0  # dB
AT = 16  # frames
READS = 0.3  # of its spread, mean error at most with which a state may be read from true frames that trained nothing
SUCCESS_AT = 0.5  # calibrated probability from which an imagined episode has succeeded, where nobody measured it
JUDGES = ("learned", "states")  # who says how a film goes: the model's judge; a world's rules, by the states read
DOUBTED = 0.03  # below it a measured probability counts what the judge is all but sure to be no success
ABSTAINS = "the dream abstains"  # begins the error of an episode whose start it does not know

# what a film says of itself while it runs, see `signals.py`
SIGNALS = ("round_trip", "apart", "drawn", "inverse", "arm", "unreal", "margin")


class DreamError(ValueError):
    """A dream that cannot begin or go on; the message says what to do."""


def note(checkpoint: str | Path, fingerprint: str, following: Mapping[str, Any]) -> Path:
    """Keep what was measured of a checkpoint's action following. Raises OSError where it cannot be written."""
    file = file_of(checkpoint)
    return replace_text(file, json.dumps({**_read(file), fingerprint: dict(following)}, indent=1) + "\n")


def noted(checkpoint: str | Path, fingerprint: str) -> dict | None:
    """What was measured of these weights, if anything was."""
    return _read(file_of(checkpoint)).get(fingerprint)


def strange(following: Mapping[str, Any] | None, off: float) -> str:
    """Why a film may not begin with a frame that is so far `off` after its round trip; nothing where it may.

    Where nobody has measured how strange known scenes look, every frame may.
    """
    starts = (following or {}).get("starts")
    if not starts or off <= starts["most"]:
        return ""
    return (
        f"{ABSTAINS}: the first frame is of a scene that the world model does not know; encoded and decoded it is off "
        f"by {off:.3f}, and {starts['most']:.3f} is allowed by {starts['episodes']} episodes held out. Judge this "
        f"start in "
        "the truth, and record such episodes for the next training"
    )


def misread(known: Mapping[str, Any] | None, inputs: Collection[str]) -> str:
    """Why whoever goes by these keys may not be ranked: one is read too badly from true frames; or nothing."""
    read = (known or {}).get("read", {})
    worst = max((key for key in inputs if key in read), key=lambda key: read[key], default=None)
    if worst is None or read[worst] <= READS:
        return ""
    return (
        f"even from true frames {worst} is read with a mean error of {read[worst]:.2f} of its spread, and {READS:g} "
        "are allowed, so whoever goes by it sees what is not there. Train the codec longer, give it state_maps where "
        "numbers are places in the picture, or go without it: policies that act from pictures, the learned judge"
    )


def misjudged(known: Mapping[str, Any] | None) -> str:
    """Why no policies may be ranked that were judged by the states that are read from frames; or nothing."""
    if "read" not in (known or {}):
        return (
            "nobody has measured how well states are read from its frames; measure it with: understudy eval "
            "--world-model RUN --data DATA --out DIR"
        )
    return misread(known, (known or {})["read"])


def success_of(known: Mapping[str, Any] | None, every: int, real_at: float) -> float:
    """Probability from which an imagined episode has succeeded: as measured, else `SUCCESS_AT`.

    Raises DreamError: it was measured with other looks.
    """
    endings = (known or {}).get("endings") or {}
    if endings.get("at", 0) < DOUBTED:
        return SUCCESS_AT
    if (endings["every"], endings["real_at"]) != (every, real_at):
        raise DreamError(
            f"from which probability on a film has succeeded was measured with judge_every {endings['every']} and "
            f"real_at {endings['real_at']:g}; for {every} and {real_at:g} say success_at"
        )
    return float(endings["at"])


def passes(following: Mapping[str, Any] | None) -> bool:
    """Whether a model that follows its actions so may rank policies."""
    known = following or {}
    gap = known.get("gap", {}).get("shuffled")
    return bool(gap) and gap[1] >= GATE and known.get("step", AT) >= AT and not known.get("trained_on")


def refusal(following: Mapping[str, Any] | None) -> str:
    """Why it may not, and what to do."""
    if following is None:
        return (
            "nobody has measured whether the model follows its actions; measure it with: understudy eval --world-model "
            "RUN --data DATA --out DIR"
        )
    if following.get("trained_on"):
        return (
            "the model was trained on some of these films, which say how well it remembers, and open no gate; measure "
            "episodes that it has not seen (--episodes held-out)"
        )
    if following.get("step", AT) < AT:
        return (
            f"the films were {following['step']} frames long, and the model is judged at {AT}; measure it with "
            f"--horizon {AT} or more"
        )
    if "gap" not in following:
        return "nothing moves in these films, so nobody can tell whether the model follows actions; take other episodes"
    return (
        f"true actions foretell only {following['gap']['shuffled'][1]:+.2f} dB better than shuffled ones at "
        f"{following['step']} frames, and {GATE:g} dB are asked for: the model does not follow its actions, and no "
        "ranking of policies by it is to be believed. Give it action_maps where an action is a place in the picture, "
        "train it longer, or on episodes in which more happens"
    )


def file_of(checkpoint: str | Path) -> Path:
    """Where the measures of a checkpoint are kept; it need not be there."""
    folder = Path(checkpoint)
    return (folder.parent.parent if folder.parent.name == "checkpoints" else folder) / FILE


def _read(file: Path) -> dict:
    return read_object(file, ValueError) if file.is_file() else {}
