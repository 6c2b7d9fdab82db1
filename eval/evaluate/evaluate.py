"""`understudy eval`: let a policy act from many initial conditions, record every episode, report what it was worth.

The composition root of evaluation. Everything that can be refused is refused before a policy thinks or a world opens
here; workers get their own ready meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...configs.devices import choose_device, device_name
from ...configs.engines import check_engine
from ...configs.lanes.pulse import TIMEOUT, check_timeout
from ...configs.progress import Progress, counted
from ...configs.settings.decode import keys_of
from ...configs.world import REPORT_STARTS, World, looked_at, name_of, read_world, start_set
from ...policies.agent.open import Acting, agent_settings, check_policy_names, check_world, open_agent
from ...policies.agent.stage import check_saved, world_of
from ...policies.learning.run import run_folder
from ..ledger.chains import MADE
from ..ledger.made import made
from ..ledger.provenance import provenance
from ..ledger.record import MANIFEST, REPORT, RecordWriter, read_record
from ..ledger.summary import summarize
from ..ledger.table import RecordError
from ..rollout.crew import Crew
from ..rollout.film import Tapes, choose, film_again
from ..rollout.recipes import PolicyRecipe, weight_of
from ..rollout.rollout import ArmError
from ..rollout.standing import check_paced, crew_for, expect, paced
from ..world_model.evaluate import EvalWorldModel, asks_for_world_model
from .open_loop import OpenLoop, asks_for_data, refuse_acting
from .report import write_report

if TYPE_CHECKING:
    from ...policies.agent.agent import Agent


@dataclass(frozen=True, kw_only=True)
class Eval(Acting):
    """Act in a world from many initial conditions; write an episode record and a report.

    With --data DATASET the policy only plans at recorded observations: its error on held-out episodes, see
    `understudy eval --data DATASET --help`. With --world-model RUN --data DATASET a world model imagines films, see
    `understudy eval --world-model --help`.
    """

    RENAMED: ClassVar[dict[str, str]] = {"seed": "env_seed"}  # former names that are still read

    DISCOVER: ClassVar[tuple[str, ...]] = ("policies", "sim")

    POSITIONALS: ClassVar[tuple[str, ...]] = ("policy",)

    world: dict | str | None = (
        None  # a registered name (understudy list worlds), a YAML file, or its keys; by default where it was trained
    )
    perturb: str = ""  # light, camera, distractors, friction, mass, latency, separated by commas; or seen | felt | all
    perturb_level: float = 1.0  # scales the ranges of the perturbations
    episodes: int = 50  # episodes, one from each evaluation seed
    env_seed: int = REPORT_STARTS  # first evaluation seed; 1000-9999 are for reporting, 0-999 for choosing policies
    out: str | None = None  # folder of the new record, which must not be there
    name: str = ""  # title of the report, and label of the record in comparisons; default the policy's name or path
    resume: str | None = None  # goes on with this record in place of --out; all else as it was
    workers: int | None = None  # processes, each for whole blocks; by default as the machine allows; 0: this one
    engine: str = "local"  # whose workers they are: local (of this machine) | ray (of a cluster, see --address)
    address: str = ""  # with --engine ray: HOST:PORT of its head; by default the one here; local: a new one, here
    timeout: float = TIMEOUT  # seconds that a control step may take, and an episode 60 times as long; 0: no limit
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
        check_engine(self.engine, self.address, self.workers)
        for flag, least in (("episodes", 1), ("block", 1), ("env_seed", 0)):
            if getattr(self, flag) < least:
                raise ValueError(f"--{flag} {getattr(self, flag)}: it must be at least {least}")

    def check_names(self) -> None:
        """Refuse names and paths that are not there, before anything heavy is imported; the folder comes last."""
        check_policy_names(self)
        world = read_world(stage_of(self, tell=False))
        check_paced(self, world)
        if self.embodiment is None:
            check_saved(self.policy, world)
        folder = _folder(self)
        if self.resume is None and folder.exists():
            raise RecordError(f"'{folder}' exists; give another --out, or --resume {folder} to go on with it")
        if self.resume is not None and not (folder / MANIFEST).is_file():
            raise RecordError(f"'{folder}' holds no record to go on with; give --out {folder} to begin one")

    def get_ready(self) -> None:
        """Begin to load what workers need."""
        if not self.perturb:
            expect(read_world(stage_of(self, tell=False)), **_crew_settings(self))

    def run(self) -> None:
        record = evaluate(self)
        print(summarize(record).text())
        print(f"report          {record.root / REPORT}")


def evaluate(config: Eval, crew: Crew | None = None):
    """Evaluate and return the `Record`. Ctrl-C ends the record early and is raised again.

    Args:
        crew: workers that are there already, with the block of `config`; they stay.
    """
    world = open_stage(config)
    config = paced(config, world)
    with contextlib.ExitStack() as stack:
        crew = crew or stack.enter_context(open_crew(config, world))
        crew.start()  # workers get ready while the policy is opened here
        import torch

        torch.set_num_threads(config.threads)
        agent, about = open_agent(config, world.embodiment, world.task)
        seen = looked_at(world, agent.pictures)
        check_world(agent, seen)
        device, number = device_name(choose_device(config.device)), counted(config.episodes, "episode")
        print(f"evaluating {config.policy} on {device} in world {name_of(seen)}, {number}")
        crew.enter(seen)
        manifest = describe(config, agent, about, seen)
        recipe = PolicyRecipe.of(config, agent, about, world)
        crew.know(recipe, agent)
        writer = RecordWriter(_folder(config), manifest | provenance(), resume=config.resume is not None)
        stack.enter_context(writer)
        filmed, tapes = False, Tapes(writer.root, config.videos > 0)
        try:
            _act(config, recipe, crew, writer, tapes)
            filmed = True
        except (KeyboardInterrupt, ArmError) as stop:
            kept = f"{len(writer.done)} of {counted(config.episodes, 'episode')} are kept"
            goes_on = f"the same command with --resume {writer.root} in place of --out goes on"
            if isinstance(stop, ArmError):
                raise ArmError(f"{stop}; {kept}; {goes_on}") from stop
            raise KeyboardInterrupt(f"{kept}; {goes_on}; films come last") from stop
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
    named = {"name": config.name} if config.name else {}
    manifest = named | {
        "policy": about,
        "agent": agent_settings(config, agent),
        "reads": list(agent.inputs),
        "rate": world.embodiment().rate,
        "world": world.fingerprint() | {"config": keys_of(world)},
        "starts": {"set": start_set(world), "first": config.env_seed, "count": config.episodes},
    }
    return manifest | {MADE: made(manifest)}


def stage_of(config: Eval, tell: bool = True) -> dict | str:
    """The world to act in: as asked, of the record that is gone on with, or where the policy was trained.

    Raises:
        ValueError: nobody says it. LookupError: no such world.
    """
    world = config.world
    if world is None and config.resume is not None and (_folder(config) / MANIFEST).is_file():
        world = read_record(_folder(config)).manifest["world"].get("config")
    if world is None:
        world = world_of([config.policy], tell=tell)
    read_world(world)
    return world


def open_stage(config: Eval) -> World:
    """The world to act in, under the perturbations asked for."""
    from ...sim.perturb import perturbed

    world = read_world(stage_of(config))
    return perturbed(world, config.perturb, config.perturb_level) if config.perturb else world


def open_crew(config: Eval, world: World) -> Crew:
    """Who runs the episodes of these settings on this machine."""
    return crew_for(world, **_crew_settings(config), timeout=config.timeout)


def _crew_settings(config: Eval) -> dict:
    numbers: dict = {"episodes": config.episodes, "block": config.block, "threads": config.threads}
    numbers |= {"asked": config.workers, "device": config.device, "weights": weight_of(config.policy)}
    return numbers | {"engine": config.engine, "address": config.address}


def _act(config: Eval, recipe: PolicyRecipe, crew: Crew, writer: RecordWriter, tapes: Tapes) -> None:
    """Run all env seeds that are not recorded yet into the record, then film some of all that have a tape."""
    starts = range(config.env_seed, config.env_seed + config.episodes)
    columns = {"initial_conditions": start_set(crew.world), "policy_seed": config.policy_seed}
    begun, before = time.perf_counter(), len(writer.done)
    crew.account.begin()

    with Progress("evaluating", len(starts), "episodes", done=before) as progress:
        for result in crew.run(recipe, starts, skip=writer.done, **columns):
            tapes[result.start] = result.actions  # before the row: whoever goes on films what is recorded
            writer.add(result.row)
            won = sum(row["success"] for row in writer.rows.values())
            progress.update(len(writer.done), f"success {won}/{len(writer.done)}")
            writer.note(wall=time.perf_counter() - begun, acted=len(writer.done) - before)
    writer.note(crew=crew.told())

    # films, by playing the actions again
    chosen = choose((writer.rows[start] for start in sorted(tapes.keys() & writer.done)), config.videos)
    if chosen:
        films = film_again(crew, writer.rows, {start: tapes[start] for start in chosen}, writer.root)
        for start, path in films.items():
            writer.set_video(start, path)
        if len(films) < len(chosen):
            lost = len(chosen) - len(films)
            print(f"{lost} of {counted(len(chosen), 'chosen episode')} could not be filmed; try `understudy doctor`")


def _folder(config: Eval) -> Path:
    return Path(os.path.expandvars(config.resume or config.out))
