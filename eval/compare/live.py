"""Two policies act, pair by pair, until a test has decided: in any world, or a trial at a time on one arm.

Everything is opened, checked and described once; the pairs are played; whatever ends it, the records are closed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...configs.files import clear_leftovers
from ...configs.progress import Progress, on_terminal
from ...configs.world import World, looked_at, read_world, start_set
from ...hardware.lane.robot_env import RobotWorld
from ...policies.agent.open import check_world, open_agent
from ..evaluate.evaluate import Eval, describe, open_stage
from ..evaluate.report import write_report
from ..ledger.dreams import check_world as check_dream
from ..ledger.provenance import provenance
from ..ledger.record import Record, RecordWriter
from ..rollout.crew import Crew
from ..rollout.film import Tapes
from ..rollout.recipes import PolicyRecipe, weight_of
from ..rollout.rollout import ArmError
from ..rollout.standing import crew_for, paced
from ..statistics.by_name import sequential_test
from ..statistics.power import needed
from ..statistics.sequential import A, B, Sequential
from .arm import Duel, acts_one_by_one, arm_settings, open_on_arm, start_set_on
from .blind import BlindStage, ask
from .checks import SECRET, SIDES, begun_record, check_live, goes_on, order_of, stage_of
from .comparison import Comparison, compare_records
from .imagine import Imagination, imagining
from .page import write_comparison
from .sequential import PairStage, RolloutStage, Rules, SequentialComparison, Side, Standing, fight, say
from .settings import Settings

if TYPE_CHECKING:
    from ...policies.agent.agent import Agent


@dataclass(frozen=True)
class _Opened:
    """Both policies and where they act.

    Attributes:
        evals: the settings of each one's episodes.
        policies: each with what its record says of it.
        offered: the world as it was asked for. world: with the pictures that the policies read.
        alone: what was found out about one policy, in words.
        on_arm: they share one arm, a trial at a time.
    """

    evals: Sequence[Eval]
    policies: Sequence[tuple[Agent, dict]]
    offered: World
    world: World
    alone: tuple[str, ...]
    on_arm: bool

    def manifests(self) -> list[dict]:
        """What each one's record says."""
        return [
            describe(one, agent, about, self.world)
            for one, (agent, about) in zip(self.evals, self.policies, strict=True)
        ]

    def sides(
        self, config: Settings, crew: Crew, writers: Sequence[RecordWriter], columns: Sequence[dict]
    ) -> tuple[Side, Side]:
        """Both as a crew lets them act."""
        found = []
        for (agent, about), writer, one, column in zip(self.policies, writers, self.evals, columns, strict=True):
            recipe = PolicyRecipe.of(one, agent, about, self.offered)
            crew.know(recipe, agent)
            found.append(Side(recipe, writer, column, one.env_seed - config.env_seed))
        return found[0], found[1]


def hold(config: Settings) -> Comparison:
    """The live sequential comparison. Ctrl-C ends it with valid records and a compare.json, and is raised again."""
    import torch

    config = replace(config, world=stage_of(config))
    rules, folder = check_live(config), Path(os.path.expandvars(config.resume or config.out or ""))
    config = paced(config, read_world(config.world or ""))  # by the clock, pair by pair: one costs more than a look
    test = sequential_test(config.test, config.max, config.alpha, seed=config.env_seed)
    torch.set_num_threads(config.threads)

    opened = _open(config, test)
    manifests = opened.manifests()
    check_dream(manifests[0]["world"], "this comparison")

    # where imagination pays, it stands beside the pairs
    told: dict = {}
    if config.imagine is not None:
        asked = Imagination(config.imagine, config.past, config.imagined, config.dreams)
        test, told = imagining(asked, opened.evals, manifests, rules.on, test, folder)

    plan = _plan(config, test, rules, told, opened.on_arm)
    initial = start_set(opened.world)
    if opened.on_arm:
        initial = start_set_on(opened.world, initial, plan[SECRET])

    if config.resume:
        clear_leftovers(folder)

    # records, and who acts
    with ExitStack() as stack:
        writers = []
        for name, settings, manifest in zip(SIDES, opened.evals, manifests, strict=True):
            manifest |= {"sequential": plan} | provenance()
            manifest |= {"starts": manifest["starts"] | {"set": initial}}
            resume = bool(config.resume) and goes_on(folder / name, plan, settings.env_seed)
            writers.append(stack.enter_context(RecordWriter(folder / name, manifest, resume=resume)))

        columns = [{"initial_conditions": initial, "policy_seed": settings.policy_seed} for settings in opened.evals]
        acting: PairStage
        if opened.on_arm:
            agents, operator = [agent for agent, _ in opened.policies], bool(config.operator)
            duel = stack.enter_context(Duel(config, agents, cast(RobotWorld, opened.world), columns, folder, operator))
            score = duel.score if operator else None
            acting = BlindStage(duel.acts, (writers[0], writers[1]), score, plan[SECRET], config.operator, folder)
        else:
            crew = stack.enter_context(_crew(config, opened.evals[0], opened.world))
            acting = _pair_stage(config, opened.sides(config, crew, writers, columns), crew, plan, folder)
        found = _hold(config, acting, test, rules, writers, plan, folder)
    print("\n".join(opened.alone), end="\n" if opened.alone else "")
    return found


