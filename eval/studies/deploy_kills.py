"""What becomes of arm and recording when a process of a running deployment is killed, or its bus is unplugged.

    understudy study deploy_kills --out OUT.json

`understudy deploy` runs as a user runs it, in a session of its own, on an emulated SO-101 that lives here. At a random
moment of its episodes one of what it consists of is struck: `kill -9` of the process that plans, acts, reads cameras
and records; `kill -9` of the guard's process; or the bus is unplugged for a while. Then the arm is watched by its
servos, the processes of the session are counted, and the same command with `--resume` goes on in the same folder, in
which the next strike comes. So each recording is struck again and again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...configs.command import command_of
from ...configs.plugins import lookup
from ...configs.progress import Progress
from ...configs.spec import STATE, Embodiment, Window
from ...hardware.emulator.arm import find_kind, make_chain, write_calibration
from ...hardware.emulator.bus import Bus
from ...hardware.emulator.coupled import find_task
from ...hardware.emulator.faults import Fault
from ...hardware.envelope import Envelope
from ...hardware.session import RESTING
from ...hardware.so101 import ENVELOPE
from ...policies.data.layout import DatasetError
from ...policies.data.open import open_dataset
from ..ledger.study import Study
from ..statistics.intervals import Interval, exact
from ._kept import Kept
from ._processes import PATIENCE, members, outliving
from ._servos import Goals, released, state_of

POLICY, GUARD, BUS = "policy and recorder", "guard", "bus unplugged"
STRUCK = (POLICY, GUARD, BUS)
SILENCE = Envelope(limits=((0.0, 1.0),)).silence
LIMIT = SILENCE + RESTING  # s until the arm must be at rest: nobody is heard, then it is braked
GOAL = 42  # address of Goal_Position
MOVES = 0.05  # rad/s of a servo, above which it is not at rest
CALM = 0.3  # s without motion and goals that count as rest
SECONDS = 1.0  # of an episode
SPAN = 3 * SECONDS  # s after the first new episode, within which it is struck
GONE = (0.3, 2.0)  # s that the bus is unplugged
SET_POINTS = 2
BEGINS = 300.0  # s until a started command must have recorded an episode
ENDS = 30.0  # s that one that was told to end may take
STARTS = 8  # of one command: on a busy machine a servo's answer may come too late to open the bus
BUSY = ("status packet", "did not answer", "no answer", "stopped the arm")  # of what a slow machine makes deploy say
ENDED = re.compile(r"^episode \d+: \d+ steps", re.MULTILINE)  # what deploy says of an episode before it is written
COLUMNS = (
    "struck",
    "n",
    "at rest in time",
    "longest until rest, s",
    "let go",
    "fastest goal, of bound",
    "most episodes lost",
    "earlier ones whole",
    "gone on",
    "starts refused",
    "processes left",
    "as it must be",
)
NOTES = (
    "Struck is a deployment that runs and holds the arm; one that ended by itself, on a busy machine, begins anew",
    f"At rest in time: within {LIMIT:g} s no servo moves faster than {MOVES:g} rad/s and none gets a goal any more, "
    f"for {CALM:g} s; of a killed policy the torque is off, too. A killed guard leaves it on, at the last goal",
    "Fastest goal: between two goals of a servo on the wire, as part of the velocity that the envelope allows, with "
    "one count of rounding",
    "Episodes lost: those that had ended and were not in the folder after the strike, beside the one that was acted; "
    "at most the one that is being written, and of the guard and the bus none",
    "Earlier ones whole: the recording opens, and after the same command went on, too, the files of the episodes "
    "before are what they were, byte for byte",
    f"Gone on: the same command with --resume recorded an episode more; starts refused: it was started again, up to "
    f"{STARTS} times, since the arm did not answer in time",
    f"Processes left: of the session, {PATIENCE:g} s after the deployment ended, which has {ENDS:g} s for that",
    "As it must be: all of that; share of the trials with its exact 95 % interval",
    "Recorder and cameras are threads of the policy's process, so they are killed with it. The policy is untrained and "
    "moves the arm to and fro; nothing is carried, so an arm that is let go does not fall",
)


@dataclass(frozen=True, kw_only=True)
class DeployKillStudy:
    """Kill the processes of a running deployment, and unplug its bus; the arm, the recording and what is left over."""

    times: int = 20  # of each kind
    struck: tuple[str, ...] = STRUCK  # which of them
    seed: int = 0  # of the moments
    out: Path  # file of the study

    def __post_init__(self) -> None:
        for name in self.struck:
            lookup("part of a deployment", name, dict.fromkeys(STRUCK))
        if self.times < 1:
            raise ValueError(f"times: {self.times}; at least 1")

    def run(self) -> None:
        if not sys.platform.startswith("linux"):
            raise OSError("this study counts processes in /proc, which only Linux has")
        kept = Kept(self.out, self)
        with kept.going_on(), tempfile.TemporaryDirectory(prefix="deploy_kills_") as folder:
            study = deploy_kills(self, Path(folder), kept)
            print(study.markdown())
            print(study.write(self.out))


@dataclass
class Trial:
    """What one strike came to. `why`: what was not as it must be."""

    rest: float  # s until the arm was at rest, at most `LIMIT`
    rested: bool
    let_go: bool
    fastest: float
    lost: int
    whole: bool
    gone_on: bool
    refused: int
    left: int
    why: str = ""

    def well(self, struck: str) -> bool:
        """Whether all is as it must be."""
        most = 1 if struck == POLICY else 0
        sound = self.rested and self.whole and self.gone_on and self.fastest <= 1
        return sound and self.lost <= most and not self.left


def deploy_kills(settings: DeployKillStudy, folder: Path, kept: Kept) -> Study:
    rows, said = [], []
    policy = _policy(folder / "policy")
    with Progress("deploy_kills", len(settings.struck) * settings.times, "strikes") as progress:
        for struck in settings.struck:
            trials = []
            with Deployment(policy, folder / struck.replace(" ", "_")) as deployment:
                for number in range(settings.times):
                    make = partial(_trial, deployment, struck, settings.seed, number)
                    trials.append(Trial(**kept.get(f"{struck} {number}", make)))
                    said += [f"{struck} {number}: {trials[-1].why}"] if trials[-1].why else []
                    progress.update(progress.done + 1, struck)
            rows.append((struck, *_row(struck, trials)))
            print(*rows[-1], flush=True)
    command = command_of(settings, "study deploy_kills", without=("out",)) + " --out FILE.json"
    notes = (f"n strikes at random moments, drawn by seed {settings.seed}", *NOTES, *said[:20])
    return Study(title="A deployment that is killed", command=command, columns=COLUMNS, rows=rows, notes=notes)


def _row(struck: str, trials: Sequence[Trial]) -> tuple:
    """By `COLUMNS`, behind what was struck."""
    n, well = len(trials), sum(trial.well(struck) for trial in trials)
    total = {name: sum(getattr(trial, name) for trial in trials) for name in ("rested", "let_go", "whole", "gone_on")}
    return (
        n,
        total["rested"],
        round(max(trial.rest for trial in trials), 2),
        total["let_go"],
        round(max(trial.fastest for trial in trials), 3),
        max(trial.lost for trial in trials),
        total["whole"],
        total["gone_on"],
        sum(trial.refused for trial in trials),
        sum(trial.left for trial in trials),
        Interval(*(round(part, 4) for part in exact(well, n))),
    )


def _trial(deployment: Deployment, struck: str, seed: int, number: int) -> dict:
    rng = np.random.default_rng([seed, STRUCK.index(struck), number])
    return dataclasses.asdict(deployment.strike(struck, rng))


def body() -> Embodiment:
    """Who the policy acts for: an SO-101, by its state alone."""
    whole = find_task("so101-reach", find_kind("so101")).embodiment
    return dataclasses.replace(whole, scene=(), scene_units=())


def _policy(folder: Path) -> Path:
    """A small policy without training: plans to and fro about the home pose."""
    import torch

    from ...policies.learning.checkpoint import save_checkpoint
    from ...policies.models.flow import FlowConfig
    from ...policies.networks.mlp import MLPConfig
    from ...policies.policy import Scales
    from ...sim.arms import find_arm

    torch.manual_seed(0)
    home, spread = np.array(find_arm("so101").home), 0.3
    scales = Scales(
        action=(tuple(home - spread), tuple(home + spread)), states={STATE: ((0.0,) * len(home), (1.0,) * len(home))}
    )
    config = FlowConfig(
        inputs=(STATE,),
        window=Window(observe=(0,), horizon=16),
        n_action_steps=8,
        network=MLPConfig(width=16, depth=1, condition_width=8),
    )
    save_checkpoint(folder, config.build(body(), scales).eval(), kind="policy", config=config)
    return folder


class Deployment:
    """`understudy deploy` on an emulated arm, into one folder, started again and again. A context.

    Args:
        policy: its folder.
        place: a folder for the arm's port and calibration, the recording and what is said.
    """

    def __init__(self, policy: Path, place: Path):
        self.policy, self.place, self.data, self.log = policy, place, place / "data", place / "said"
        self.goals = Goals(GOAL)
        self.process: subprocess.Popen | None = None
        self._before = 0  # episodes that were there when it was started

    def __enter__(self) -> Deployment:
        kind = find_kind("so101")
        self.place.mkdir(parents=True)
        write_calibration(self.place / "so101.json", kind.calibration())
        self.bus = Bus(make_chain(kind), kind.codec(), heard=self.goals, link=self.place / "port", punctual=True)
        self.bus.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._end()
        finally:
            self.bus.close()

    def _end(self) -> None:
        """Let what runs end, as a user does."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(ENDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def episodes(self) -> int:
        """That the recording says it holds."""
        info = self.data / "meta" / "info.json"
        return json.loads(info.read_text())["total_episodes"] if info.is_file() else 0

    def begin(self) -> int:
        """Start it, until it has recorded one episode more; how often it had to be started again.

        Raises:
            RuntimeError: it did not, with the end of what it said.
        """
        package = (__package__ or "").partition(".")[0]
        words: list[object] = [sys.executable, "-m", package, "deploy", self.policy, "--robot", "so101"]
        words += ["--port", self.bus.link, "--calibration", self.place / "so101.json", "--limits", "arm"]
        words += ["--yes", "true", "--device", "cpu", "--seconds", SECONDS, "--episodes", 100_000, "--delay", 4]
        words += ["--set_points", SET_POINTS, "--out", self.data]
        for refused in range(STARTS):
            self._before, more = self.episodes, ("--resume", "true") if self.data.exists() else ()
            self.goals.heard.clear()
            with self.log.open("w") as said:
                self.process = subprocess.Popen(
                    [str(word) for word in (*words, *more)],
                    stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
                    env=os.environ | {"HF_LEROBOT_HOME": str(self.place), "PYTHONUNBUFFERED": "1"},
                )  # fmt: skip
            end = time.monotonic() + BEGINS
            while self.process.poll() is None and time.monotonic() < end:
                if self.episodes > self._before:
                    return refused
                time.sleep(0.02)
            self.process.kill()
            self.process.wait()
            outliving(self.process.pid)
            if not any(word in self.said for word in BUSY):
                break
        raise RuntimeError(f"deploy does not go on: {' '.join(self.said.split())[-300:]}")

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def strike(self, struck: str, rng: np.random.Generator) -> Trial:
        """Strike what runs at a random moment, watch what becomes of it, and go on."""
        guard, gone = self._await(rng), rng.uniform(*GONE)
        assert self.process is not None
        if struck == BUS:
            with self.bus.held() as chain:
                self.bus.faults.add(Fault(kind="unplug", at=chain.time, seconds=gone))
        else:
            os.kill(self.process.pid if struck == POLICY else guard, signal.SIGKILL)

        rest, rested = self._rests(struck)
        while not self.bus.plugged:
            time.sleep(0.02)
        session = self.process.pid
        ends = time.monotonic() + ENDS
        while self.process.poll() is None and time.monotonic() < ends and any(members(session)):
            time.sleep(0.02)
        left, let_go = outliving(session), released(self.bus)
        self.process.wait()

        period = 1 / (body().rate * SET_POINTS)
        fastest, there = self.goals.fastest(np.array(ENVELOPE["velocity"]) * period, period), self.episodes
        lost = self._before + len(ENDED.findall(self.said)) - there
        why = "" if struck == POLICY else self._error()
        struck_in = self.data
        marks, fault = _marks(struck_in, there), _fault(struck_in, there)
        gone_on, refused = True, 0
        try:
            refused = self.begin()
        except RuntimeError as error:
            gone_on, why = False, f"{why} {error}"
            self.data = self.data.with_name(f"{self.data.name}x")  # for the next strike
        same = _marks(struck_in, there) == marks
        trial = Trial(rest, rested, let_go, fastest, lost, same and not fault, gone_on, refused, left)
        trial.why = "" if trial.well(struck) else " ".join(filter(None, (why, fault, "" if same else "files changed")))
        return trial

    def _await(self, rng: np.random.Generator) -> int:
        """Let it run until a random moment; process id of its guard.

        On a busy machine it may have ended before, or be about to, with the arm let go already: then it begins anew.
        """
        for _ in range(STARTS):
            if self.process is None or self.process.poll() is not None:
                self.begin()
            assert self.process is not None
            time.sleep(rng.uniform(0, SPAN))
            guard = self._guard()
            if self.process.poll() is None and guard is not None and all(state_of(self.bus)[1]):
                return guard
            self._end()
        raise RuntimeError(f"no deployment runs for {SPAN:g} s: {' '.join(self.said.split())[-300:]}")

    def _guard(self) -> int | None:
        """Process id of the guard."""
        assert self.process is not None
        for pid in members(self.process.pid):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if b"spawn_main" in words:
                return pid
        return None

    def _rests(self, struck: str) -> tuple[float, bool]:
        """(s after now at which the arm came to rest, at most `LIMIT`; whether it did)."""
        began = moved = time.monotonic()
        heard = len(self.goals.heard)
        while (now := time.monotonic()) < began + LIMIT + CALM:
            _, torque, speeds = state_of(self.bus)
            if max(speeds) > MOVES or len(self.goals.heard) > heard or (struck == POLICY and any(torque)):
                moved, heard = now, len(self.goals.heard)
            if now - moved > CALM:
                return moved - began, True
            time.sleep(0.01)
        return LIMIT, False

    def _error(self) -> str:
        """The last line of what was said."""
        return (self.said.strip().splitlines() or [""])[-1]


def _marks(data: Path, episodes: int) -> list[str]:
    """Digests of the files of the first episodes."""
    files = sorted((data / "data").rglob("file-*.parquet"))[:episodes]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def _fault(data: Path, episodes: int) -> str:
    """What is wrong with the first episodes of a recording; nothing where they are whole."""
    if not episodes:
        return ""
    try:
        dataset = open_dataset(str(data))
    except (DatasetError, OSError, ValueError) as error:
        return f"the recording does not open: {error}"
    if len(dataset.lengths) != episodes:
        return f"{len(dataset.lengths)} episodes open, {episodes} are told"
    times = dataset.columns["time.commanded"][:, 0]
    for begin, length in zip(dataset.starts, dataset.lengths, strict=True):
        if not (np.diff(times[begin : begin + length]) > 0).all():
            return f"the steps of the episode at row {begin} are not in order"
    return ""
