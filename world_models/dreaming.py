"""The lanes of a dream: B films imagined at once, judged at fixed steps, read as a policy reads any world.

A chunk of actions is imagined in passes of at most the model's horizon, and of it only the frames that somebody reads:
those that the agent looks at, those that the judge looks at, those that are filmed, and what the model itself
remembers. States come from a reader that sees decoded frames alone. The network is always called for `batch` films, so
that what one lane gives does not depend on how many others there are.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..configs.lanes.lane import Lane, LaneGroup, LaneRun
from ..configs.protocols import keeps
from ..configs.spec import IMAGES, STATE
from ..configs.world import World
from ..policies.learning.checkpoint import acting_files, find_checkpoint, fingerprint, load_model
from ..policies.policy import LaneNoise
from .codec import Reading
from .film_model import FilmModel, Memory
from .gate import ABSTAINS, DreamError, file_of, noted, strange
from .signals import Scores, Signs, Teller
from .starts import Starts

OWN, TWINS = 1 << 40, 1 << 41  # begin the seeds of films and of their twins: no policy's noise is theirs


class Dream(Protocol):
    """What a dream is told, see `env.py`."""

    model: str
    starts: str
    batch: int
    judge: str
    judge_every: int
    real_at: float
    seed: int
    signals: bool
    device: str
    precision: str
    threads: int | None

    @property
    def succeeds_at(self) -> float:
        """Probability of success from which it counts."""
        ...

    @property
    def truth(self) -> World | None:
        """The world that first frames come from."""
        ...

    def steps(self) -> int:
        """Until an episode is cut."""
        ...


@dataclass
class Film:
    """Where one lane's film stands; steps count from its beginning."""

    memory: Memory  # of one film, B = 1
    start: int
    frames: dict[int, Tensor] = field(default_factory=dict)  # of the last chunk: step -> (cameras, h, w, 3) uint8
    states: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)  # of the last chunk: what is read there
    features: dict[int, Tensor] = field(default_factory=dict)  # of the steps that the judge may still look back to
    outcomes: dict[int, tuple[bool, float]] = field(default_factory=dict)  # judged step -> success, progress
    sent: list[np.ndarray] = field(default_factory=list)  # executed actions
    least_real: float = 1.0
    signs: Signs | None = None  # where they are told
    ended: bool = False  # with success, or at the horizon: what the chunk imagines beyond says nothing of the film

    def outcome(self, step: int) -> tuple[bool, float]:
        """What was judged last, not after `step`."""
        return self.outcomes[max(judged for judged in self.outcomes if judged <= step)]


@dataclass(frozen=True)
class Shown:
    """M frames: their latents, the poses of a robot that is drawn, pictures, and what is read from these."""

    latents: Tensor
    poses: Tensor | None
    pictures: Tensor  # (M, cameras, h, w, 3) uint8
    reading: Reading

    @classmethod
    def of(cls, model: FilmModel, latents: Tensor, poses: Tensor | None) -> Shown:
        """Decode latents (M, C, h, w) and read them."""
        pictures = model.show(latents, poses)
        return cls(latents, poses, pictures, model.sight.read(pictures))

    def part(self, rows: slice) -> Shown:
        """Some of them."""
        poses = None if self.poses is None else self.poses[rows]
        return Shown(self.latents[rows], poses, self.pictures[rows], _part(self.reading, rows))


