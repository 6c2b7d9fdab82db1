"""How imagined films go wrong, counted beside the true ones under the same actions; nothing here acts.

Each kind is counted where it could happen (`of`), at looks one judge's gap apart:

    copied          the true picture changed, the imagined one by less than a quarter of that
    copied, slow    the same, of the slower half of the changes alone
    moved alone     the true picture stood still, the imagined one changed
    vanished        less than half as much stands out from the mean picture as in the true frame
    duplicated      more than half as much again stands out
    teleported      states that are read jump further between two looks than any true film here lets them
    views disagree  one camera lost `APART` dB more than another, each against what its codec can show
    success lost    judged a success before, and the true film still is one, but no longer judged so
    false success   judged a success by then (the first one counts), and the true film had none
    missed success  the other way round

The kinds that a judge of evaluation films should know: arXiv 2511.11520 (copying at small motions, views that disagree,
what happens after success), and the fakes that the judge learns from (`judge.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .blocks import as_floats
from .codec import Reading
from .film_model import FilmModel
from .films import Clips, filmed
from .judge import SEEN as STILL
from .judge import foreground
from .metrics import psnr

COPIED = 0.25  # part of the true change below which a frame was copied
LESS, MORE = 0.5, 1.5  # times the true foreground
LEAST = 0.002  # part of the picture that must stand out
JUMP = 1.2  # times the furthest true jump
APART = 6.0  # dB


@dataclass(frozen=True)
class Seen:
    """What is seen at L looks of B films, true or imagined."""

    change: np.ndarray  # (B, L - 1) mean difference from the look before, of 1
    stands_out: np.ndarray  # (B, L) part of the picture
    states: np.ndarray | None  # (B, L, D) read, in spreads
    lost: np.ndarray  # (B, L, cameras) dB below the truth, of what the codec can show
    success: np.ndarray  # (B, L) judged probability


def looks(cut: Clips, gap: int) -> list[int]:
    """Steps at which a film is looked at; 0 is the given frame."""
    return list(range(0, cut.steps + 1, gap))


@torch.no_grad()
def watch(model: FilmModel, cut: Clips, seed: int = 0) -> tuple[Seen, Seen]:
    """The true and the imagined films at their looks."""
    device = next(model.parameters()).device
    steps = looks(cut, model.config.eyes.gap)
    true = [cut.pictures[:, step].to(device) for step in steps]
    told = (model, cut.pictures[:, 0], cut.actions, steps[1:], seed, cut.joints())
    imagined = [true[0], *(pictures for _, _, pictures in filmed(*told))] if len(steps) > 1 else true[:1]
    return _watched(model, true, true), _watched(model, imagined, true)


def catalogue(true: Seen, imagined: Seen, outcome: np.ndarray, known: np.ndarray) -> dict[str, dict[str, int]]:
    """Kind -> `count`, `of` how many, in how many `films`.

    Args:
        outcome, known: (B, L) success at the looks, as recorded, and whether it was.
    """
    out: dict[str, dict[str, int]] = {}

    def put(name: str, wrong: np.ndarray, could: np.ndarray) -> None:
        wrong = wrong & could
        if could.any():
            out[name] = {"count": int(wrong.sum()), "of": int(could.sum()), "films": int(wrong.any(1).sum())}

    moved = true.change > STILL
    copied = imagined.change < COPIED * true.change
    put("copied", copied, moved)
    if moved.any():
        put("copied, slow", copied, moved & (true.change <= np.median(true.change[moved])))
    put("moved alone", imagined.change > STILL, true.change < STILL / 2)
    there = true.stands_out[:, 1:] > LEAST
    put("vanished", imagined.stands_out[:, 1:] < LESS * true.stands_out[:, 1:], there)
    put("duplicated", imagined.stands_out[:, 1:] > MORE * true.stands_out[:, 1:], there)
    if true.states is not None and imagined.states is not None:
        far, jumps = (np.abs(np.diff(one, axis=1)) for one in (true.states, imagined.states))
        put("teleported", (jumps > JUMP * far.max((0, 1))).any(2), np.ones(jumps.shape[:2], bool))
    if imagined.lost.shape[2] > 1:
        put("views disagree", np.ptp(imagined.lost[:, 1:], axis=2) > APART, np.ones_like(there))

    judged, won = imagined.success >= 0.5, (outcome > 0.5) & known
    before = np.maximum.accumulate(judged & won, 1)[:, :-1]
    put("success lost", ~judged[:, 1:], before & won[:, 1:])
    fresh = ~won[:, :1] & known[:, -1:]  # films that do not begin with success
    first, ours = np.maximum.accumulate(won, 1)[:, 1:], np.maximum.accumulate(judged[:, 1:], 1)
    put("false success", ours, fresh & ~first)
    put("missed success", ~ours, fresh & first)
    return out


def _watched(model: FilmModel, films: list[Tensor], true: list[Tensor]) -> Seen:
    sight, read = model.sight, [model.sight.read(one) for one in films]
    floats, theirs = [as_floats(one) for one in films], [as_floats(one) for one in true]
    change = [(b - a).abs().mean((1, 2, 3)) for a, b in zip(floats, floats[1:], strict=False)]
    stands_out = [foreground(one, sight.codec.mean).float().mean((1, 2, 3)) for one in floats]
    lost = [_lost(model, *pair) for pair in zip(floats, theirs, strict=True)]
    success = [_success(model, one) for one in read]
    states = [torch.cat([one.states[key] for key in sight.keys], 1) for one in read] if sight.keys else None
    scale = sight.reader.scale
    told = None if states is None or scale is None else _stack([scale.scale(one) for one in states])
    still = np.zeros((len(films[0]), 0))
    return Seen(_stack(change) if change else still, _stack(stands_out), told, _stack(lost), _stack(success))


def _lost(model: FilmModel, seen: Tensor, true: Tensor) -> Tensor:
    """(B, cameras) dB that frames (B, 3 cameras, h, w) lost against a round trip of the true ones."""
    best = model.round_trip(true)
    cameras = range(0, true.shape[1], 3)
    return torch.stack([psnr(best[:, c : c + 3], true[:, c : c + 3]) - psnr(seen[:, c : c + 3], true[:, c : c + 3])
                        for c in cameras], 1)  # fmt: skip


def _success(model: FilmModel, read: Reading) -> Tensor:
    none = read.features.new_zeros(len(read.features), model.sight.config.gap * model.sight.actions)
    return model.sight.judge(read.features, read.features, none).success


def _stack(parts: list[Tensor]) -> np.ndarray:
    return torch.stack(parts, 1).cpu().numpy()
