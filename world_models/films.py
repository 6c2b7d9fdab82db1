"""Imagined beside recorded films: what a world model makes of the first frame and the actions of an episode.

A film is imagined from its first frame alone, a chunk at a time, on frames of the model's own. Beside the true actions
it is told them shuffled in time and backwards (within blocks of `BLOCK` steps), and those of another film: a model that
follows actions is worse at those. Nothing here acts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..configs.episode import SENT
from ..configs.spec import STATE
from ..policies.policy import LaneNoise
from .blocks import as_floats
from .codec import Reading, Sight
from .data import JUDGED, OUTCOME, offered_states, open_joint, outcomes
from .film_model import FilmModel, Memory
from .judge import FAKES, fakes
from .judge import SEEN as STILL
from .metrics import psnr, ssim

if TYPE_CHECKING:
    from ..policies.data.dataset import Dataset

BLOCK = 16  # control steps in which actions are shuffled, and at which action following is judged
HORIZONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LAGS = (-2, -1, 0, 1, 2)
LOOKED_AT = 16  # frames of an episode that say how strange a known scene may look
SLACK = 1.5  # times the strangest known frame: few held-out episodes would else refuse many fresh ones
TOLD = ("true", "shuffled", "backwards", "another's")


@dataclass(frozen=True)
class Clips:
    """B stretches of recorded episodes, T steps each."""

    episode: np.ndarray  # (B,) position in the dataset
    first: np.ndarray  # (B,) its frame that the film begins with
    actions: np.ndarray  # (B, T, D) executed, units
    pictures: Tensor  # (B, T + 1, cameras, h, w, 3) uint8
    states: dict[str, np.ndarray]  # key -> (B, T + 1, D), units
    outcome: np.ndarray  # (B, T + 1, 2) success and progress, as recorded
    known: np.ndarray  # (B, T + 1, 2) bool, whether they were recorded

    @property
    def steps(self) -> int:
        return self.actions.shape[1]

    def joints(self, step: int = 0) -> np.ndarray | None:
        """(B, 1, D) of the robot at a step, for a model that draws it; None where states were not recorded."""
        return self.states[STATE][:, step : step + 1] if STATE in self.states else None

    def __len__(self) -> int:
        return len(self.episode)


def clips(dataset: Dataset, model: FilmModel, episodes: Sequence[int], steps: int, most: int) -> Clips:
    """At most `most` stretches of `steps` steps, spread evenly over episodes at these positions.

    Raises:
        ValueError: no episode is that long.
    """
    config = model.config.eyes
    begin = [(m, at) for m in episodes for at in range(0, int(dataset.lengths[m]) - steps, max(1, steps // 2))]
    if not begin:
        longest = max((int(dataset.lengths[m]) for m in episodes), default=0)
        raise ValueError(f"no chosen episode has {steps + 1} frames, the longest has {longest}; give a lower --horizon")
    places = np.unique(np.linspace(0, len(begin) - 1, min(most, len(begin))).round().astype(int))
    position, first = (np.array(part) for part in zip(*(begin[place] for place in places), strict=True))
    rows = (dataset.starts[position] + first)[:, None] + np.arange(steps + 1)
    frames = open_joint(dataset, config.cameras, config.size, np.unique(position))
    keys = [key for key in model.sight.keys if key in offered_states(dataset)]
    states = {key: dataset.columns[key][rows] for key in keys}
    recorded = outcomes(dataset)
    return Clips(
        position, first, dataset.columns[SENT][rows[:, :-1]], torch.from_numpy(frames.read(rows)), states,
        recorded[OUTCOME][rows], recorded[JUDGED][rows],
    )  # fmt: skip


def part(cut: Clips, chosen: slice | np.ndarray) -> Clips:
    """Some of the films."""
    return Clips(
        cut.episode[chosen], cut.first[chosen], cut.actions[chosen], cut.pictures[chosen],
        {key: value[chosen] for key, value in cut.states.items()}, cut.outcome[chosen], cut.known[chosen],
    )  # fmt: skip


def tellings(actions: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The actions (B, T, D) as each of `TOLD`; "another's" is left out where there is one film alone."""
    steps = actions.shape[1]
    blocks = [np.arange(at, min(at + BLOCK, steps)) for at in range(0, steps, BLOCK)]
    mixed = np.stack([np.concatenate([rng.permutation(block) for block in blocks]) for _ in actions])
    told = {
        "true": actions,
        "shuffled": np.take_along_axis(actions, mixed[..., None], 1),
        "backwards": actions[:, np.concatenate([block[::-1] for block in blocks])],
    }
    return told | ({"another's": np.roll(actions, 1, 0)} if len(actions) > 1 else {})