class Dreamer:
    """A world model, its first frames, and how it is asked. One for each process.

    Raises:
        DreamError: no model that imagines, or settings that do not fit it.
    """

    def __init__(self, world: Dream):
        model, info = load_model(world.model, "world")
        if not isinstance(model, FilmModel):
            raise DreamError(
                f"{info['path']} holds no model that imagines; give the run of type `video` or `pretrained`"
            )
        if world.threads:
            torch.set_num_threads(world.threads)
        self.world, self.model, self.horizon = world, model.to(world.device), world.steps()
        self.gap, self.succeeds_at = model.config.eyes.gap, world.succeeds_at
        if self.gap % world.judge_every:
            raise DreamError(
                f"judge_every {world.judge_every} must divide {self.gap}, the steps between the frames that the judge "
                "of this model compares"
            )
        self.starts = Starts(world, model, model.sight.keys if world.judge == "states" else ())
        self.known = noted(info["path"], fingerprint(Path(info["path"])))
        self.teller = Teller(model, self.starts.lane) if world.signals else None
        self.rules = self._rules() if world.judge == "states" else None

    def _rules(self) -> Scores:
        """The world whose rules judge states. Raises DreamError for one that cannot, or states that are not read."""
        lane, origin = self.starts.lane, self.world.starts
        if lane is None:
            raise DreamError(
                f"recordings ({origin}) have no rules; give `starts` a world, or leave out `judge: states`"
            )
        if not keeps(lane, Scores):
            raise DreamError(f"the rules of {origin} judge no single states; leave out `judge: states`")
        offers, drawn = self.model.embodiment.offers(), {STATE} if self.model.draws else set()
        read = {key: np.zeros(len(offers[key]), np.float32) for key in {*self.model.sight.keys} | drawn}
        if lane.score(read) is None:
            raise DreamError(
                f"the rules of {origin} ask for more than this model reads from frames ({', '.join(sorted(read))}), or "
                "its scene cannot be put anywhere; leave out `judge: states`"
            )
        return lane

    @torch.no_grad()
    def begin(self, seed: int) -> Film:
        """A film at the start `seed`, read and judged. Raises DreamError for a start that is not there, or strange."""
        picture, joints = self.starts.first(seed)
        first = picture.to(self.world.device)[None]
        begun = None if joints is None else joints.to(self.world.device)[None]
        if refused := strange(self.known, float(self.model.strange(first))):
            raise DreamError(f"start {seed}: {refused}")
        if refused := self.model.check_begin(first, begun):
            raise DreamError(f"start {seed}: {ABSTAINS}: {refused}")
        film = Film(self.model.remember(first, joints=begun), seed)
        if self.teller is not None:
            film.signs = Signs(self.teller.twin(film.memory, seed))
        self._see([film], [0], Shown.of(self.model, film.memory.now, film.memory.pose))
        return film

    @torch.no_grad()
    def go_on(self, films: Sequence[Film], actions: np.ndarray, looked: Collection[int]) -> None:
        """Imagine E more steps of every film under executed actions (B, E, D).

        Args:
            looked: numbers of steps of the chunk, 1..E, after which frames are wanted beside those that are judged.
        """
        size = self.world.batch
        for at in range(0, len(films), size):
            batch, told = films[at : at + size], actions[at : at + size]
            spare = size - len(batch)  # dead rows, so that the network always sees as many
            with self._computing():
                self._imagine(
                    [*batch, *[batch[0]] * spare], np.concatenate([told, told[:1].repeat(spare, 0)]), looked, len(batch)
                )

    def _computing(self) -> torch.autocast:
        """In bf16 where the settings say so."""
        kind = torch.device(self.world.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.world.precision == "bf16")

    def _imagine(self, films: list[Film], actions: np.ndarray, looked: Collection[int], live: int) -> None:
        """One batch of which the first `live` films count, in passes of at most the model's horizon."""
        device, begun = self.world.device, [len(film.sent) for film in films]
        memory = Memory.joined([film.memory for film in films])
        told = torch.from_numpy(np.ascontiguousarray(actions, np.float32)).to(device)
        for film in films[:live]:
            film.frames.clear()
            film.states.clear()

        for at in range(0, actions.shape[1], self.model.horizon):
            chunk = told[:, at : at + self.model.horizon]
            steps = range(at + 1, at + chunk.shape[1] + 1)
            judged = {k for k in steps if any(self._due(tick + k) for tick in begun[:live])}
            wanted = sorted(judged | (set(steps) & set(looked)))
            noise = LaneNoise(OWN + self.world.seed, np.array([film.start for film in films]), np.array(begun) + at)
            poses = self.model.poses(memory, chunk, [k - at for k in wanted])
            latents, memory = self.model.advance(
                memory, chunk, [k - at for k in wanted], noise.normal(1, *memory.now.shape[1:]).to(device)
            )
            apart = self._apart(films, live, chunk, [k - at for k in wanted], np.array(begun) + at, latents)
            for film, row in zip(films[:live], actions, strict=False):
                film.sent.extend(row[at : at + chunk.shape[1]])
            if wanted:
                shown = Shown.of(self.model, latents.flatten(0, 1), None if poses is None else poses.flatten(0, 1))
                for column, k in enumerate(wanted):
                    part = shown.part(slice(column, None, len(wanted)))
                    off = None if apart is None else apart[:, column]
                    self._see(films[:live], [tick + k for tick in begun[:live]], part, off)
        for row, film in enumerate(films[:live]):
            film.memory = memory.rows(torch.tensor([row], device=device))

    def _apart(
        self, films: list[Film], live: int, chunk: Tensor, wanted: list[int], ticks: np.ndarray, latents: Tensor
    ) -> np.ndarray | None:
        """(live, L) how far films (B, L, C, h, w) are from their twins, which go on here; None where there are none."""
        signs = [film.signs for film in films if film.signs is not None]
        if not signs:
            return None
        memory = Memory.joined([one.twin for one in signs])
        noise = LaneNoise(TWINS + self.world.seed, np.array([film.start for film in films]), ticks)
        other, memory = self.model.advance(memory, chunk, wanted, noise.normal(1, *memory.now.shape[1:]).to(latents))
        for row, one in enumerate(signs[:live]):
            one.twin = memory.rows(torch.tensor([row], device=memory.now.device))
        return (other - latents)[:live].square().mean((2, 3, 4)).float().cpu().numpy()

    def _due(self, tick: int) -> bool:
        """Whether the judge looks after this step of a film; the first, for one that began with success.

        The last frame is looked at whatever its number, and so is the one that it is judged beside.
        """
        return tick <= 1 or tick % self.world.judge_every == 0 or tick in (self.horizon - self.gap, self.horizon)

    def _see(self, films: Sequence[Film], ticks: Sequence[int], shown: Shown, apart: np.ndarray | None = None) -> None:
        """Keep what is read from frames of films at their steps, and judge what is due; `apart` (B,), see `_apart`."""
        pictures, reading = shown.pictures, shown.reading
        states = {key: value.cpu().numpy() for key, value in reading.states.items()}
        if shown.poses is not None:  # what was drawn need not be read
            states[STATE] = shown.poses[:, : len(self.model.embodiment.state)].cpu().numpy()
        for row, (film, tick) in enumerate(zip(films, ticks, strict=True)):
            film.frames[tick] = pictures[row].cpu()
            film.states[tick] = {key: value[row] for key, value in states.items()}

        # judged beside the frame `gap` steps before, if there is one; dead rows repeat the first
        earlier = [film.features.get(tick - self.gap) for film, tick in zip(films, ticks, strict=True)]
        now, spare = reading.features, len(reading.features) - len(films)
        before = torch.stack(
            [now[row] if one is None else one for row, one in enumerate([*earlier, *earlier[:1] * spare])]
        )
        dims = len(self.model.embodiment.action)
        done = [_last(film, tick, self.gap, dims) for film, tick in zip(films, ticks, strict=True)]
        actions = torch.from_numpy(np.stack([*done, *done[:1] * spare])).to(now.device)
        scaled = self.model.action_scale.scale(actions)
        said = self.model.sight.verdict(Reading(now, {}), Reading(before, {}), scaled)
        told = self._signs(shown, before, scaled, len(films)) if self.teller is not None else {}
        for row, (film, tick) in enumerate(zip(films, ticks, strict=True)):
            if film.ended or not self._due(tick):
                continue
            real = 1.0 if earlier[row] is None else float(said.real[row])
            film.least_real = min(film.least_real, real)
            sure, progress = float(said.success[row]), float(said.progress[row])
            success = sure >= self.succeeds_at
            if self.rules is not None:
                success, progress = self._judged(film.states[tick])
                sure = progress
            if film.signs is not None and tick:
                film.signs.surest = max(film.signs.surest, sure if real >= self.world.real_at else 0)
                for name, values in (told | ({} if apart is None else {"apart": apart})).items():
                    if name != "inverse" or earlier[row] is not None:
                        film.signs.add(name, float(values[row]))
            success = success and real >= self.world.real_at
            film.outcomes[tick] = success, 1.0 if success else min(progress, 0.99)
            film.ended = tick > 0 and (success or tick >= self.horizon)
            film.features = {step: one for step, one in film.features.items() if step >= tick - self.gap}
            film.features[tick] = now[row]

    def _judged(self, states: dict[str, np.ndarray]) -> tuple[bool, float]:
        """Success and progress of states that were read, by the rules of the world that films begin in."""
        assert self.rules is not None
        told = self.rules.score(states)
        assert told is not None  # asked when it was opened
        return told

    def _signs(self, shown: Shown, before: Tensor, actions: Tensor, live: int) -> dict[str, np.ndarray]:
        """What the first `live` of frames say of themselves."""
        assert self.teller is not None
        reading = shown.reading
        told = self.teller.frames(shown.pictures, reading, live)
        if shown.poses is not None:
            arm = self.model.arm_apart(shown.latents, shown.poses)
            told |= {} if arm is None else {"arm": arm.cpu().numpy()}
        back = self.teller.inverse(Reading(reading.features, {}), Reading(before, {}), actions)
        return told if back is None else told | {"inverse": back}


