"""A policy on another computer as a `Planner`: the agent remembers, critics judge, only plans come over the line.

What is told of a history, each observation once, is `frames.py`; when an answer counts, `line.py`. Pictures are
brought to the size that the policy reads before they are sent, as an agent on this machine would.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...configs.spec import IMAGES, Embodiment, EmbodimentError
from ...policies.address import register_address
from .frames import Told, as_frames
from .line import Address, Line, RemoteError
from .memory import keep_freed
from .messages import SUBPROTOCOL, VERSION, Answer, Ask, Hello, Refusal, Welcome
from .wire import WireError, pack, unpack

if TYPE_CHECKING:
    import torch

    from ...policies.policy import LaneNoise, Past, Plans

SCHEMES = {"ws": "ws", "wss": "wss"}


@dataclass(frozen=True)
class Latency:
    """What the newest plan took, in s."""

    round_trip: float  # from the ask to the answer, on this side
    waited: float  # of it, until the server came to it
    thought: float  # of it, the policy's computation
    age: float | None  # of the newest observation when the plan came; None: nobody said when it was captured


class Reader:
    """What is told the text of the task; see `policy.Instructed`.

    Args:
        own: text that the server has for who gives none; empty: it has none.
        where: its address.
        instead: what to do there where nobody gives a text.
    """

    def __init__(self, own: str, where: str, instead: str):
        self.text, self._own, self._where, self._instead = own, own, where, instead

    def instruct(self, text: str) -> None:
        """Act by this text from now on; by the server's where it is empty. Raises ValueError: there is none."""
        self.text = text or self._own
        self.stated()

    def stated(self) -> str:
        """The text to act by. Raises ValueError: there is none."""
        if not self.text:
            raise ValueError(
                f"the policy at {self._where} reads the text of its task, and neither the world nor --task_text gives "
                f"one: give --task_text here, or {self._instead}"
            )
        return self.text


class RemotePlanner:
    """Plans that a policy server draws; keeps `policy.Planner`, `Executes`, `Ensembles` and `Instructed`.

    Attributes:
        welcome: what the server said of its policy.
        latency: of the newest plan, None before the first.
        captured: key -> s on `time.monotonic()`, when the newest observations were captured; who drives an arm says it
            before each plan, so that their age is known and none goes backwards.
    """

    temporal_ensemble: float | None
    task_text: str | None

    def __init__(self, address: Address):
        keep_freed()
        self._line = Line(address, subprotocol=SUBPROTOCOL)
        self.welcome = self._line.ask(pack(Hello(version=VERSION, client=f"understudy {_version()}")), _read_welcome)
        self.address, welcome = address, self.welcome
        self.embodiment: Embodiment = welcome.embodiment
        self.window, self.inputs = welcome.window, welcome.inputs
        self.n_action_steps, self.temporal_ensemble = welcome.n_action_steps, welcome.ensemble
        instead = "--task_text to its `understudy serve`"
        self.language = Reader(welcome.task, address.url, instead) if welcome.reads_text else None
        self.task_text = welcome.task if welcome.reads_text else None
        self.captured: Mapping[str, float] = {}
        self.latency: Latency | None = None
        self._told = Told(self.window.reach)
        self._number = 0
        self._warned: set[str] = set()

    def to(self, device: Any) -> RemotePlanner:
        """It computes elsewhere."""
        return self

    def plan(self, past: Past, n: int, rng: LaneNoise) -> Plans:
        """Ask for `n` plans a lane.

        Raises:
            RemoteError: no plan that counts; see `line.py`.
            ValueError: more lanes or plans than the server allows; nobody said the text of the task that it reads.
        """
        ask = self._ask(past.at(self.window), n, rng)
        shape = len(ask.now), n
        begun = time.monotonic()
        self._line.refuse_more()
        answer = self._line.ask(pack(ask), lambda data: self._read_answer(data, ask, shape))
        now = time.monotonic()
        self._number += 1
        age = now - max(ask.captured.values()) if ask.captured else None
        self.latency = Latency(now - begun, answer.waited, answer.thought, age)
        return _plans(answer, past.actions.device)

    def close(self) -> None:
        """End the session."""
        self._line.close()

    def _ask(self, past: Past, n: int, rng: LaneNoise) -> Ask:
        if len(past.now) > self.welcome.lanes or n > self.welcome.most:
            most = f"{self.welcome.lanes} lanes and {self.welcome.most} plans a lane"
            why = "; a critic of the server's chooses among its own" if self.welcome.most == 1 else ""
            raise ValueError(f"{self.address.url} plans for {most} at a time, not {len(past.now)} and {n}{why}")
        now = past.now.cpu().numpy()
        obs = {key: self._fitted(key, past.obs[key].cpu().numpy()) for key in self.inputs}
        fresh, news = self._told.news(obs, past.obs_times, now)
        quality = self.address.quality if self.address.pictures == "jpeg" else None
        return Ask(
            session=self.welcome.session,
            number=self._number,
            plans=n,
            seed=rng.seed,
            starts=rng.starts.astype(np.int64),
            replans=rng.replans.astype(np.int64),
            now=now,
            fresh=fresh,
            frames={key: as_frames(*told, quality) for key, told in news.items()},
            captured={key: float(time) for key, time in self.captured.items() if key in self.inputs},
            actions=past.actions.cpu().numpy().astype(np.float32),
            obs_valid=past.obs_valid.cpu().numpy(),
            action_valid=past.action_valid.cpu().numpy(),
            task=None if self.language is None else self.language.stated(),
        )

    def _fitted(self, key: str, values: np.ndarray) -> np.ndarray:
        """(B, O, ...), pictures at the size that is read."""
        size = self.welcome.sizes.get(key)
        if size is None or values.shape[2:4] == size or not key.startswith(IMAGES):
            return values
        from ...policies.agent.sight import SightWarning, fitted

        recorded = self.embodiment.cameras.get(key.removeprefix(IMAGES))
        if recorded and values.shape[2:4] != tuple(recorded) and key not in self._warned:
            self._warned.add(key)
            warnings.warn(
                f"'{key}' gives pictures of {values.shape[2]}x{values.shape[3]}, the policy learnt from "
                f"{recorded[0]}x{recorded[1]}; they may show the scene otherwise than in training",
                SightWarning,
                stacklevel=4,
            )
        return fitted(values.reshape(-1, *values.shape[2:]), size).reshape(*values.shape[:2], *size, 3)

    def _read_answer(self, data: bytes | str, ask: Ask, shape: tuple[int, int]) -> Answer:
        answer = unpack(data, Answer, Refusal)
        if isinstance(answer, Refusal):
            raise WireError(f"it refuses: {answer.reason}")
        if answer.session != ask.session or answer.number != ask.number:
            raise WireError(f"its answer is number {answer.number} where {ask.number} was asked")
        dims = len(self.embodiment.action)
        wanted = {
            "past": ("<f4", (*shape, len(self.window.recall), dims)),
            "future": ("<f4", (*shape, self.window.horizon, dims)),
            "start": ("<i8", shape[:1]),
        }
        for name, (kind, size) in wanted.items():
            value = getattr(answer, name)
            if value.dtype.str != kind or (value.shape != size and not (name == "past" and _no_past(value, size))):
                raise WireError(f"its {name} is {value.dtype.str} {list(value.shape)}, not {kind} {list(size)}")
        if not np.isfinite(answer.future).all():
            raise WireError("it planned NaN or infinity")
        if (answer.start != ask.now).any():
            raise WireError(f"its plans begin at {answer.start.tolist()}, not now ({ask.now.tolist()})")
        return answer


