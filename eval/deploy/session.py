"""A session of `understudy deploy`: the agent, the arm and the episodes that one acts on the other.

The rollout loop of every world, on the lane of an arm, with an agent that thinks while the arm moves. Everything that
can be refused is refused before the torque is switched on. However it ends, the guard brings the arm to rest.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from ...configs.lanes.lanes import Lanes
from ...configs.progress import counted
from ...configs.settings.decode import keys_of
from ...configs.spec import IMAGES
from ...configs.world import World, looked_at, start_set
from ...hardware.consent import ask
from ...hardware.examine import refuse_unready
from ...hardware.lane.robot_env import SHADOW, RobotWorld
from ...hardware.leader import Attended, leader_settings
from ...policies.agent.agent import Agent
from ...policies.agent.ahead import GRACE, Ahead
from ...policies.agent.open import agent_settings, check_alarm, open_agent, reopened
from ...policies.data.bent import OUTCOME
from ...policies.data.corrections import INTERVENTION, PHASE, POLICY, phase_columns
from ...policies.data.pace import CAPTURED, COMMANDED, pace_of
from ...policies.data.writer import DatasetWriter
from ..demos.arm import Guide, Quit, Words, tell_of_guard
from ..demos.recording import RECORDING, compare, recording
from ..rollout.rollout import Block, Result, run_block
from .checks import alarm_elsewhere, check_arm, settled_delay
from .overseer import Overseer
from .scores import DISCARD, NOBODY, PERSON, SCENE, SCORED, SUCCESS, Scores, rescored
from .settings import MEASURE, Settings
from .settings import SCENE as SCENE_OF_NOBODY
from .takeover import TakeOver, leader_for
from .tally import Tally, shadow_lines
from .view import View

MOST = 0.5  # part of the steps of a dry run that may be late or bent without a question
LATE, PLANNED, PLAN_LATE = "step.late", "plan.start", "plan.late"
SHADOWED, TORQUE = "shadow", "shadow.torque"


def open_for_arm(config: Settings) -> tuple[Agent, dict, RobotWorld]:
    """The agent, what is said of it, and the arm as a world, checked against each other; no bus is opened.

    Raises:
        EmbodimentError: they do not fit. ValueError: a delay that the policy's plans do not bear.
    """
    text = config.acted_scene if config.emulate else config.task  # as the world of an evaluation says it
    agent, about = open_agent(dataclasses.replace(config, delay=0, monitor=0, alarm=None), None, text)
    world = config.world(agent.planner.embodiment.rate, _sizes(agent))
    world = looked_at(world, agent.pictures) if config.emulate else world
    body = world.embodiment()
    if config.emulate:
        print(f"scene {config.acted_scene}{'' if config.task else ', since no --task names another'}")
    for word in (*check_arm(agent, body, config.limits), *world.check_shadow()):
        print(word)
    if not config.emulate:
        refuse_unready(world.config())
    recorded = _recorded_delay(config)
    asked = config if recorded is None else dataclasses.replace(config, delay=recorded)
    delay = settled_delay(asked, agent, body)
    settled = dataclasses.replace(config, delay=delay)
    agent, about = reopened(settled, agent), about | {"delay": delay}
    check_alarm(settled, agent, about)
    for word in alarm_elsewhere(agent, world):
        print(word)
    if _goes_on(config):
        assert config.folder is not None
        compare(config.folder, _card(config, agent, about, world))
    return agent, about, world


def _goes_on(config: Settings) -> bool:
    """Whether there is a recording that is gone on with."""
    return config.resume and config.folder is not None and (config.folder / RECORDING).is_file()


def _recorded_delay(config: Settings) -> int | None:
    """The delay of the recording that is gone on with, where none is asked for: one recording has one."""
    if config.delay != MEASURE or not _goes_on(config):
        return None
    assert config.folder is not None
    delay = int(json.loads((config.folder / RECORDING).read_text()).get("agent", {}).get("delay", 0))
    print(f"--delay {delay}, as in the recording {config.folder}")
    return delay


def _sizes(agent: Agent) -> dict[str, tuple[int, int]]:
    return {key.removeprefix(IMAGES): (int(h), int(w)) for key, (h, w) in agent.pictures.items()}


def rehearse(config: Settings, agent: Agent, world: RobotWorld) -> None:
    """One episode on the emulated arm. Raises ValueError where the guard stops it."""
    emulated = config.world(world.rate, _sizes(agent), dry=True)
    check_arm(agent, emulated.embodiment(), "arm")
    dry = dataclasses.replace(
        config,
        robot=None,
        port=None,
        calibration=None,
        emulate=True,
        dry=False,
        scene=SCENE_OF_NOBODY,
        task=emulated.task,
        yes=True,
        out=None,
        resume=False,
        episodes=1,
        score=None,
        takeover=None,
        takeover_moved=None,
        view=None,  # that of the arm goes there
        shadow=None,
    )
    print(
        f"dry run: an episode on an emulated SO-101 in the simulated scene --scene {emulated.task}. It shows "
        "what the guard makes of the policy's motion and whether this machine keeps time; your table and its "
        "objects are not in it, so its success says little"
    )
    tally = deploy(dry, agent, {}, emulated)
    labels = [json.loads(row["labels"]) for row in tally.rows]
    print(tally.text(dry))
    if any(label.get("stopped") for label in labels):
        raise ValueError(f"the guard stopped the dry run ({labels[0]['stopped']}): the arm is not moved")
    poor = poor_rehearsal(tally)
    if not poor:
        print("the dry run went well: the arm is next")
        return
    print(f"the dry run went badly: {'; '.join(poor)}")
    ask(f"{config.policy} would do the same on the arm", instead="leave out --dry")


def poor_rehearsal(tally: Tally) -> list[str]:
    """What speaks against going on to the arm, each with what to do about it."""
    bent = sum(json.loads(row["labels"]).get("bent", 0) for row in tally.rows)
    found = []
    if tally.late > MOST * tally.steps:
        found.append(
            f"{tally.late} of {tally.steps} control steps began late: this machine is too slow or too busy for the "
            "rate (end what else runs, or deploy from a faster one; the emulated arm itself takes some of it)"
        )
    if tally.plans_late > MOST * tally.steps:
        found.append(
            f"{tally.plans_late} of {tally.steps} steps had no plan in time: a higher --delay, or a faster sampler"
        )
    if bent > MOST * tally.steps:
        found.append(f"{bent} of {tally.steps} steps were bent by the guard: the policy asks for more than it allows")
    return found


def deploy(
    config: Settings,
    agent: Agent,
    about: Mapping,
    world: RobotWorld,
    leader: Attended | Guide | None = None,
    words: Words | None = None,
) -> Tally:
    """Episode after episode. Raises Refused, ConnectionError; Ctrl-C is raised again when the arm rests.

    Args:
        leader: who takes over when a person says so; one of lerobot's is opened and closed here.
        words: what the person says; by default lines of the terminal.
    """
    tally, words, moving = Tally(), words or Words(), False
    what = "an emulated SO-101" if world.emulate else f"{world.embodiment().name} at {config.port or 'its port'}"
    with ExitStack() as held:
        held.enter_context(_letting_go(what, lambda: moving))
        lanes = Lanes(world, 1, 0, timeout=0)
        held.callback(lanes.close)
        takeover = _takeover(config, lanes, world, leader)
        overseer = Overseer(config, lanes, agent, words, takeover)
        overseer.allow(f"{config.policy} is about to move {what}")
        if isinstance(leader, Attended):
            held.callback(leader.close)
            leader.connect()
        view = held.enter_context(_viewing(config, world))
        patience = GRACE if world.clock == "wall" else None
        others: dict[str, Any] = {"lead": takeover, "couple": takeover.couple} if takeover else {}
        ahead = Ahead(agent, patience, overseer.pause, view.planned if view else lambda plan: None, **others)
        held.callback(ahead.close)
        actor = _Shown(ahead, lanes, view)
        with _writing(config, agent, about, world) as (writer, written):
            first = max(written) + 1 if written else config.env_seed
            last, rate = config.env_seed + config.episodes, world.embodiment().rate
            overseer.tell(first, last, rate, world.steps())
            asks = config.pause is None and not config.emulate
            scores = Scores(config.score, words, first - config.env_seed, asks)
            held.callback(scores.close)
            for number, start in enumerate(range(first, last)):
                try:
                    overseer.prepare(number)
                except Quit:
                    break
                overseer.begun()
                moving = True
                result = _episode(actor, lanes, start, world)
                result, by = _scored(result, overseer, scores, world.emulate)
                _keep(result, by, ahead, lanes, writer, overseer, tally)
                if overseer.quits:
                    break
                _stopped(result, words)
    return tally


def _takeover(config: Settings, lanes: Lanes, world: RobotWorld, leader: Attended | Guide | None) -> TakeOver | None:
    if leader is None:
        return None

    def couple() -> None:
        lanes.call("couple", slots=[0])

    return TakeOver(leader, world.embodiment(), couple, config.takeover_moved)


def _episode(actor, lanes: Lanes, start: int, world: World) -> Result:
    """One episode, tried once. Raises ConnectionError: the arm, a camera or the guard is gone."""
    columns = {"initial_conditions": start_set(world), "policy_seed": actor.agent.seed}
    result = next(iter(run_block(Block((start,), columns, keep=True, failed=1), actor, lanes, {})))
    if result.row["error"]:
        raise ConnectionError(
            f"episode {start} ended: {result.row['error']}. The arm was let go; nothing of it is kept"
        )
    return result


def _stopped(result: Result, words: Words) -> None:
    stopped = json.loads(result.row["labels"]).get("stopped")
    if not stopped:
        return
    if words.over:
        raise ConnectionError(f"the guard stopped the arm: {stopped}")
    print(f"the guard stopped the arm: {stopped}. The next episode takes hold of it again", flush=True)


def _scored(result: Result, overseer: Overseer, scores: Scores, scene: bool) -> tuple[Result, float]:
    """The result and who scored it. What was said while it went on counts; a file is read for every episode."""
    said = overseer.scored or overseer.discarded
    word = scores.next() if scores.listed or not said else ""
    if word == DISCARD and not said:
        overseer.discarded = True
    if word and not said:
        return rescored(result, word == SUCCESS), NOBODY if overseer.discarded else PERSON
    if overseer.scored:
        return result, PERSON
    return result, SCENE if scene and not overseer.broken and not overseer.discarded else NOBODY


def _keep(
    result: Result,
    by: float,
    ahead: Ahead,
    lanes: Lanes,
    writer: DatasetWriter | None,
    overseer: Overseer,
    tally: Tally,
) -> None:
    row, lane = result.row, lanes.call("kept", slots=[0])[0]
    account, bends = lanes.call("arm", slots=[0])[0].account, lanes.call("bends", slots=[0])[0]
    said = (
        "discarded"
        if overseer.discarded
        else "not scored"
        if by == NOBODY
        else "done"
        if row["success"]
        else "not done"
    )
    late = f", {int(lane['late'].sum())} late" if lane["late"].any() else ""
    led = overseer.takeover if overseer.takeover and overseer.takeover.times else None
    if led:
        times = f"{led.times} take-over{'s' if led.times > 1 else ''}"
        said += f" with {times} of {led.seconds:.1f} s, so not by the policy alone"
        labels = json.loads(row["labels"]) | {"takeovers": led.times, "takeover_s": round(led.seconds, 3)}
        row = row | {"labels": json.dumps(labels)}
    print(f"episode {row['env_seed']}: {counted(row['length'], 'step')}{late}, {said}; {bends}", flush=True)
    for line in (*bends.lines(), *shadow_lines(json.loads(row["labels"]).get("shadow"), row["length"])):
        print(line, flush=True)
    tally.add(row, ahead.log, bends)
    tally.unscored += by == NOBODY
    if writer is not None and result.episode is not None and not overseer.discarded:
        log = ahead.log
        extra = {CAPTURED: lane["captured"], COMMANDED: lane["commanded"], OUTCOME: lane["outcome"], LATE: lane["late"]}
        extra |= {PLANNED: np.array(log.planned, np.float32), PLAN_LATE: np.array(log.late, np.float32)}
        extra[SCORED] = np.full(row["length"], by, np.float32)
        extra |= phase_columns(overseer.takeover.phases if overseer.takeover else [POLICY] * row["length"])
        if "shadow" in lane:
            extra |= {SHADOWED: lane["shadow"], TORQUE: lane["torque"]}
        if pace := pace_of(lane["commanded"].ravel(), lanes.embodiment.rate):
            print(
                f"it took {pace.took:.1f} s, its frames say {pace.stamped:.1f} s: what learns from it moves "
                f"{pace.faster:.2f}x as fast (understudy inspect says it, too)"
            )
        tell_of_guard(writer, account)
        writer.add(dataclasses.replace(result.episode, extra=extra))
        tally.kept += 1
    account.clear()


@contextmanager
def _writing(config: Settings, agent: Agent, about: Mapping, world: RobotWorld) -> Iterator:
    """(writer or None, numbers of the episodes that are there)."""
    if config.folder is None:
        yield None, frozenset()
        return
    body = world.embodiment()
    extra: dict[str, tuple[str, ...]] = {CAPTURED: tuple(key.removeprefix(IMAGES) for key in body.offers())}
    numbers = (COMMANDED, OUTCOME, LATE, PLANNED, PLAN_LATE, SCORED, PHASE)
    extra |= {name: (name.rpartition(".")[2],) for name in numbers}
    if world.shadow is not None:
        extra |= {SHADOWED: SHADOW, TORQUE: body.action}
    card = _card(config, agent, about, world)
    with recording(config.folder, body, card, config, extra, verb="deploy", flags=(INTERVENTION,)) as (writer, written):
        yield writer, written


def _card(config: Settings, agent: Agent, about: Mapping, world: RobotWorld) -> dict:
    """What a recording says of itself: JSON-able, equal for equal recordings."""
    card = {
        "by": "policy",
        "policy": {key: about.get(key) for key in ("path", "fingerprint")},
        "agent": agent_settings(dataclasses.replace(config, delay=about["delay"]), agent),
        "world": world.fingerprint() | {"config": keys_of(world)},
    }
    if config.takeover is not None:
        card["takeover"] = str(leader_settings(config.takeover)["type"])
        if (attended := leader_for(config, world)) is not None:
            card["leader"] = attended.leader.settled()
    return json.loads(json.dumps(card, default=str))


@contextmanager
def _letting_go(what: str, moving: Callable[[], bool]) -> Iterator[None]:
    """Ctrl-C says what became of the arm; outermost, so that it is at rest by then."""
    try:
        yield
    except KeyboardInterrupt as stop:
        now = f"{what} was braked and let go" if moving() else f"{what} was not moved"
        raise KeyboardInterrupt("; ".join(filter(None, (now, str(stop))))) from stop


@contextmanager
def _viewing(config: Settings, world: RobotWorld) -> Iterator[View | None]:
    view = None if config.view is None else View(config.view, world.embodiment().action)
    try:
        yield view
    finally:
        if view is not None:
            view.close()


class _Shown:
    """An actor that is watched: after every step the view gets what there is to see."""

    def __init__(self, ahead: Ahead, lanes: Lanes, view: View | None):
        self.ahead, self.agent, self.lanes, self.view = ahead, ahead.agent, lanes, view
        self.n_action_steps, self.look, self.reset, self.told = (
            ahead.n_action_steps,
            ahead.look,
            ahead.reset,
            ahead.told,
        )

    def act(self) -> np.ndarray:
        return self.ahead.act()

    def observe(self, obs: Mapping[str, np.ndarray], sent: np.ndarray, valid: np.ndarray) -> None:
        self.ahead.observe(obs, sent, valid)
        if self.view is not None:
            told = self.lanes.call("told", slots=[0])[0]
        if self.view is not None and told is not None:  # None: the lane is lost, which the row will say
            self.view.step({key: value[0, -1] for key, value in obs.items()}, told["goal"], told)