@torch.no_grad()
def imagine(
    model: FilmModel,
    pictures: Tensor,
    actions: np.ndarray,
    wanted: Sequence[int],
    seed: int = 0,
    joints: np.ndarray | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Films from first frames (B, cameras, h, w, 3) uint8 under actions (B, T, D): (step, latents (B, C, h, w)).

    Args:
        wanted: steps after which frames are wanted.
        joints: (B, n, D) that the films begin with, of a model that draws its robot.
    """
    for step, latents, _ in _film(model, pictures, actions, wanted, seed, joints):
        yield step, latents


@torch.no_grad()
def filmed(
    model: FilmModel,
    pictures: Tensor,
    actions: np.ndarray,
    wanted: Sequence[int],
    seed: int = 0,
    joints: np.ndarray | None = None,
    before: Tensor | None = None,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """What `imagine` gives, with the pictures (B, cameras, h, w, 3) uint8 that it shows.

    Args:
        before: pictures of one frame before the first ones; None: they stood still.
    """
    for step, latents, poses in _film(model, pictures, actions, wanted, seed, joints, before):
        yield step, latents, model.show(latents, poses)


def _film(
    model: FilmModel,
    pictures: Tensor,
    actions: np.ndarray,
    wanted: Sequence[int],
    seed: int,
    joints: np.ndarray | None,
    before: Tensor | None = None,
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """(step, latents (B, C, h, w), poses (B, P) of a robot that is drawn)."""
    device = next(model.parameters()).device
    begun = torch.from_numpy(np.asarray(joints, np.float32)).to(device) if model.draws and joints is not None else None
    memory: Memory = model.remember(pictures.to(device), None if before is None else before.to(device), begun)
    told, count = torch.from_numpy(np.ascontiguousarray(actions, np.float32)).to(device), len(actions)
    for at in range(0, max(wanted), model.horizon):
        chunk = told[:, at : at + model.horizon]
        here = [step for step in wanted if at < step <= at + chunk.shape[1]]
        noise = LaneNoise(seed, np.arange(count), np.full(count, at)).normal(1, *memory.now.shape[1:]).to(device)
        poses = model.poses(memory, chunk, [step - at for step in here])
        latents, memory = model.advance(memory, chunk, [step - at for step in here], noise)
        each = [None] * len(here) if poses is None else poses.unbind(1)
        yield from zip(here, latents.unbind(1), each, strict=True)


@torch.no_grad()
def measure(model: FilmModel, cut: Clips, wanted: Sequence[int], seed: int = 0) -> dict[str, np.ndarray]:
    """How alike imagined and recorded films are, each (B, L) at the steps `wanted`.

    Returns:
        `psnr TOLD` for each of `TOLD`, `ssim`, `latent` (mean squared error) of the true actions; `copy ssim`, `copy
        psnr`, `copy latent` of repeating the first frame; `codec psnr`, the round trip, which is the ceiling; `given
        psnr`, of films from the true frame a chunk before, none of whose errors are older; `moved`, bool, whether the
        picture changed; `KEY error` and `KEY seen` (B, L, D), of states read from imagined and from
        true frames, units; `success seen`, `progress seen`, `success imagined`, `progress imagined`, as judged.
    """
    sight, device = model.sight, next(model.parameters()).device
    out: dict[str, list] = {}

    def put(name: str, value: Tensor) -> None:
        out.setdefault(name, []).append(value.cpu().numpy())

    # against copying, and against the codec alone
    first = cut.pictures[:, 0].to(device)
    start, begun = as_floats(first), model.encode(first)
    for step in wanted:
        frame = cut.pictures[:, step].to(device)
        true, latent = as_floats(frame), model.encode(frame)
        put("copy psnr", psnr(start, true))
        put("copy ssim", ssim(start, true))
        put("copy latent", (begun - latent).square().mean((1, 2, 3)))
        put("codec psnr", psnr(model.round_trip(true), true))
        put("given psnr", psnr(as_floats(_given(model, cut, step, seed)), true))
        put("moved", (start - true).abs().mean((1, 2, 3)) > STILL)
        read = sight.read(frame)
        _put_states(put, "seen", read.states, cut, step)
        _put_outcome(put, "seen", sight, read)

    for name, actions in tellings(cut.actions, np.random.default_rng(seed)).items():
        for step, imagined, pictures in filmed(model, cut.pictures[:, 0], actions, wanted, seed, cut.joints()):
            frame = cut.pictures[:, step].to(device)
            seen, true = as_floats(pictures), as_floats(frame)
            put(f"psnr {name}", psnr(seen, true))
            if name == "true":
                put("ssim", ssim(seen, true))
                put("latent", (imagined - model.encode(frame)).square().mean((1, 2, 3)))
                read = sight.read(pictures)
                _put_states(put, "error", read.states, cut, step)
                _put_outcome(put, "imagined", sight, read)
    return {name: np.stack(values, 1) for name, values in out.items()}


def _given(model: FilmModel, cut: Clips, step: int, seed: int) -> Tensor:
    """Pictures (B, cameras, h, w, 3) uint8 at a step, imagined from the true frame a chunk before or the first one."""
    at = max(0, step - model.horizon)
    before = cut.pictures[:, at - 1] if at else None
    told, wanted = cut.actions[:, at:step], (step - at,)
    [(_, _, pictures)] = filmed(model, cut.pictures[:, at], told, wanted, seed, cut.joints(at), before)
    return pictures


def _put_outcome(put, name: str, sight: Sight, read: Reading) -> None:
    none = read.features.new_zeros(len(read.features), sight.config.gap * sight.actions)
    said = sight.judge(read.features, read.features, none)
    put(f"success {name}", said.success)
    put(f"progress {name}", said.progress)


@torch.no_grad()
def told_fakes(model: FilmModel, cut: Clips) -> dict[str, dict[str, float]]:
    """How often the judge accepts what followed, and refuses each kind of fake, at probability 0.5.

    Apart for `true` films and for `imagined` ones (the model's own under the recorded actions): `accepted`, and
    `KIND refused` over the fakes that can be seen; pairs of frames the judge's gap apart, all along each film.
    """
    gap, device = model.sight.config.gap, next(model.parameters()).device
    steps = list(range(0, cut.steps - gap + 1, gap))
    if not steps:
        return {}
    told = torch.from_numpy(np.concatenate([cut.actions[:, at : at + gap] for at in steps])).to(device)
    ends = [at + gap for at in steps]
    films = {"true": [as_floats(cut.pictures[:, step].to(device)) for step in (0, *ends)]}
    made = filmed(model, cut.pictures[:, 0], cut.actions, ends, joints=cut.joints())
    films["imagined"] = [films["true"][0], *(as_floats(pictures) for _, _, pictures in made)]
    return {name: _told(model, torch.cat(seen[:-1]), torch.cat(seen[1:]), told) for name, seen in films.items()}


def _told(model: FilmModel, before: Tensor, now: Tensor, actions: Tensor) -> dict[str, float]:
    """The part of `told_fakes` for pairs of frames (M, C, h, w) and the actions (M, gap, D) between."""
    sight = model.sight
    scaled = model.action_scale.scale(actions).flatten(1)
    earlier = sight.reader(before)[1]

    def real(seen: Tensor) -> Tensor:
        return sight.judge(sight.reader(seen)[1], earlier, scaled).real >= 0.5

    out = {"accepted": float(real(now).float().mean())}
    for place, name in enumerate(FAKES):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            faked, _, visible = fakes(now, before, sight.codec.mean, torch.full((len(now),), place, device=now.device))
        if visible.any():
            out[f"{name} refused"] = float(((~real(faked)).float() * visible).sum() / visible.sum())
    return out


def _put_states(put, name: str, read: Mapping[str, Tensor], cut: Clips, step: int) -> None:
    for key, states in cut.states.items():
        put(f"{key} {name}", read[key].cpu() - torch.from_numpy(states[:, step]))


@torch.no_grad()
def familiar(model: FilmModel, dataset: Dataset, episodes: Sequence[int]) -> dict[str, float | int]:
    """How strange known scenes may look, from episodes that trained nothing.

    Returns:
        `most`, `SLACK` times the greatest `FilmModel.strange` of any frame that was looked at, and `episodes`, n. Of
        fresh episodes of the same scenes at most 1 / (n + 1) begin with a stranger frame (split conformal prediction
        over episodes).
    """
    config, device = model.config.eyes, next(model.parameters()).device
    frames = open_joint(dataset, config.cameras, config.size, sorted(episodes))
    worst = 0.0
    for m in episodes:
        places = np.unique(np.linspace(0, int(dataset.lengths[m]) - 1, LOOKED_AT).astype(int))
        pictures = torch.from_numpy(frames.read(int(dataset.starts[m]) + places)).to(device)
        worst = max(worst, float(model.strange(pictures).max()))
    return {"most": SLACK * worst, "episodes": len(episodes)}


@torch.no_grad()
def lags(model: FilmModel, dataset: Dataset, episodes: Sequence[int], step: int, most: int) -> dict[int, float]:
    """PSNR after `step` steps where actions are told that many rows later than recorded; empty of short episodes.

    The best is at 0, unless frames and actions are shifted against each other, here or where the model was trained.
    """
    reach = max(LAGS)
    long = [m for m in episodes if dataset.lengths[m] > step + 2 * reach]
    if not long:
        return {}
    cut = clips(dataset, model, long, step + 2 * reach, most)
    begin = (dataset.starts[cut.episode] + cut.first + reach)[:, None] + np.arange(step)
    first, true = cut.pictures[:, reach], as_floats(cut.pictures[:, reach + step])
    found = {}
    for lag in LAGS:
        actions = dataset.columns[SENT][begin + lag]
        [(_, _, pictures)] = filmed(model, first, actions, (step,), joints=cut.joints(reach))
        found[lag] = float(psnr(as_floats(pictures).cpu(), true).mean())
    return found