def _part(reading: Reading, rows: slice) -> Reading:
    return Reading(reading.features[rows], {key: value[rows] for key, value in reading.states.items()})


def _last(film: Film, tick: int, gap: int, dims: int) -> np.ndarray:
    """(gap, D) the actions that led from `gap` steps before to this one; zeros where there were not so many."""
    done = film.sent[max(tick - gap, 0) : tick]
    return np.stack(done).astype(np.float32) if len(done) == gap else np.zeros((gap, dims), np.float32)


_DREAMERS: dict[str, tuple[object, Dreamer]] = {}  # of this process, by settings: the files that each has read


def dreamer_of(world: Any) -> Dreamer:
    """The dreamer of these settings in this process, opened anew where the model was trained, or measured, anew.

    Policies' cameras do not matter to it.
    """
    key, files = repr(dataclasses.replace(world, cameras={}, delay=0)), _state_of(find_checkpoint(world.model))
    if key not in _DREAMERS or _DREAMERS[key][0] != files:
        _DREAMERS[key] = files, Dreamer(world)
    return _DREAMERS[key][1]


def _state_of(checkpoint: Path) -> list[tuple[str, int, int]]:
    """(file, bytes, when it was written) of all that decides what a model imagines, and which frames it refuses."""
    files = [file for file in (*acting_files(checkpoint), file_of(checkpoint)) if file.is_file()]
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


