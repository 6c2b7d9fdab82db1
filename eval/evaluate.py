"""`understudy eval`: let a policy act in a world from many starts, record every episode, report what it was worth.

The composition root of evaluation. Everything that can be refused is refused before a policy thinks or a world opens.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..configs.lanes import Lanes
from ..configs.plugins import lookup
from ..configs.progress import Progress
from ..configs.world import World
from .alarm import open_watch, watched
from .critics import check_world, critic_checkpoints
from .film import choose, film_again
from .ledger import REPORT, RecordWriter, provenance
from .report import write_report
from .rollout import rollout
from .summary import summarize
from .worlds import read_world, start_set

if TYPE_CHECKING:
    from ..policies.agent import Agent


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Act in a world from many starts; write an episode record and a report."""

    DISCOVER: ClassVar[tuple[str, ...]] = ("policies", "policies.networks", "sim")

    policy: str  # run or checkpoint folder; lerobot's too
    embodiment: str | None = None  # file that says for whom a policy of lerobot's acts; default its dataset's card
    world: dict | str = "pusht"  # registered name, YAML file, or its keys
    perturb: str = ""  # light, camera, distractors, friction, mass, latency, separated by commas; or seen | felt | all
    perturb_level: float = 1.0  # scales the ranges of the perturbations
    episodes: int = 50
    seed: int = 1000  # first start id; 1000-9999 are for reporting, 0-999 for choosing among policies
    out: str | None = None  # folder of the record; must not exist
    resume: str | None = None  # go on with this record instead of --out; all else as it was
    workers: int = 0  # processes for the world; 0: in this one
    block: int = 8  # B, starts that act at the same time; results depend on it in the last digits
    execute: int | None = None  # E, actions executed of each plan; default the policy's own
    candidates: int = 1  # N plans drawn at each replanning; more need a critic
    critic: str | None = None  # who chooses: folder of a trained critic, recall, or random; A:5>B sieves, A+0.5*B adds
    temperature: float = 0.0  # above 0: draw the plan by a softmax over its score; in spreads of a lane's scores
    plans: str = "policy"  # whose plans: the policy's | uniform: any action, held; the control of what the policy adds
    ensemble: float | None = None  # temporal ensembling: decay of its weights; asks for execute below the horizon
    watch: int = 0  # N plans looked at in each replanning; records recall error, spread and drift; 0: not
    alarm: str | None = None  # file of `understudy calibrate`: watch, and say when the alarm rings
    policy_seed: int = 0  # of the policy's noise
    steps: int | None = None  # of the sampler; default the policy's own
    solver: str | None = None  # of the sampler: ddim | dpmpp | heun
    videos: int = 6  # episodes to film: first failures and first successes
    threads: int = 1  # of torch on the CPU
    device: str = "cpu"  # cpu | cuda: where the policy thinks

    def __post_init__(self):
        if self.out is None and self.resume is None:
            raise ValueError("give --out DIR for a new record, or --resume DIR to go on with one")
        if self.episodes < 1 or self.block < 1 or self.seed < 0:
            raise ValueError(f"no such starts: {self.episodes} episodes from {self.seed} in blocks of {self.block}")

    def run(self) -> None:
        record = evaluate(self)
        print(summarize(record).text())
        print(f"report          {record.root / REPORT}")


def evaluate(config: Eval):
    """Evaluate and return the `Record`. Ctrl-C ends the record early and is raised again."""
    import torch

    torch.set_num_threads(config.threads)
    agent, about = open_agent(config)
    world = open_stage(config)
    check_world(agent, world.embodiment())
    manifest = describe(config, agent, about, world)
    writer = RecordWriter(_folder(config), manifest | provenance(), resume=config.resume is not None)
    with writer, closing(Lanes(world, config.block, config.workers)) as lanes:
        try:
            _act(config, agent, lanes, writer)
        finally:
            record = writer.close(complete=len(writer.done) == config.episodes)
            if writer.done:
                write_report(record, run=_run_folder(config.policy))
    return record


def describe(config: Eval, agent: Agent, about: dict, world: World) -> dict:
    """What the manifest says of a run: who acts, how, where and from which starts."""
    return {
        "policy": about,
        "agent": agent_settings(config, agent),
        "world": world.fingerprint() | {"config": _plain(world)},
        "starts": {"set": start_set(world), "first": config.seed, "count": config.episodes},
    }


def open_stage(config: Eval) -> World:
    """The world to act in, under the perturbations asked for."""
    from ..sim.perturb import perturbed

    world = read_world(config.world)
    return perturbed(world, config.perturb, config.perturb_level) if config.perturb else world


