"""Numbers of a world model from measured films: means with 95 % intervals over episodes, and the gate.

The gate: nothing that a world model says of policies is to be believed while true actions do not foretell at least
`GATE` dB better than shuffled ones, `BLOCK` frames on and where something moves. A model whose pictures are as sharp
may ignore its actions, and then ranks policies at random or backwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...configs.progress import counted
from ...configs.spec import STATE
from ...world_models.gate import AT, GATE, misread, passes, refusal

DRAWS = 2000  # of the bootstrap over episodes
SHIFTED = 0.3  # dB by which actions of another row must foretell better; less is chance where a model ignores actions
FEW = 5  # films that must succeed, and that must fail, or nobody can tell


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
    pictures = [name for name in measured if name.split()[-1] in ("psnr", "ssim", "latent") or name.startswith("psnr ")]
    by_step = {name: [interval(measured[name][:, i], episodes) for i in range(len(wanted))] for name in pictures}
    states: dict[str, dict] = {}
    for key, spread in spreads.items():
        kinds = {"imagined": measured[f"{key} error"], "true": measured[f"{key} seen"]}
        states[key] = {}
        for kind, errors in kinds.items():
            relative = np.abs(errors).mean(0) / np.asarray(spread)  # (L, D) spreads
            states[key][kind] = {
                "median": np.median(np.abs(errors), 0).tolist(),  # (L, D) units
                "relative": [float(value) for value in relative.mean(1)],  # (L,)
                "each": [float(value) for value in relative.mean(0)],  # (D,)
            }
    return {
        "steps": list(wanted),
        "by_step": by_step,
        "following": following(measured, wanted, episodes),
        "states": states,
    }


def read_off(states: Mapping[str, Mapping], drawn: bool) -> dict[str, float]:
    """Mean error, in spreads, with which each state is read from true frames; joints of a drawn robot are not read."""
    return {
        key: float(np.mean(kinds["true"]["relative"])) for key, kinds in states.items() if not (drawn and key == STATE)
    }


def reading_lines(about: dict) -> list[str]:
    """Of each state that policies should not act by in a dream of this model, and which of its numbers are misread."""
    measures = about["measures"]
    read, lines = measures.get("read", {}), []
    for key in read:
        if not (why := misread({"read": read}, [key])):
            continue
        lines.append(f"states: policies that act by {key}, or are judged by it, are not ranked: {why}")
        if each := measures["states"][key]["true"].get("each"):
            told = ", ".join(f"{name} {off:.2f}" for name, off in zip(measures["names"][key], each, strict=True))
            lines.append(
                f"        number by number: {told}. What one camera does not show, such as how far away a small thing "
                "is, nobody reads from it"
            )
    return lines


def judged(
    measured: Mapping[str, np.ndarray], wanted: Sequence[int], outcome: np.ndarray, known: np.ndarray
) -> dict[str, Any]:
    """How right the judge is on true and on imagined frames, at each step, where outcomes were recorded.

    Args:
        outcome, known: (B, T + 1, 2) success and progress, and whether they are known.
    """
    at = list(wanted)
    out: dict[str, Any] = {}
    for kind, label in (("seen", "true"), ("imagined", "imagined")):
        right = (measured[f"success {kind}"] >= 0.5) == (outcome[:, at, 0] > 0.5)
        away = np.abs(measured[f"progress {kind}"] - outcome[:, at, 1])
        out[label] = {"success": _where(right, known[:, at, 0]), "progress": _where(away, known[:, at, 1])}
    out["successes"] = int(((outcome[:, at, 0] > 0.5) & known[:, at, 0]).sum())
    return out


def _where(values: np.ndarray, known: np.ndarray) -> list[float | None]:
    """(L,) means of the values that are known."""
    return [float(v[k].mean()) if k.any() else None for v, k in zip(values.T, known.T, strict=True)]


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


def success_over_time(
    judged: np.ndarray, outcome: np.ndarray, known: np.ndarray, steps: Sequence[int], episodes: np.ndarray
) -> dict[str, Any]:
    """Up to which step an imagined success is worth something: first success by then, imagined and recorded.

    At each step the imagined probability (the greatest so far) is compared with the share of films that succeeded by
    then, by the Brier score: `gain` is how much better it is, with a 95 % interval over episodes. `believed` is the
    last step up to which the whole interval lies above zero; None where it never does, or where nobody can tell.

    Args:
        judged: (B, L) probability of success in the imagined films at `steps`, the given frame left out.
        outcome, known: (B, L + 1) recorded success there and at the given frame.
    """
    fresh = known[:, 1:].all(1) & ~((outcome[:, 0] > 0.5) & known[:, 0])
    said = np.maximum.accumulate(judged[fresh], 1)
    won = np.maximum.accumulate(outcome[fresh, 1:] > 0.5, 1).astype(float)
    rows: dict[str, list] = {"won": [], "right": [], "gain": []}
    believed, going = None, True
    for place, step in enumerate(steps):
        p, y = said[:, place], won[:, place]
        sure = p >= 0.5
        rows["won"].append(int(y.sum()))
        rows["right"].append([int(y[sure].sum()), int(sure.sum())])
        if min(y.sum(), len(y) - y.sum()) < FEW:
            rows["gain"].append(None)
            continue
        rows["gain"].append(interval((y.mean() - y) ** 2 - (p - y) ** 2, episodes[fresh]))
        going = going and rows["gain"][-1][0] > 0
        believed = int(step) if going else believed
    return {"steps": list(map(int, steps)), "films": int(fresh.sum()), "believed": believed} | rows


def success_lines(about: dict) -> list[str]:
    """How imagined successes hold, a line for each step, and up to which they are to be believed."""
    over = about["measures"]["success"]
    lines, rate = [ending_line(about)], about["data"]["rate"]
    for step, won, (right, said), gain in zip(over["steps"], over["won"], over["right"], over["gain"], strict=True):
        much = "too few to tell" if gain is None else f"gain {gain[1]:+.3f} [{gain[0]:+.3f}, {gain[2]:+.3f}]"
        lines.append(
            f"success by {step:>4} frames: {right} of {said} imagined ones are true; {won} of {over['films']} true; "
            f"{much}"
        )
    if all(gain is None for gain in over["gain"]):
        lines.append(
            "horizon: nobody can tell how long an imagined success is to be believed; of these films fewer than "
            f"{FEW} succeed or fail. Take more episodes, of policies that fail, too"
        )
    elif over["believed"] is None:
        lines.append(
            "horizon: no imagined success is to be believed here: it foretells no better than the share of successes"
        )
    else:
        step = over["believed"]
        lines.append(
            f"horizon: an imagined success is to be believed up to {counted(step, 'frame')} ({step / rate:.3g} s): "
            "up to there it foretells better than the share of successes does (Brier score, 95 % over episodes)"
        )
    return lines


def ending_line(about: dict) -> str:
    """From which probability on an imagined episode has succeeded."""
    endings = about["measures"].get("endings", {"episodes": 0, "won": 0})
    won, count = endings["won"], endings["episodes"]
    said = f"success of whole episodes: {won} of {counted(count, 'episode')} truly succeeded; "
    if "order" not in endings:
        return f"{said}too few did, or did not, to tell from which probability on a dream should count one ({FEW} each)"
    low, order, high = endings["order"]
    said += f"imagined, a success is surer than a failure in {order:.0%} [{low:.0%}, {high:.0%}] of the pairs; "
    if "doubted" in endings:
        return (
            f"{said}but as many succeed only if {endings['doubted']:.2g} counts, at which the judge is all but sure of "
            "the contrary: dreams count a success from 0.5 on, and may miss them. Train on more episodes that nearly "
            "succeed"
        )
    if "at" not in endings:
        return f"{said}no better than chance, so no probability tells them apart: believe no imagined success"
    if about["data"]["trained_on"]:
        return f"{said}trained on, so dreams do not count by these"
    return f"{said}dreams count one from probability {endings['at']:.2g} on, from which as many succeed"


def failure_lines(about: dict) -> list[str]:
    """The failures of imagined films, a line for each kind."""
    return [
        f"{name.ljust(16)}{one['count']:>6} of {one['of']:<6} looks ({one['count'] / one['of']:.1%}), in "
        f"{counted(one['films'], 'film')}"
        for name, one in about["measures"]["failures"].items()
    ]


LABELS = {
    "psnr true": "PSNR, dB",
    "copy psnr": "  copy of the first frame",
    "codec psnr": "  codec alone (ceiling)",
    "given psnr": "  from true frames, a chunk on",
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
        f"{counted(following['step'], 'frame')} ({counted(following['films'], 'film')} in which something moves; "
        f"{GATE:g} dB are asked for)."
    )


def starts_line(about: dict) -> str:
    """Which first frames a dream of this model refuses."""
    starts = about["measures"]["starts"]
    if about["data"]["trained_on"]:
        return "starts: films of training say nothing of which scenes are strange; dreams refuse none by these"
    return (
        f"starts: dreams refuse a first frame that comes out of the codec off by more than {starts['most']:.3f}, "
        f"half again the worst of {counted(starts['episodes'], 'episode')}; of fresh ones of the same scenes at most "
        f"{1 / (starts['episodes'] + 1):.0%}"
    )


def remarks(about: dict) -> list[str]:
    """What a reader must know beside the numbers."""
    measures, notes = about["measures"], list(about["data"]["notes"])
    lags = {int(lag): value for lag, value in measures["lags"].items()}
    best = max(lags, key=lambda lag: lags[lag]) if lags else 0
    if best and lags[best] > lags[0] + SHIFTED:
        notes.append(
            f"actions told {abs(best)} {'step' if abs(best) == 1 else 'steps'} {'later' if best > 0 else 'earlier'} "
            f"foretell better ({lags[best]:.2f} dB "
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


def judge_lines(judge: Mapping[str, Any]) -> list[str]:
    """How right the judge is, a line each, in the columns of the table."""
    lines = []
    for label in ("true", "imagined"):
        for what, name in (("success", "judge right"), ("progress", "judge, progress off")):
            values = judge[label][what]
            if any(value is not None for value in values):
                cells = "".join(f"{'-' if value is None else format(value, '.3g'):>8}" for value in values)
                lines.append(f"{name}, {label}".ljust(28) + cells)
    for label, shares in judge["fakes"].items():
        lines.append(f"judge of {label} films: " + ", ".join(f"{name} {value:.0%}" for name, value in shares.items()))
    return lines
