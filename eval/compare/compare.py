"""`understudy compare A B ...`: which policy is better, from finished records or live, until that is decided.

The composition root of comparisons. Folders with a manifest are records and are read; runs and checkpoints are policies
and act, two of them, from the same initial conditions in one world.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...configs.devices import check_device
from ...configs.engines import LOCAL, check_engine
from ...configs.files import clear_leftovers
from ...configs.lanes.pulse import TIMEOUT
from ...configs.progress import Progress, on_terminal
from ...configs.world import REPORT_STARTS, World, looked_at, name_of, read_world, start_set
from ...policies.agent.open import check_policy, check_world, open_agent
from ...policies.agent.stage import check_saved, world_of
from ...policies.learning.checks import check_data
from ..evaluate.evaluate import Eval, describe, open_stage
from ..evaluate.report import write_report
from ..ledger.dreams import check_world as check_dream
from ..ledger.dreams import refuse_unproven
from ..ledger.provenance import provenance
from ..ledger.record import MANIFEST, Record, RecordWriter, read_manifest, read_record
from ..offline.record import is_error_record
from ..rollout.crew import Crew
from ..rollout.film import Tapes
from ..rollout.recipes import PolicyRecipe, weight_of
from ..rollout.standing import crew_for
from ..statistics.by_name import sequential_test
from ..statistics.power import needed
from ..statistics.sequential import A, B, Sequential
from .arm import Duel, acts_one_by_one, arm_settings, as_arm, open_on_arm, start_set_on
from .blind import BlindStage, ask, secret_order
from .comparison import FILE, Comparison, compare_records, read_comparison
from .imagine import Imagination, imagining
from .on_arm import OnArm
from .open_loop import ErrorComparison, compare_error_records, judge_and_compare
from .page import PAGE, write_comparison
from .sequential import PairStage, RolloutStage, Rules, SequentialComparison, Side, Standing, fight, say

SIDES = ("a", "b")  # folders of the records of a sequential comparison


@dataclass(frozen=True, kw_only=True)
class Compare(OnArm):
    """Say which policy is better: compare finished records, or let two policies act until that is decided.

    Records of open-loop errors are joined by episode; with --data DATASET two policies are judged by recorded episodes.
    """

    RENAMED: ClassVar[dict[str, str]] = {
        "seed": "env_seed",
        "execute": "n_action_steps",
    }  # former names that are still read

    POSITIONALS: ClassVar[tuple[str, ...]] = ("what",)
    DISCOVER: ClassVar[tuple[str, ...]] = ("policies", "sim", "hardware")

    what: tuple[str, ...]  # two or more records; or two policies (runs or checkpoints), which then act
    alpha: float = 0.05  # probability of naming a better policy where there is none, two-sided
    out: str | None = (
        None  # folder of the report and compare.json; of a live comparison also of both records, and then new
    )
    name: str = ""  # title of the report; default: Which is better: A or B?
    resume: str | None = None  # live: goes on with this folder; all else as it was
    data: str | None = None  # judges two policies by recorded episodes of this dataset, open-loop: nobody acts
    world: dict | str | None = (
        None  # live: a registered name, a YAML file, or its keys; by default where both policies were trained
    )
    until_decided: bool = False  # live: stops when decided or hopeless; else --max pairs are run, a fixed number
    max: int = 500  # live: greatest number of pairs of episodes
    on: str = "success"  # live: what decides, success | progress
    test: str = "betting"  # live: betting (paired) | table (success only; B acts from evaluation seeds of its own)
    imagine: str | None = None  # live: world model whose dreams of the same starts stand beside the pairs, if that pays
    past: tuple[str, ...] = ()  # with --imagine: true records of A and B from other starts, which tell whether it pays
    imagined: int = 4000  # with --imagine: imagined pairs that the mean of the dreams is taken from
    dreams: int = 1  # with --imagine: dreams of each start and policy
    give_up: float = 0.05  # live: stops when the chance of a verdict falls below this; 0: never
    env_seed: int = REPORT_STARTS  # live: first evaluation seed
    policy_seed: int = 0  # live: seed of the policies' sampling noise
    other_seed: int | None = None  # live: seed of the noise of B, if it is to be another one
    operator: str = ""  # live: name of the person who scores every trial at the terminal, in blinded order
    workers: int | None = None  # live: processes, each for whole blocks; by default by the machine; 0: this one
    engine: str = "local"  # live: whose workers they are: local (of this machine) | ray (of a cluster, see --address)
    address: str = ""  # live: with --engine ray: HOST:PORT of its head; by default the one here; local: a new one, here
    timeout: float = TIMEOUT  # live: seconds that a control step may take, an episode 60 times as long; 0: no limit
    block: int = 8  # live: parallel environments
    n_action_steps: int | None = None  # live: actions executed of each action chunk; by default the policy's own number
    proposal: str = "policy"  # live: policy | noiseless: both without sampling noise, each a function of what it sees
    ensemble: float | None = None  # live: decay of temporal ensembling, -inf: none; by default each policy's own
    videos: int = 6  # live: films of each, first where one alone succeeded
    threads: int = 1  # live: CPU threads that torch uses
    device: str = "auto"  # live: where to compute, auto (a GPU if there is one) | cpu | cuda | cuda:N

    def __post_init__(self):
        check_engine(self.engine, self.address, self.workers)
        if self.engine != LOCAL and self.operator:
            raise ValueError("--operator scores what happens here: leave --engine out")
        if len(self.what) < 2:
            raise ValueError("compare needs at least two records or policies: understudy compare A B")
        if not 0 < self.alpha < 1 or self.max < 1 or self.block < 1:
            raise ValueError(
                f"--alpha must be between 0 and 1, --max and --block at least 1; got {self.alpha}, {self.max} and "
                f"{self.block}"
            )

    def check_names(self) -> None:
        """Refuse names and paths that are not there, before anything heavy is imported; the folder comes last."""
        paths = [Path(os.path.expandvars(word)) for word in self.what]
        recorded = [(path / MANIFEST).is_file() for path in paths]
        if any(map(is_error_record, paths)):
            self.refuse_arm("these are records")
            return
        if any(recorded):
            self.refuse_arm("these are records")
            _refuse_mixed(paths, recorded)
            return
        check_device(self.device)
        for policy in self.what:
            check_policy(policy)
        if self.data is not None:
            self.refuse_arm("with --data nobody acts")
            for source in self.data.split(","):
                check_data(source)
            _checked_two(self)
            return
        _checked_kind(self)
        world = _checked_arm(self, _stage(self, tell=False))
        for policy in self.what:
            check_saved(policy, world)
        _checked_folder(self)

    def run(self) -> None:
        comparison = compare(self)
        print(comparison.text())
        folder = self.resume or self.out
        if folder:
            print(f"\nreport          {Path(os.path.expandvars(folder)) / PAGE}")


def compare(config: Compare) -> Comparison | ErrorComparison:
    """Compare records, or hold the sequential comparison; with `data`, or of such records, compare open-loop errors.

    Raises:
        ValueError: records and policies mixed, a third policy in a live comparison, a policy against itself
            with equal noise.
    """
    paths = [Path(os.path.expandvars(word)) for word in config.what]
    recorded = [(path / MANIFEST).is_file() for path in paths]
    place = config.resume or config.out
    out = None if place is None else Path(os.path.expandvars(place))

    if config.data is not None and not any(recorded):
        return judge_two(config, out)
    if any(map(is_error_record, paths)):
        return compare_error_records(paths, config.alpha, out)
    if config.data is not None:
        raise ValueError("--data is for policies: these are records already. Leave it out")

    if not any(recorded):
        return hold(config)

    _refuse_mixed(paths, recorded)
    records = [read_record(path) for path in paths]
    refuse_unproven(records)
    comparison = compare_records(records, config.alpha, config.env_seed, name=config.name)
    if config.out:
        comparison.write(os.path.expandvars(config.out))
        write_comparison(comparison, records, os.path.expandvars(config.out))
    return comparison


def _refuse_mixed(paths: Sequence[Path], recorded: Sequence[bool]) -> None:
    """Raise ValueError where some are records of episodes and others are not."""
    if all(recorded):
        return
    both = list(zip(paths, recorded, strict=True))
    records, others = ([str(path) for path, is_record in both if is_record == want] for want in (True, False))
    missing = [str(path) for path, is_record in both if not is_record and not path.exists()]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)}: there is no such folder")
    raise ValueError(f"{', '.join(records)}: episode records; {', '.join(others)}: not. Compare records with records")


PLANNING = ("n_action_steps", "threads", "device")  # settings that say how policies plan, also where nobody acts


def judge_two(config: Compare, out: Path | None) -> ErrorComparison:
    """Compare the open-loop errors of two policies on recorded data. Raises ValueError for settings of acting."""
    _checked_two(config)
    assert out is not None
    seeds = config.policy_seed, config.policy_seed if config.other_seed is None else config.other_seed
    planning = {name: getattr(config, name) for name in PLANNING}
    return judge_and_compare(config.what, str(config.data), out, config.alpha, seeds, planning)


def _checked_two(config: Compare) -> None:
    """Refuse what cannot be a comparison by recorded episodes."""
    shared = {*PLANNING, "what", "alpha", "out", "resume", "data", "policy_seed", "other_seed"}
    for item in dataclasses.fields(config):
        if item.name not in shared and getattr(config, item.name) != item.default:
            raise ValueError(f"--{item.name} is of policies that act; with --data nobody acts. Leave one of them out")
    place = config.resume or config.out
    if len(config.what) != 2 or place is None:
        raise ValueError("give two policies and a folder: compare A B --data DATASET --out DIR (or --resume DIR)")
    if not config.resume and Path(os.path.expandvars(place)).exists():
        raise ValueError(f"'{place}' exists; give another --out, or --resume {place} to go on with it")


def hold(config: Compare) -> Comparison:
    """The live sequential comparison. Ctrl-C ends it with valid records and a compare.json, and is raised again."""
    import torch

    config = replace(config, world=_stage(config))
    rules, folder = _checked(config), Path(os.path.expandvars(config.resume or config.out or ""))
    test = sequential_test(config.test, config.max, config.alpha, seed=config.env_seed)
    torch.set_num_threads(config.threads)

    evals = [_evaluation(config, side, test) for side in range(2)]
    offered, alone = open_stage(evals[0]), ()
    on_arm = acts_one_by_one(config, offered, config.operator)
    if on_arm:
        settings = [
            arm_settings(config, one, offered, _begun(config, name)) for one, name in zip(evals, SIDES, strict=True)
        ]
        opened, world, alone = open_on_arm(settings, offered, config.restore_within is not None, bool(config.operator))
        evals = [
            replace(one, delay=about.pop("delay"), latency=config.latency)
            for one, (_, about) in zip(evals, opened, strict=True)
        ]
    else:
        opened = [open_agent(settings, offered.embodiment, offered.task) for settings in evals]
        world = looked_at(offered, *(agent.pictures for agent, _ in opened))
        for agent, _ in opened:
            check_world(agent, world)
    check_dream(describe(evals[0], *opened[0], world)["world"], "this comparison")

    # where imagination pays, it stands beside the pairs
    told: dict = {}
    if config.imagine is not None:
        manifests = [describe(one, agent, about, world) for one, (agent, about) in zip(evals, opened, strict=True)]
        asked = Imagination(config.imagine, config.past, config.imagined, config.dreams)
        test, told = imagining(asked, evals, manifests, rules.on, test, folder)

    # what both manifests say of the test
    plan = {"test": test.name, "on": rules.on, "alpha": config.alpha, "budget": config.max}
    plan |= {"until_decided": config.until_decided, "give_up": config.give_up, "independent": test.independent}
    plan |= {"operator": config.operator} | ({"imagined": told} if told else {})
    if on_arm or config.operator:
        plan |= {"order": _order(config)}
    initial = start_set(world)
    if on_arm:
        initial = start_set_on(world, initial, plan["order"])

    if config.resume:
        clear_leftovers(folder)

    # records, workers and sides
    with ExitStack() as stack:
        writers = []
        for name, settings, (agent, about) in zip(SIDES, evals, opened, strict=True):
            manifest = describe(settings, agent, about, world) | {"sequential": plan} | provenance()
            manifest |= {"starts": manifest["starts"] | {"set": initial}}
            resume = bool(config.resume) and _resumable(folder / name, plan)
            writers.append(stack.enter_context(RecordWriter(folder / name, manifest, resume=resume)))

        columns = [{"initial_conditions": initial, "policy_seed": settings.policy_seed} for settings in evals]
        if on_arm:
            agents = [agent for agent, _ in opened]
            duel = stack.enter_context(Duel(config, agents, world, columns, folder, bool(config.operator)))
            score = duel.score if config.operator else None
            blind = BlindStage(duel.acts, tuple(writers), score, plan["order"], config.operator, folder)
            found = _hold(config, blind, test, rules, writers, plan, folder)
            print("\n".join(alone), end="\n" if alone else "")
            return found

        crew = stack.enter_context(_crew(config, evals[0], world))
        sides = []
        for (agent, about), writer, settings, column in zip(opened, writers, evals, columns, strict=True):
            recipe = PolicyRecipe.of(settings, agent, about, offered)
            crew.know(recipe, agent)
            sides.append(Side(recipe, writer, column, settings.env_seed - config.env_seed))

        stage = _pair_stage(config, tuple(sides), crew, plan, folder)
        return _hold(config, stage, test, rules, writers, plan, folder)


def _hold(config: Compare, stage: PairStage, test: Sequential, rules: Rules, writers, plan: dict, folder: Path):
    """Fight, and close the records whatever happens."""
    starts, sequential = range(config.env_seed, config.env_seed + config.max), None
    filmed: tuple[Tapes, ...] = ()
    try:
        with Progress("sequential", config.max, "pairs", every=3600) as progress:
            watch = partial(_show, progress=progress, blind=bool(config.operator))
            block = 1 if isinstance(stage, BlindStage) else config.block  # a trial costs more than a look
            for stand in fight(stage, starts, test, rules, block, watch):
                sequential = stand

        if isinstance(stage, RolloutStage):
            if config.videos:
                stage.film(config.videos)
            filmed = stage.tapes
    except KeyboardInterrupt as stop:
        counts = [len(writer.done) for writer in writers]
        kept = f"{sum(counts)} trials" if config.operator else f"{counts[0]} and {counts[1]} episodes"
        goes_on = f"the same command with --resume {folder} in place of --out goes on"
        raise KeyboardInterrupt("; ".join(filter(None, (str(stop), f"{kept} are kept; {goes_on}")))) from stop
    finally:
        # decided, or the whole budget run
        ended = sequential is not None and (
            sequential.pairs == config.max or (config.until_decided and sequential.decision is not None)
        )
        records = [_close(writer, ended) for writer in writers]
        for tapes in filmed if ended else ():
            tapes.drop()

        blinded = bool(config.operator) and not ended  # whoever goes on scoring must not know
        if blinded and sequential is not None:
            print(
                f"\n{say(sequential, rules, test)}\nNobody is unblinded before the end. Go on with --resume {folder}",
                file=sys.stderr,
            )
        elif sequential is not None and all(len(record.table) for record in records):
            result = _result(sequential, plan, rules, test)
            comparison = compare_records(records, config.alpha, config.env_seed, result, config.name)
            write_comparison(comparison, records, folder)
            for record in records:
                write_report(record)
            comparison.write(folder)  # the last, for it says that the comparison has ended
            if not ended:
                print(f"\n{comparison.sequential['says']}\nGo on with --resume {folder}", file=sys.stderr)
    return comparison


def _result(sequential: SequentialComparison, plan: Mapping, rules: Rules, test: Sequential) -> dict:
    """What `compare.json` keeps of a sequential comparison."""
    result = dict(plan) | {
        "decision": sequential.decision,
        "pairs": sequential.pairs,
        "evidence": 0.0 - round(sequential.state.evidence, 4),  # above 0 for A
    }
    result |= {
        "note": sequential.state.note,
        "counts": sequential.counts,
        "history": [(pairs, 0.0 - evidence) for pairs, evidence in sequential.history],
        "says": say(sequential, rules, test),
    }

    # what a fixed number would have cost
    fixed = (
        _fixed(sequential, test)
        if rules.until_decided and rules.on == "success" and sequential.decision in (A, B)
        else None
    )

    if fixed:
        result["says"] += (
            f" A number of pairs fixed beforehand would have to be {fixed} to find a difference like the one"
        )
        result["says"] += " seen with power .9."

    return result | {"fixed_pairs": fixed}


def _fixed(sequential: SequentialComparison, test: Sequential) -> int | None:
    """Pairs that a test with n fixed beforehand needs for rates and correlation as seen, with power .9."""
    first, second = (won / sequential.pairs for won in sequential.wins)
    spread = np.sqrt(first * (1 - first) * second * (1 - second))
    if first == second:
        return None
    correlation = (sequential.counts[3] / sequential.pairs - first * second) / spread if spread else 0.0
    return needed(first, second, paired=not test.independent, correlation=correlation, power=0.9, alpha=test.alpha)


def _stage(config: Compare, tell: bool = True) -> dict | str:
    """The world to act in: as asked, of the comparison that is gone on with, or where both policies were trained."""
    if config.arm_asked:
        if config.world is not None:
            raise ValueError("--world names where policies act, as --robot and --emulate do: leave one out")
        return config.arm_world() or {}
    begun = Path(os.path.expandvars(config.resume or "")) / SIDES[0]
    if config.world is None and config.resume and (begun / MANIFEST).is_file():
        return read_record(begun).manifest["world"]["config"]
    return world_of(config.what, tell=tell) if config.world is None else config.world


def _checked_arm(config: Compare, world: dict | str) -> World:
    """The world; where it is an arm, its settings are checked, elsewhere refused."""
    opened = read_world(world)
    arm = as_arm(opened)
    if arm is None:
        config.refuse_arm(f"this one is in {name_of(opened)}")
        return opened
    config.check_arm(arm.emulate, config.operator)
    if acts_one_by_one(config, arm, config.operator):
        one_arm = {"workers": (None, 0, 1), "engine": (LOCAL,), "videos": (Compare.videos,), "imagine": (None,)}
        for name, allowed in one_arm.items():
            if getattr(config, name) not in allowed:
                raise ValueError(f"--{name}: two policies share one arm, a trial at a time; leave it out")
        if config.test == "table":
            raise ValueError("--test table is of independent starts; on an arm they come in pairs: --test betting")
    return arm


def _order(config: Compare) -> int:
    """The seed of the order of the trials: a secret, or that of the comparison that is gone on with."""
    begun = _begun(config, SIDES[0])
    if begun is None or not (begun / MANIFEST).is_file():
        return secret_order()
    return read_manifest(begun)["sequential"].get("order", config.env_seed)


def _begun(config: Compare, side: str) -> Path | None:
    """The record of a side that is gone on with."""
    return None if config.resume is None else Path(os.path.expandvars(config.resume)) / side


def _checked(config: Compare) -> Rules:
    """Refuse what cannot be a sequential comparison before anything is opened."""
    _checked_kind(config)
    assert config.world is not None
    _checked_arm(config, config.world)
    _checked_folder(config)
    return Rules(config.on, config.until_decided, config.give_up)


def _checked_kind(config: Compare) -> None:
    if len(config.what) != 2:
        raise ValueError(
            "a live comparison is between two policies; evaluate more of them first and compare their records"
        )
    if config.out is None and config.resume is None:
        raise ValueError(
            "a live comparison records its episodes: give --out DIR, or --resume DIR to go on with one; by recorded "
            "episodes alone: --data DATASET"
        )
    same = len({str(Path(os.path.expandvars(word)).resolve()) for word in config.what}) == 1
    if same and config.other_seed in (None, config.policy_seed) and config.test == "betting":
        raise ValueError("both are the same policy with the same noise, so every pair is equal; give --other_seed")
    if config.test == "table" and config.on != "success":
        raise ValueError("the table is for success; give --test betting to decide on progress")
    if config.proposal not in ("policy", "noiseless"):
        raise ValueError(f"--proposal of a comparison is policy or noiseless, not '{config.proposal}'")
    if config.imagine is None and (config.past or config.dreams != 1):
        raise ValueError("--past and --dreams are of --imagine MODEL; leave them out, or name a world model")
    if config.imagine is not None:
        Imagination(config.imagine, config.past, config.imagined, config.dreams).check()
        if config.test != "betting" or not config.until_decided:
            raise ValueError("--imagine goes with --test betting and --until_decided")
    if config.operator and config.test == "table":
        raise ValueError("a person scores both policies from the same initial conditions: use --test betting")


def _checked_folder(config: Compare) -> None:
    if not config.resume and Path(os.path.expandvars(config.out)).exists():
        raise ValueError(f"'{config.out}' exists; give another --out, or --resume {config.out} to go on with it")

    if config.resume and (Path(os.path.expandvars(config.resume)) / FILE).is_file():
        ended = read_comparison(os.path.expandvars(config.resume))["sequential"]
        if ended.get("decision"):
            raise ValueError(f"the comparison in '{config.resume}' has ended: {ended['says']}")


def _resumable(folder: Path, plan: dict) -> bool:
    """Whether a side was begun; its rules must be the same, or the test's promise would be void."""
    if not (folder / MANIFEST).is_file():
        return False
    then = read_record(folder).manifest.get("sequential")
    if then != plan:
        raise ValueError(f"'{folder.parent}' was begun with other rules: {then}, now {plan}")
    return True