def _no_past(value: np.ndarray, size: tuple[int, ...]) -> bool:
    """Whether a planner reconstructs no past, though a critic beside it reads one."""
    return value.shape == (*size[:2], 0, size[3])


def _plans(answer: Answer, device: torch.device) -> Plans:
    import torch

    from ...policies.policy import Plans

    parts = (torch.from_numpy(value.copy()).to(device) for value in (answer.past, answer.future, answer.start))
    return Plans(*parts)


def _read_welcome(data: bytes | str) -> Welcome:
    welcome = unpack(data, Welcome, Refusal)
    if isinstance(welcome, Refusal):
        raise WireError(f"it refuses: {welcome.reason}")
    if welcome.version != VERSION:
        raise WireError(f"it speaks version {welcome.version}, this client {VERSION}")
    try:
        body = welcome.embodiment
        window = welcome.window
    except (EmbodimentError, ValueError) as error:
        raise WireError(f"it names no embodiment and window that can be ({error})") from error
    if not 1 <= welcome.n_action_steps <= window.horizon or not body.action:
        raise WireError("it names no number of actions that can be executed")
    return welcome


def _version() -> str:
    from ... import __version__

    return __version__


@register_address(*SCHEMES)
def open_remote(address: str, embodiment: str | None = None) -> tuple[RemotePlanner, dict]:
    """The planner at `ws://HOST:PORT`, and what a manifest says of it.

    Args:
        embodiment: file that states what the policy's training did not; see `load.completed`.

    Raises:
        ValueError: an address that makes no sense. RemoteError: no server there, or one that refuses.
    """
    planner = RemotePlanner(Address.read(address, SCHEMES))
    if embodiment is not None:
        from pathlib import Path

        from ...policies.load import completed

        planner.embodiment = completed(planner.embodiment, embodiment, Path(address))
    told = planner.welcome.policy
    return planner, {"path": address, "type": told.get("type", "?")} | dict(told)


__all__ = ["Latency", "RemoteError", "RemotePlanner", "open_remote"]
