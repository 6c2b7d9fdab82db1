"""Numbers of a world model from measured films: means with 95 % intervals over episodes, and the gate.

The gate: nothing that a world model says of policies is to be believed while true actions do not foretell at least
`GATE` dB better than shuffled ones, `BLOCK` frames on and where something moves. A model whose pictures are as sharp
may ignore its actions, and then ranks policies at random or backwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...world_models.gate import AT, GATE, passes, refusal

DRAWS = 2000  # of the bootstrap over episodes


def interval(values: np.ndarray, episodes: np.ndarray) -> list[float]:
    """[low, mean, high] of the mean of values (B,), 95 % by a bootstrap over episodes; nan ends of one episode."""
    names, member = np.unique(episodes, return_inverse=True)
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    np.add.at(sums, member, values)
    np.add.at(counts, member, 1)
    mean = float(sums.sum() / counts.sum())
    if len(names) < 2:
        return [float("nan"), mean, float("nan")]
    drawn = np.random.default_rng(0).integers(len(names), size=(DRAWS, len(names)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), (0.025, 0.975))
    return [float(low), mean, float(high)]


def summarise(
    measured: Mapping[str, np.ndarray], wanted: Sequence[int], episodes: np.ndarray, spreads: Mapping[str, list]
) -> dict[str, Any]:
    """What a record says: `by_step`, `following`, `states`.

    Args:
        measured: of `world_models.films.measure`.
        wanted: steps, in its order.
        episodes: (B,) of each film.
        spreads: key of a state vector -> standard deviation of each dimension.
    """
    pictures = [name for name, values in measured.items() if values.ndim == 2 and name != "moved"]
    by_step = {name: [interval(measured[name][:, i], episodes) for i in range(len(wanted))] for name in pictures}
    states = {}
    for key, spread in spreads.items():
        kinds = {"imagined": measured[f"{key} error"], "true": measured[f"{key} seen"]}
        states[key] = {
            kind: {
                "median": np.median(np.abs(errors), 0).tolist(),  # (L, D) units
                "relative": [float(v) for v in (np.abs(errors).mean(0) / np.asarray(spread)).mean(1)],  # (L,) spreads
            }
            for kind, errors in kinds.items()
        }
    return {
        "steps": list(wanted),
        "by_step": by_step,
        "following": following(measured, wanted, episodes),
        "states": states,
    }


def following(measured: Mapping[str, np.ndarray], wanted: Sequence[int], episodes: np.ndarray) -> dict[str, Any]:
    """Action following at `AT` frames (or the furthest before), over films in which the picture changed, in dB."""
    place = max((i for i, step in enumerate(wanted) if step <= AT), default=0)
    moved = measured["moved"][:, place].astype(bool)
    about: dict[str, Any] = {"step": int(wanted[place]), "films": int(moved.sum()), "gate": GATE}
    if not moved.any():
        return about
    true = measured["psnr true"][moved, place]
    others = [name for name in measured if name.startswith("psnr ") and name != "psnr true"]
    gaps = {name.removeprefix("psnr "): true - measured[name][moved, place] for name in others}
    return about | {"gap": {name: interval(gap, episodes[moved]) for name, gap in gaps.items()}}


LABELS = {
    "psnr true": "PSNR, dB",
    "copy psnr": "  copy of the first frame",
    "codec psnr": "  codec alone (ceiling)",
    "psnr shuffled": "  actions shuffled",
    "psnr backwards": "  actions backwards",
    "psnr another's": "  another film's actions",
    "ssim": "SSIM",
    "copy ssim": "  copy of the first frame",
    "latent": "latent error",
    "copy latent": "  copy of the first frame",
}


def verdict(about: dict) -> str:
    """The sentence that says whether the model follows its actions."""
    following = about["measures"]["following"]
    if not passes(following):
        return f"gate: SHUT. {refusal(following)}."
    low, gap, high = following["gap"]["shuffled"]
    return (
        f"gate: open. True actions foretell {gap:.2f} dB [{low:.2f}, {high:.2f}] better than shuffled ones at "
        f"{following['step']} frames ({following['films']} films in which something moves; {GATE:g} dB are asked for)."
    )


def remarks(about: dict) -> list[str]:
    """What a reader must know beside the numbers."""
    measures, notes = about["measures"], list(about["data"]["notes"])
    lags = {int(lag): value for lag, value in measures["lags"].items()}
    if lags and (best := max(lags, key=lambda lag: lags[lag])) != 0:
        notes.append(
            f"actions told {abs(best)} steps {'later' if best > 0 else 'earlier'} foretell better ({lags[best]:.2f} dB "
            f"against {lags[0]:.2f}): frames and actions of {about['data']['source']} may be shifted against each "
            "other, or were when the model was trained"
        )
    if about["data"]["trained_on"]:
        notes.append("the model was trained on some of these episodes: its films say how well it remembers")
    elif not about["data"]["known"]:
        notes.append("nobody knows whether the model was trained on these episodes")
    copied = [i for i, step in enumerate(measures["steps"]) if step >= 8]
    rows = measures["by_step"]
    worse = [measures["steps"][i] for i in copied if rows["psnr true"][i][1] <= rows["copy psnr"][i][1]]
    if worse:
        notes.append(f"at {', '.join(map(str, worse))} frames the first frame, copied, is as near to the truth")
    return notes