def open_agent(config: Eval) -> tuple[Agent, dict]:
    """The agent that the settings describe, and what the manifest says of its policy."""
    from ..policies.agent import Agent
    from ..policies.foreign import settle
    from ..policies.learning.checkpoint import load_policy
    from ..policies.steering import UniformPlanner
    from .critics import open_critic

    lookup("source of plans", config.plans, {"policy": None, "uniform": None})
    policy, info = load_policy(config.policy, config.embodiment)
    foreign = settle(policy, lambda: open_stage(config).embodiment())
    if config.steps or config.solver:
        policy = _resampled(policy, config)
    policy = UniformPlanner(policy) if config.plans == "uniform" else policy
    critic = open_critic(config.critic, policy, config.device) if config.critic else None
    execute = config.execute or getattr(policy, "execute", 8)
    agent = Agent(
        policy.to(config.device),
        lanes=config.block,
        execute=execute,
        candidates=config.candidates,
        critic=critic,
        seed=config.policy_seed,
        ensemble=config.ensemble,
        watch=open_watch(config, policy, execute),
        temperature=config.temperature,
    )
    about = {"path": config.policy, "fingerprint": fingerprint(Path(info["path"]))}
    if agent.watch and agent.watch.alarm:
        agent.watch.alarm.check(about["fingerprint"], agent_settings(config, agent))
    return agent, about | _told(info, ("type", "step", "config", "train")) | foreign | _training(config.policy)


def agent_settings(config: Eval, agent: Agent) -> dict:
    """How the policy was asked to act."""
    import torch

    sampler = getattr(agent.planner, "sampler", None)
    unusual = watched(config, agent) | ({} if config.ensemble is None else {"ensemble": config.ensemble})
    unusual |= {"temperature": config.temperature} if config.temperature else {}
    unusual |= {"plans": config.plans} if config.plans != "policy" else {}
    weights = [fingerprint(folder) for folder in critic_checkpoints(config.critic)]
    unusual |= {"critic_fingerprint": weights} if weights else {}
    return unusual | {
        "execute": agent.execute,
        "candidates": config.candidates,
        "critic": config.critic,
        "seed": config.policy_seed,
        "sampler": _plain(sampler) if sampler is not None else None,
        "block": config.block,
        "threads": config.threads,
        "device": torch.cuda.get_device_name() if config.device.startswith("cuda") else config.device,
    }


def _act(config: Eval, agent: Agent, lanes: Lanes, writer: RecordWriter) -> None:
    """Run all starts that are not recorded yet into the record, then film some."""
    starts = range(config.seed, config.seed + config.episodes)
    columns = {"start_set": start_set(lanes.world), "seed": config.policy_seed}
    tapes, begun, before = {}, time.perf_counter(), len(writer.done)
    with Progress("evaluating", len(starts), "episodes", done=before) as progress:
        for result in rollout(agent, lanes, starts, skip=writer.done, **columns):
            writer.add(result.row)
            tapes[result.start] = result.actions
            won = sum(row["success"] for row in writer.rows.values())
            progress.update(len(writer.done), f"success {won}/{len(writer.done)}")
            writer.note(wall=time.perf_counter() - begun, acted=len(writer.done) - before)
    chosen = choose((writer.rows[start] for start in sorted(tapes)), config.videos)
    if chosen:
        films = film_again(lanes, writer.rows, {start: tapes[start] for start in chosen}, writer.root)
        for start, path in films.items():
            writer.set_video(start, path)
        if len(films) < len(chosen):
            lost = len(chosen) - len(films)
            print(f"{lost} of {len(chosen)} chosen episodes could not be filmed; try `understudy doctor`")


def _resampled(policy, config: Eval):
    from ..policies.field import Solver
    from ..policies.generative import with_sampler

    if not hasattr(policy, "sampler"):
        raise ValueError(f"--steps and --solver change a sampler, but the policy in '{config.policy}' has none")
    solver = lookup("solver", config.solver, {one.value: one for one in Solver}) if config.solver else None
    return with_sampler(policy, steps=config.steps, solver=solver)


def _folder(config: Eval) -> Path:
    return Path(os.path.expandvars(config.resume or config.out))


def _run_folder(policy: str) -> Path | None:
    """The training run that a policy path lies in, if there is one."""
    path = Path(os.path.expandvars(policy)).resolve()
    return next((folder for folder in (path, *path.parents[:2]) if (folder / "config.yaml").is_file()), None)


def _told(info: dict, names: tuple[str, ...]) -> dict:
    return {name: info[name] for name in names if name in info}


def _training(policy: str) -> dict:
    """Seed and data of the training, from the run's settings."""
    import yaml

    run = _run_folder(policy)
    if run is None:
        return {}
    settings = yaml.safe_load((run / "config.yaml").read_text())
    return {"train": {key: settings.get(key) for key in ("seed", "data", "steps", "batch")}}


def fingerprint(folder: Path) -> str:
    """Hash of the weights and settings that act."""
    from ..policies.learning.checkpoint import acting_files

    digest = hashlib.sha256()
    for file in acting_files(folder):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _plain(config: World | object) -> dict:
    import draccus

    plain = draccus.encode(config)
    return plain | {"type": config.get_choice_name(type(config))} if hasattr(config, "get_choice_name") else plain
