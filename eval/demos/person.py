"""`understudy demos TASK --by keyboard`: a person acts in place of the expert; the dataset is the same.

One environment, at the pace of the embodiment's rate. An episode begins with the first movement and ends when the
task is done, at the horizon, or when the person says so; it is on disk before the next one begins.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...configs.files import clear_leftovers
from ...configs.lanes.lanes import Lanes
from ...configs.owner import owned
from ...configs.plugins import lookup
from ...configs.progress import counted
from ...configs.world import read_world, start_set
from ...policies.data.writer import DatasetWriter
from ...sim.teleop.teleop import DISCARD, QUIT, SUCCESS, TELEOPERATORS, Command, Steering, Teleoperator, conducted
from ..rollout.rollout import rollout

if TYPE_CHECKING:
    from .settings import Settings

WAIT = 1 / 30  # s between looks while nobody moves


class Quit(Exception):
    """The person has had enough."""


def teleoperate(
    config: Settings, device: Teleoperator | None = None, sleep: Callable[[float], None] = time.sleep
) -> int:
    """Let a person demonstrate; returns the number of episodes written.

    Args:
        config: settings of `understudy demos`; noise, styles, workers and block do not apply.
        device: in place of the one that `config.by` names.

    Raises:
        LookupError: an unknown device, listing the known ones.
        OSError: the device or the display that it needs is not there.
        ValueError: an embodiment that cannot be driven by hand.
    """
    out = Path(os.path.expandvars(config.out))
    world = conducted(read_world(config.world or config.task, cameras=config.cameras))
    steering = Steering(world.embodiment())
    device = device or lookup("teleoperator", str(config.by), TELEOPERATORS)()

    with closing(device), closing(Lanes(world, 1, 0)) as lanes:
        if DatasetWriter.unbegun(out):  # an interrupted start
            with owned(out):
                shutil.rmtree(out)
        clear_leftovers(out)
        writer = DatasetWriter(out, lanes.embodiment, pictures=config.pictures)
        try:
            tried = _record(config, TeleopActor(lanes, steering, device, sleep), lanes, writer)
        finally:
            if not writer.episodes:
                shutil.rmtree(out)
    if not writer.episodes:
        raise ValueError(f"no episode of {tried} was kept: nothing is written")

    print(f"{out}: {counted(writer.episodes, 'episode')} of {tried}, {counted(writer.frames, 'step')}")
    return writer.episodes


def _record(config: Settings, actor: TeleopActor, lanes: Lanes, writer: DatasetWriter) -> int:
    """Episodes until all env seeds are done or the person quits; how many were begun and ended."""
    tried = 0
    starts = range(config.env_seed, config.env_seed + config.episodes)
    options = {"action_noise": config.action_noise} if config.action_noise else None
    try:
        for result in rollout(
            actor, lanes, starts, keep=True, initial_conditions=start_set(lanes.world), options=options
        ):
            tried += 1
            keep = result.row["success"] or (config.keep_failures and not actor.discarded)
            if result.episode is not None and keep:
                writer.add(result.episode)
            actor.note = f"{writer.episodes} kept"
            outcome = "kept" if result.episode is not None and keep else result.row["error"] or "not kept"
            print(f"env seed {result.start}: {counted(result.row['length'], 'step')}, {outcome}")
    except Quit:
        pass
    return tried


class TeleopActor:
    """A person as an actor of one slot."""

    n_action_steps = 1
    look = ()

    def __init__(self, lanes: Lanes, steering: Steering, device: Teleoperator, sleep: Callable[[float], None]):
        self.lanes, self.steering, self.device, self._sleep = lanes, steering, device, sleep
        self.discarded, self.note = False, "0 kept"
        self._waiting, self._due, self._start = True, 0.0, 0

    def reset(self, starts: np.ndarray, mask: np.ndarray, obs: Mapping[str, np.ndarray]) -> None:
        self._start, self._waiting, self.discarded = int(starts[0]), True, False
        rest = self.lanes.call("rest")[0]
        if rest is not None:
            self.steering.begin(rest)

    def act(self) -> np.ndarray:
        """Waits for the first movement, then for the next control step."""
        command = self._look()
        while self._waiting and command.idle:
            self._sleep(WAIT)
            command = self._look()
        if self._waiting:
            self._waiting, self._due = False, time.monotonic()
        if command.verdict == QUIT:
            raise Quit
        if command.verdict in (SUCCESS, DISCARD):
            self.discarded = command.verdict == DISCARD
            self.lanes.call("conclude", command.verdict == SUCCESS)
        self._due = max(self._due + 1 / self.lanes.embodiment.rate, time.monotonic() - 0.5)
        self._sleep(max(0.0, self._due - time.monotonic()))
        return self.steering.action(command.axes)[None, None]

    def observe(self, obs: Mapping[str, np.ndarray], sent: np.ndarray, valid: np.ndarray) -> None:
        """The person sees the picture."""

    def _look(self) -> Command:
        pictures = self.lanes.render([0])
        if 0 in pictures:
            self.device.show(pictures[0], f"{self.lanes.world.task}, env seed {self._start}, {self.note}")
        return self.device.read()