class DreamLane(Lane):
    """One film; alone it is imagined step by step, in a `DreamGroup` together with others."""

    def __init__(self, world: Any):  # a `World` and a `Dream`
        super().__init__(world)
        self.world, self.dreamer = world, dreamer_of(world)
        self.low, self.high = np.asarray(self.embodiment.limits, np.float32).T
        self._film: Film | None = None

    @property
    def film(self) -> Film:
        """Raises DreamError before the first reset."""
        if self._film is None:
            raise DreamError("the lane was not reset")
        return self._film

    def begin(self, seed: int, options: dict) -> None:
        self.dreamer = dreamer_of(self.world)
        self._film = self.dreamer.begin(seed)

    def act(self, action: np.ndarray) -> float:
        self.dreamer.go_on([self.film], action[None, None], (1,))
        return self.judge()[1]

    def sense(self) -> dict[str, np.ndarray]:
        return self.seen(max(self.film.frames))

    def seen(self, tick: int) -> dict[str, np.ndarray]:
        """The observation after the step `tick` of the last chunk."""
        out = {
            key: np.array(self.film.states[tick][key], np.float32)
            for key in self.embodiment.offers()
            if key in self.film.states[tick]
        }
        for name, size in self.embodiment.cameras.items():
            place = self.dreamer.model.config.eyes.cameras.index(name)
            out[IMAGES + name] = resized(self.film.frames[tick][place].numpy(), size)
        return out

    def judge(self) -> tuple[bool, float]:
        return self.film.outcome(len(self.film.sent))

    def rest(self) -> np.ndarray:
        """Where the body stands, if actions are such places; else the middle of what may be done."""
        here = self.film.states[0].get(STATE)
        if here is None or self.embodiment.state != self.embodiment.action:
            return (self.low + self.high) / 2
        return np.clip(here, self.low, self.high).astype(np.float32)

    def render(self) -> np.ndarray:
        return self.picture(max(self.film.frames))

    def picture(self, tick: int) -> np.ndarray:
        """For films: all cameras below each other."""
        return np.concatenate(list(self.film.frames[tick].numpy()), 0)

    def labels(self) -> dict:
        """How real the film looked where it looked least so, and its signs where they are told."""
        signs = self.film.signs
        told = {} if signs is None else signs.means(self.dreamer.succeeds_at)
        return {"least_real": round(self.film.least_real, 4)} | told

    def executed(self, actions: np.ndarray) -> np.ndarray:
        """What is executed of actions (E, D) asked for, after delay, disturbance and limits; time goes on."""
        out = []
        for action in actions:
            self._waiting.append(np.asarray(action, np.float32))
            out.append(np.clip(self._waiting.popleft() + self._disturbance(), self.low, self.high))
            self.ticks += 1
        return np.stack(out).astype(np.float32)

    def tell(self, run: LaneRun, sent: np.ndarray, looked: Collection[int], filmed: bool) -> None:
        """Put the chunk that was imagined last into `run`, up to the episode's end."""
        begun = self.ticks - len(sent)
        for k, action in enumerate(sent, 1):
            success, progress = self.film.outcome(begun + k)
            run.terminated = success
            run.truncated = begun + k >= self.horizon and not success
            ended = run.terminated or run.truncated
            run.reward.append(progress)
            run.success.append(success)
            run.progress.append(progress)
            run.sent.append(action)
            if k in looked or ended:
                run.seen[k] = self.seen(begun + k)
            if filmed:
                run.film.append(self.picture(begun + k))
            if ended:
                return


