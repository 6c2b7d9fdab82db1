"""`understudy eval`: let a policy act from many initial conditions, record every episode, report what it was worth.

The composition root of evaluation. Everything that can be refused is refused before a policy thinks or a world opens.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...configs.lanes.lanes import Lanes
from ...configs.lanes.pulse import TIMEOUT, check_timeout
from ...configs.parse import keys_of
from ...configs.progress import Progress
from ...configs.world import REPORT_STARTS, World, looked_at, read_world, start_set
from ...policies.agent.open import Acting, agent_settings, check_world, open_agent
from ...policies.learning.run import run_folder
from ..ledger.chains import MADE
from ..ledger.made import made
from ..ledger.record import REPORT, RecordWriter, provenance
from ..ledger.summary import summarize
from ..rollout.film import Tapes, choose, film_again
from ..rollout.rollout import rollout
from ..world_model.evaluate import EvalWorldModel, asks_for_world_model
from .open_loop import OpenLoop, asks_for_data, refuse_acting
from .report import write_report

if TYPE_CHECKING:
    from ...policies.agent.agent import Agent


@dataclass(frozen=True, kw_only=True)
class Eval(Acting):
    """Act in a world from many initial conditions; write an episode record and a report.

    With --data DATASET the policy only plans at recorded observations: its error on held-out episodes, see
    `understudy eval --data DATASET --help`. With --world-model RUN --data DATASET a world model imagines films,
    see `understudy eval --world-model --help`.
    """

    RENAMED: ClassVar[dict[str, str]] = {"seed": "env_seed"}  # former names that are still read

    DISCOVER: ClassVar[tuple[str, ...]] = ("policies", "sim")

    world: dict | str = "pusht"  # registered name, YAML file, or its keys
    perturb: str = ""  # light, camera, distractors, friction, mass, latency, separated by commas; or seen | felt | all
    perturb_level: float = 1.0  # scales the ranges of the perturbations
    episodes: int = 50  # one from each env seed
    env_seed: int = REPORT_STARTS  # first env seed; 1000-9999 are for reporting, 0-999 for choosing among policies
    out: str | None = None  # folder of the record; must not exist
    resume: str | None = None  # go on with this record instead of --out; all else as it was
    workers: int = 0  # processes for the world; 0: in this one
    timeout: float = TIMEOUT  # s that the world may take for a control step; 60 times that an episode; 0: no limit
    videos: int = 6  # episodes to film: first failures and first successes

    @classmethod
    def choose(cls, words: list[str]) -> tuple[type, str]:
        """What the words ask for: to act in a world, or where nobody acts, with --data, open-loop errors, or films."""
        if asks_for_world_model(words):
            return EvalWorldModel, "--world-model"
        if not asks_for_data(words):
            return cls, ""
        refuse_acting(words, cls)
        return OpenLoop, ""

    def __post_init__(self):
        if self.out is None and self.resume is None:
            raise ValueError("give --out DIR for a new record, or --resume DIR to go on with one")
        check_timeout(self.timeout)
        if self.episodes < 1 or self.block < 1 or self.env_seed < 0:
            raise ValueError(
                f"no such env seeds: {self.episodes} episodes from {self.env_seed} in blocks of {self.block}"
            )

    def run(self) -> None:
        record = evaluate(self)
        print(summarize(record).text())
        print(f"report          {record.root / REPORT}")


def evaluate(config: Eval):
    """Evaluate and return the `Record`. Ctrl-C ends the record early and is raised again."""
    import torch

    torch.set_num_threads(config.threads)
    world = open_stage(config)
    agent, about = open_agent(config, world.embodiment, world.task)
    world = looked_at(world, agent.pictures)
    check_world(agent, world.embodiment())
    manifest = describe(config, agent, about, world)
    writer = RecordWriter(_folder(config), manifest | provenance(), resume=config.resume is not None)
    with writer, closing(Lanes(world, config.block, config.workers, config.timeout)) as lanes:
        filmed, tapes = False, Tapes(writer.root, config.videos > 0)
        try:
            _act(config, agent, lanes, writer, tapes)
            filmed = True
        except KeyboardInterrupt as stop:
            kept = f"{len(writer.done)} of {config.episodes} episodes are kept"
            goes_on = f"the same command with --resume {writer.root} in place of --out goes on"
            raise KeyboardInterrupt(f"{kept}; {goes_on}") from stop
        finally:
            complete = len(writer.done) == config.episodes
            record = writer.close(complete=complete)
            if complete and filmed:
                tapes.drop()
            if writer.done:
                write_report(record, run=run_folder(config.policy))
    return record


def describe(config: Eval, agent: Agent, about: dict, world: World) -> dict:
    """What the manifest says of a run: who acts, how, where and from which initial conditions."""
    manifest = {
        "policy": about,
        "agent": agent_settings(config, agent),
        "world": world.fingerprint() | {"config": keys_of(world)},
        "starts": {"set": start_set(world), "first": config.env_seed, "count": config.episodes},
    }
    return manifest | {MADE: made(manifest)}


def open_stage(config: Eval) -> World:
    """The world to act in, under the perturbations asked for."""
    from ...sim.perturb import perturbed

    world = read_world(config.world)
    return perturbed(world, config.perturb, config.perturb_level) if config.perturb else world


def _act(config: Eval, agent: Agent, lanes: Lanes, writer: RecordWriter, tapes: Tapes) -> None:
    """Run all env seeds that are not recorded yet into the record, then film some of all that have a tape."""
    starts = range(config.env_seed, config.env_seed + config.episodes)
    columns = {"initial_conditions": start_set(lanes.world), "policy_seed": config.policy_seed}
    begun, before = time.perf_counter(), len(writer.done)

    with Progress("evaluating", len(starts), "episodes", done=before) as progress:
        for result in rollout(agent, lanes, starts, skip=writer.done, **columns):
            tapes[result.start] = result.actions  # before the row: whoever goes on films what is recorded
            writer.add(result.row)
            won = sum(row["success"] for row in writer.rows.values())
            progress.update(len(writer.done), f"success {won}/{len(writer.done)}")
            writer.note(wall=time.perf_counter() - begun, acted=len(writer.done) - before)

    # films, by playing the actions again
    chosen = choose((writer.rows[start] for start in sorted(tapes.keys() & writer.done)), config.videos)
    if chosen:
        films = film_again(lanes, writer.rows, {start: tapes[start] for start in chosen}, writer.root)
        for start, path in films.items():
            writer.set_video(start, path)
        if len(films) < len(chosen):
            lost = len(chosen) - len(films)
            print(f"{lost} of {len(chosen)} chosen episodes could not be filmed; try `understudy doctor`")


def _folder(config: Eval) -> Path:
    return Path(os.path.expandvars(config.resume or config.out))