def _open(config: Settings, test: Sequential) -> _Opened:
    """Open the world and both policies, and check that they fit."""
    evals = [_evaluation(config, side, test) for side in range(2)]
    offered = open_stage(evals[0])
    evals = [paced(one, offered) for one in evals]
    world: World
    if acts_one_by_one(config, offered, config.operator):
        acting = [
            arm_settings(config, one, offered, begun_record(config, name))
            for one, name in zip(evals, SIDES, strict=True)
        ]
        policies, world, alone = open_on_arm(acting, offered, config.restore_within is not None, bool(config.operator))
        evals = [
            replace(one, delay=about.pop("delay"), latency=config.latency)
            for one, (_, about) in zip(evals, policies, strict=True)
        ]
        return _Opened(evals, policies, offered, world, alone, on_arm=True)

    policies = [open_agent(settings, offered.embodiment, offered.task) for settings in evals]
    world = looked_at(offered, *(agent.pictures for agent, _ in policies))
    for agent, _ in policies:
        check_world(agent, world)
    return _Opened(evals, policies, offered, world, (), on_arm=False)


def _plan(config: Settings, test: Sequential, rules: Rules, imagined: Mapping, on_arm: bool) -> dict[str, Any]:
    """What both manifests say of the test, and what a comparison that is gone on with holds to."""
    plan: dict[str, Any] = {"test": test.name, "on": rules.on, "alpha": config.alpha, "budget": config.max}
    plan |= {"until_decided": config.until_decided, "give_up": config.give_up, "independent": test.independent}
    plan |= {"operator": config.operator} | ({"imagined": imagined} if imagined else {})
    if on_arm or config.operator:
        plan |= {SECRET: order_of(config)}
    return plan | config.alike if on_arm else plan


def _hold(
    config: Settings,
    stage: PairStage,
    test: Sequential,
    rules: Rules,
    writers: Sequence[RecordWriter],
    plan: dict,
    folder: Path,
) -> Comparison:
    """Fight, and close the records whatever happens."""
    starts = range(config.env_seed, config.env_seed + config.max)
    sequential: SequentialComparison | None = None
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
    except (KeyboardInterrupt, ArmError) as stop:
        counts = [len(writer.done) for writer in writers]
        kept = f"{sum(counts)} trials" if config.operator else f"{counts[0]} and {counts[1]} episodes"
        again = f"the same command with --resume {folder} in place of --out goes on"
        raise type(stop)("; ".join(filter(None, (str(stop), f"{kept} are kept; {again}")))) from stop
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
        elif sequential is not None and all(writer.done for writer in writers):
            result = _result(sequential, plan, rules, test)
            comparison = compare_records(records, config.alpha, config.env_seed, result, config.name)
            write_comparison(comparison, records, folder)
            for record in records:
                write_report(record)
            comparison.write(folder)  # the last, for it says that the comparison has ended
            if not ended:
                print(f"\n{result['says']}\nGo on with --resume {folder}", file=sys.stderr)
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


def _evaluation(config: Settings, side: int, test: Sequential) -> Eval:
    """The settings of one policy's episodes, as `understudy eval` would have them."""
    seed = config.other_seed if side == 1 and config.other_seed is not None else config.policy_seed
    return Eval(
        policy=config.what[side],
        world=config.world,
        episodes=config.max,
        env_seed=config.env_seed + (config.max if side == 1 and test.independent else 0),
        out=str(Path(config.resume or config.out or "") / SIDES[side]),
        workers=config.workers,
        engine=config.engine,
        address=config.address,
        timeout=config.timeout,
        block=1 if config.operator else config.block,
        n_action_steps=config.n_action_steps,
        proposal=config.proposal,
        ensemble=config.ensemble,
        policy_seed=seed,
        videos=0,
        threads=config.threads,
        device=config.device,
    )


def _crew(config: Settings, settings: Eval, world: World) -> Crew:
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


def _pair_stage(config: Settings, sides: tuple[Side, Side], crew: Crew, plan: Mapping, folder: Path) -> PairStage:
    if config.operator:
        return _blinded(config, sides, crew, plan[SECRET], folder)
    starts = range(config.env_seed, config.env_seed + config.max)
    blocks = [starts[begin : begin + config.block] for begin in range(0, config.max, config.block)]
    return RolloutStage(sides, crew, config.videos > 0, blocks)


def _blinded(config: Settings, sides: tuple[Side, Side], crew: Crew, order: int, folder: Path) -> BlindStage:
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