class DreamGroup(LaneGroup):
    """All lanes of one process, imagined at once."""

    def run(self, actions: dict[int, np.ndarray], look: tuple[int, ...], film: tuple[int, ...]) -> dict[int, LaneRun]:
        """slot -> (E, D) actions, answered by what each lane did; it stops where its episode ends."""
        begun, runs = time.perf_counter(), {slot: LaneRun() for slot in actions}
        if not runs:
            return runs
        slots = sorted(actions)
        self.pulse.begin(slots[0])
        try:
            self._imagine(slots, actions, look, film, runs)
        except (Exception, SystemExit) as error:  # one network imagines all: they are lost together
            runs = {slot: LaneRun(error=self._drop(slot, error)) for slot in slots}
        self.pulse.rest()
        spent = (time.perf_counter() - begun) / len(slots)
        for run in runs.values():
            run.wall_physics = spent
        return runs

    def _imagine(
        self, slots: list[int], actions: dict[int, np.ndarray], look: tuple[int, ...], film: tuple[int, ...], runs: dict
    ) -> None:
        lanes: list[Any] = [self._envs[slot] for slot in slots]
        sent = np.stack([lane.executed(actions[slot]) for lane, slot in zip(lanes, slots, strict=True)])
        steps = sent.shape[1]
        looked = {steps + offset for offset in look if steps + offset > 0} | {steps}
        drawn = set(range(1, steps + 1)) if any(slot in film for slot in slots) else looked
        lanes[0].dreamer.go_on([lane.film for lane in lanes], sent, drawn)
        for lane, slot, done in zip(lanes, slots, sent, strict=True):
            lane.tell(runs[slot], done, looked, slot in film)
            self.pulse.beat()


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (h, w, 3) at another (height, width)."""
    if picture.shape[:2] == tuple(size):
        return picture.copy()
    import cv2

    smaller = size[0] < picture.shape[0]
    return cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