def _evaluation(config: Compare, side: int, test: Sequential) -> Eval:
    """The settings of one policy's episodes, as `understudy eval` would have them."""
    other = side == 1 and config.other_seed is not None
    return Eval(
        policy=config.what[side],
        world=config.world,
        episodes=config.max,
        env_seed=config.env_seed + (config.max if side == 1 and test.independent else 0),
        out=str(Path(config.resume or config.out) / SIDES[side]),
        workers=config.workers,
        engine=config.engine,
        address=config.address,
        timeout=config.timeout,
        block=1 if config.operator else config.block,
        n_action_steps=config.n_action_steps,
        proposal=config.proposal,
        ensemble=config.ensemble,
        policy_seed=config.other_seed if other else config.policy_seed,
        videos=0,
        threads=config.threads,
        device=config.device,
    )


def _crew(config: Compare, settings: Eval, world: World) -> Crew:
    """Who runs the episodes; with a person, who scores them one by one, this process alone."""
    return crew_for(
        world,
        0 if config.operator and config.workers is None else config.workers,
        episodes=2 * config.max,
        block=settings.block,
        timeout=config.timeout,
        threads=config.threads,
        device=config.device,
        weights=weight_of(*config.what),
        engine=config.engine,
        address=config.address,
    )


def _pair_stage(config: Compare, sides: tuple[Side, Side], crew: Crew, plan: Mapping, folder: Path) -> PairStage:
    if config.operator:
        return _blinded(config, sides, crew, plan["order"], folder)
    starts = range(config.env_seed, config.env_seed + config.max)
    plan = [starts[begin : begin + config.block] for begin in range(0, config.max, config.block)]
    return RolloutStage(sides, crew, config.videos > 0, plan)


def _blinded(config: Compare, sides: tuple[Side, Side], crew: Crew, order: int, folder: Path) -> BlindStage:
    """Both policies from one initial condition at a time, and a person who does not know which."""

    def act(side: Side):
        return lambda start: next(crew.run(side.recipe, [start], **side.columns)).row

    acts, writers = (act(sides[0]), act(sides[1])), (sides[0].writer, sides[1].writer)
    return BlindStage(acts, writers, ask, order, config.operator, folder)


def _close(writer: RecordWriter, ended: bool) -> Record:
    """A comparison that ended asked for as many episodes as it ran."""
    if ended:
        writer.note(starts=writer.manifest["starts"] | {"count": len(writer.done)})
    return writer.close(complete=ended)


def _show(standing: Standing, progress: Progress, blind: bool) -> None:
    progress.update(standing.pairs, standing.text(blind))
    if not on_terminal():
        print(standing.text(blind), flush=True)
