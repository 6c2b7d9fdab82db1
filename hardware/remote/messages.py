"""What a robot's computer and a policy server say to each other; version 1.

The client says `Hello` and gets `Welcome` or `Refusal`. Then it asks, one `Ask` at a time, numbered from 0, and each
gets an `Answer` of its number, or a `Refusal`. Both carry the name of the session, which the server made up: what was
said in another session, or before, is refused.

Letters: B lanes of the client, N plans a lane, O observed frames, K recalled and H future actions, D numbers of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...configs.spec import Embodiment, Window
from .wire import message

VERSION = 1
SUBPROTOCOL = "understudy"  # asked for when a connection begins; without it, openpi's messages are spoken


@message("hello")
@dataclass(frozen=True, kw_only=True)
class Hello:
    """The first word of a client."""

    version: int
    client: str  # its program and version, for the server's lines


@message("welcome")
@dataclass(frozen=True, kw_only=True)
class Welcome:
    """Who plans here, and what it needs to be told."""

    version: int
    session: str
    body: str  # JSON of the embodiment that plans are for
    inputs: tuple[str, ...]  # observation keys
    observe: tuple[int, ...]  # window, see `Window`
    recall: tuple[int, ...]
    horizon: int
    n_action_steps: int
    ensemble: float | None  # decay of temporal ensembling that the policy was made for
    sizes: dict[str, tuple[int, int]]  # (height, width) at which pictures are read; where it says nothing, as they come
    candidates: int  # plans of which the server's critic chooses one; 1: none chooses there
    reads_text: bool  # whether the text of the task is read
    task: str  # the text that is read where the client gives none
    lanes: int  # that may be asked for at a time
    most: int  # plans of a lane that may be asked for
    policy: dict[str, str]  # what it is: type, step, fingerprint

    @property
    def embodiment(self) -> Embodiment:
        """Raises EmbodimentError."""
        return Embodiment.from_json(self.body)

    @property
    def window(self) -> Window:
        """Raises ValueError."""
        return Window(observe=self.observe, recall=self.recall, horizon=self.horizon)


@dataclass(frozen=True, kw_only=True)
class Frames:
    """M observations of one key that the server does not hold yet: arrays, or pictures as JPEG."""

    lane: np.ndarray  # (M,) int64
    tick: np.ndarray  # (M,) int64, control steps since the lane's episode began
    values: np.ndarray | None  # (M, D) float32, or (M, h, w, 3) uint8
    jpeg: tuple[bytes, ...] | None  # M pictures


@message("ask")
@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is seen and was done by now, and how many plans are wanted."""

    session: str
    number: int
    plans: int  # N
    seed: int  # of the policy's noise, with the next two
    starts: np.ndarray  # (B,) int64
    replans: np.ndarray  # (B,) int64
    now: np.ndarray  # (B,) int64, control steps since the episode began
    fresh: np.ndarray  # (B,) bool, lanes of which nothing is held any more
    frames: dict[str, Frames]
    captured: dict[str, float]  # key -> when the newest was captured, s on the client's own clock; may be empty
    actions: np.ndarray  # (B, K, D) float32, really executed
    obs_valid: np.ndarray  # (B, O) bool
    action_valid: np.ndarray  # (B, K) bool
    task: str | None  # text of the task


@message("answer")
@dataclass(frozen=True, kw_only=True)
class Answer:
    """Plans, and what they took."""

    session: str
    number: int
    past: np.ndarray  # (B, N, K, D) float32
    future: np.ndarray  # (B, N, H, D) float32
    start: np.ndarray  # (B,) int64
    waited: float  # s until the server came to it
    thought: float  # s that the policy computed
    lanes: int  # that it computed for at once


@message("refusal")
@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why there is no plan."""

    number: int  # of the ask; -1: of no ask
    reason: str
