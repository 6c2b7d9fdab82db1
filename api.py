"""understudy in Python: what the command line does, in a script or a notebook.

    import understudy

    run = understudy.train("configs/train/lift.yaml", data="out/lift_demos", out="runs/lift")
    policy = run.policy()                      # or understudy.load("runs/lift")
    env = understudy.make("lift")              # a gymnasium.Env
    tried = understudy.rollout(policy, "lift", episodes=50)
    verdict = understudy.compare("runs/lift", "runs/lift_flow", "lift", episodes=100)

`import understudy` imports nothing of this; the first name that is used does, and torch and MuJoCo come with the first
call that needs them. Names, defaults and results are those of the verbs of the same names. Who starts worker processes
(`workers=2`) does so under `if __name__ == "__main__":`, as with all of Python's `multiprocessing`.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from .configs.lanes.pulse import TIMEOUT
from .configs.machine import prepare
from .configs.plugins import check_names
from .configs.world import REPORT_STARTS, World, WorldSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .configs.lanes.lanes import Lanes
    from .configs.lanes.single import WorldEnv
    from .eval.compare.verdict import Verdict
    from .eval.ledger.record import Record
    from .eval.rollout.collected import Rollouts
    from .policies.agent.loaded import LoadedPolicy
    from .policies.agent.trained import TrainedRun
    from .policies.data.dataset import Dataset
    from .policies.policy import Planner

    PolicySource = str | os.PathLike | LoadedPolicy | TrainedRun | Planner

__all__ = ["compare", "demos", "evaluate", "load", "make", "open_dataset", "read_record", "rollout", "train"]

prepare()  # before torch or MuJoCo are imported

EXPERT = "expert"  # the scripted demonstrator of a task, where a policy is asked for


def load(policy: PolicySource, *, world: WorldSource | None = None, **settings: Any) -> LoadedPolicy:
    """A policy that acts: of a run, a checkpoint, a composition, a lerobot checkpoint, or the hub.

    Args:
        policy: run or checkpoint folder (`$VAR` expanded), or "OWNER/NAME" or "OWNER/NAME@REVISION" on the hub; or what
            `train` gave, or any `Planner` of your own.
        world: where it will act, as `make` takes it: a policy that does not fit is refused, one of lerobot's that does
            not say whose joints it moves takes the world's, and one that reads text is told the task.
        settings: how it acts, as the flags of `understudy eval`: `n_action_steps` (default the policy's own),
            `policy_seed`, `steps`, `solver`, `critic`, `candidates`, `ensemble`, `embodiment`, `device`, ...

    Returns:
        the policy, with `select_action(obs)`, `predict_action_chunk(obs)` and `reset()`.

    Raises:
        FileNotFoundError: there is no such folder. CheckpointError, ForeignError: what lies there cannot act.
        EmbodimentError: it does not fit the world. ValueError: an unknown setting, or one that cannot be.
    """
    from .policies.agent.loaded import LoadedPolicy, hold_planner, open_policy

    if isinstance(policy, LoadedPolicy):
        settings = _changed(policy) | settings
        policy = policy.planner if policy.made_here else policy.path
    place = read_world_of(world) if world is not None else None
    path = _path_of(policy)
    if path is not None:
        return open_policy(path, place, **settings)
    loaded = hold_planner(policy, **settings)  # type: ignore[arg-type]
    if place:
        loaded.check(place)
    return loaded


@overload
def make(world: WorldSource, num_envs: None = None, **changes: Any) -> WorldEnv: ...
@overload
def make(world: WorldSource, num_envs: int, **changes: Any) -> Lanes: ...
def make(
    world: WorldSource,
    num_envs: int | None = None,
    *,
    workers: int = 0,
    timeout: float | None = TIMEOUT,
    perturb: str = "",
    perturb_level: float = 1.0,
    **changes: Any,
) -> WorldEnv | Lanes:
    """A world to act in: one environment, or several that step together.

        env = understudy.make("lift", cameras={"agentview": (84, 84)})
        obs, info = env.reset(seed=1000)  # the same seed is the same initial condition, in `understudy eval` too

    Observations are keyed as in a LeRobot dataset (`observation.state`, ...), float32 in the units that
    `env.embodiment` names, pictures uint8 (h, w, 3) RGB; so are actions. Gymnasium's rules hold: the first success
    terminates an episode, the horizon truncates it; `info` holds `success` and `progress` (0..1).

    Args:
        world: a name that `understudy list worlds` lists, a YAML file, its keys as a dict, or a World.
        num_envs: None for one `gymnasium.Env`; B for a `gymnasium.vector.VectorEnv`, whose lanes that have ended stand
            still until they are reset (no autoreset): `reset(seed=1000)` begins 1000, 1001, ...
        workers: with `num_envs`: processes that they are spread over; 0: this one.
        timeout: with `num_envs`: seconds that a control step may take; None: any.
        perturb, perturb_level: disturbances as in `understudy eval`, such as "light,friction".
        changes: fields of the world to change: `cameras` (name -> (height, width)), `horizon` (control steps),
            `delay` (control steps), and those of its kind.

    Raises:
        LookupError: an unknown world, camera or disturbance, with the known ones. ValueError: an unknown field.
    """
    opened = read_world_of(world, perturb, perturb_level, **changes)
    opened.allow()
    if num_envs is None:
        if workers:
            raise ValueError("one environment runs in this process; give num_envs for several, spread over workers")
        from .configs.lanes.single import WorldEnv

        return WorldEnv(opened)
    from .configs.lanes.lanes import Lanes

    return Lanes(opened, num_envs, workers, timeout)


def rollout(
    policy: PolicySource | Literal["expert"],
    world: WorldSource,
    *,
    episodes: int = 50,
    env_seed: int = REPORT_STARTS,
    num_envs: int = 8,
    workers: int = 0,
    timeout: float | None = TIMEOUT,
    films: int = 0,
    keep: bool = False,
    perturb: str = "",
    perturb_level: float = 1.0,
    **settings: Any,
) -> Rollouts:
    """Let a policy act and keep what came of it in memory; nothing is written. See `evaluate` for a record on disk.

    Args:
        policy: as `load` takes it; or "expert", the scripted demonstrator of the task.
        world: as `make` takes it.
        episodes: n, one from each of the env seeds `env_seed`, `env_seed + 1`, ...; 1000-9999 are for reporting.
        num_envs: environments that act at the same time; results depend on it in the last digits. By the clock (an arm,
            a twin with `pace: wall`) it is always one.
        workers, timeout, perturb, perturb_level: as in `make`.
        films: episodes to film, first failures and first successes.
        keep: keep whole episodes, all observations too.
        settings: of the policy, as in `load`.

    Returns:
        rates with intervals, a row (dict) for each episode, films; the rows are those of `understudy eval`.

    Raises:
        as `load` and `make`. MachineError: memory or processes ran out again and again. ArmError: an episode on a real
            arm failed, and nothing moves it again unasked.
    """
    from .eval.rollout.actors import ExpertActor
    from .eval.rollout.collected import collect, in_lanes

    if episodes < 1 or env_seed < 0:
        raise ValueError(f"no such env seeds: {episodes} episodes from {env_seed}")
    opened = read_world_of(world, perturb, perturb_level)
    if opened.by_the_clock:
        if films:
            raise ValueError("films play episodes again, and in a world by the clock nothing happens twice: no films")
        num_envs = 1  # the others would stand, and be late, while one acts
    seeds = range(env_seed, env_seed + episodes)
    if isinstance(policy, str) and policy == EXPERT and not Path(policy).exists():
        from .sim.experts import Manner

        Manner().of(opened.task, 0)  # refused where nobody demonstrates it
        with in_lanes(opened, num_envs, workers, timeout) as lanes:
            return collect(ExpertActor(lanes), lanes, seeds, title=EXPERT, films=films, keep=keep)

    loaded = _fitting(policy, opened, settings)
    opened = loaded.looked_at(opened)
    opened.allow()
    with in_lanes(opened, num_envs, workers, timeout) as lanes, loaded.computing():
        agent, seed = loaded.agent(num_envs), loaded.settings.policy_seed
        return collect(agent, lanes, seeds, title=loaded.title, policy_seed=seed, films=films, keep=keep)


def demos(task: str, out: str | os.PathLike, **settings: Any) -> Dataset:
    """Let the scripted expert of a task act, and write what it does as a LeRobot dataset: `understudy demos`.

    Args:
        task: a world with an expert; `understudy list experts` names them.
        out: folder of the dataset, which must not exist.
        settings: as the flags of `understudy demos`: `episodes` (50), `env_seed` (100000), `workers`, `noise` and
            `action_noise` (in half ranges of the action limits), `cameras` (name -> (height, width)), ...

    Returns:
        the dataset, opened.

    Raises:
        LookupError: nobody demonstrates the task. FileExistsError: `out` exists. ValueError: no episode succeeded.
    """
    from .eval.demos.demos import Demos

    check_names(settings, _names(Demos, ("task", "out")), "demos")
    config = Demos(task=task, out=os.fspath(out), **settings)
    config.run()
    return open_dataset(config.folder)


def evaluate(policy: PolicySource, world: WorldSource, out: str | os.PathLike, **settings: Any) -> Record:
    """Let a policy act and write a record with a report: `understudy eval`.

    Args:
        policy: as `load` takes it, from a folder or the hub.
        world: as `make` takes it.
        out: folder of the record, which must not exist; `OUT/report.html` is its page.
        settings: as the flags of `understudy eval`: `episodes` (50), `env_seed` (1000), `block` (8 environments at a
            time), `workers`, `videos` (6), `perturb`, and how the policy acts, as in `load`.

    Returns:
        the record; `record.column("success")` is one of its columns.

    Raises:
        RecordError: `out` exists. Else as `load` and `make`.
    """
    from .eval.evaluate.evaluate import Eval
    from .eval.evaluate.evaluate import evaluate as run
    from .policies.agent.loaded import LoadedPolicy

    if isinstance(policy, LoadedPolicy):
        settings = _changed(policy) | settings
    path = _path_of(policy)
    if path is None:
        raise ValueError("a record names the checkpoint that acted; save the planner, or take understudy.rollout")
    check_names(settings, _names(Eval, ("policy", "world", "out")), "evaluate")
    return run(Eval(policy=path, world=world, out=os.fspath(out), **settings))  # type: ignore[arg-type]


def train(config: str | os.PathLike | None = None, /, **settings: Any) -> TrainedRun:
    """Train a policy or a critic: `understudy train`.

        run = understudy.train("configs/train/lift.yaml", data="out/lift_demos", out="runs/lift", steps=2000)
        run = understudy.train(data="lerobot/pusht", out="runs/pusht", policy={"type": "diffusion"}, steps=20_000)
        run = understudy.train(resume="runs/pusht", steps=40_000)

    Args:
        config: YAML file; `configs/...` that is not in this folder is the one that came with the package.
        settings: as the flags of `understudy train`, over the file. A dot of a flag is written as two underscores, or
            the flag itself as a key: `policy__type="flow"`, `**{"policy.type": "flow"}`.

    Returns:
        the run: `path`, `metrics`, `policy()`.

    Raises:
        UsageError: an unknown setting or value, with the closest known one. FileExistsError: `out` exists.
        DatasetError: what cannot be learnt from, saying where and why.
    """
    from .configs.plugins import discover
    from .policies.agent.trained import TrainedRun
    from .policies.learning.stages import Staged
    from .policies.learning.train import Resume, Train

    discover("policies")
    words = [] if config is None else [os.fspath(config)]
    words += [f"--{name.replace('__', '.')}={_word(value)}" for name, value in settings.items()]
    asked = Train.from_words(words)
    asked.run()
    if isinstance(asked, Staged):
        return TrainedRun(asked.last)
    if isinstance(asked, Resume):
        path = Path(os.path.expandvars(asked.path))
        return TrainedRun(path if (path / "config.yaml").is_file() else path.parents[1])
    return TrainedRun(asked.out or Path("runs") / Path(asked.data.rstrip("/")).name)


def compare(
    a: PolicySource | Record | Rollouts,
    b: PolicySource | Record | Rollouts,
    world: WorldSource | None = None,
    *,
    episodes: int = 50,
    env_seed: int = REPORT_STARTS,
    alpha: float = 0.05,
    until_decided: bool = False,
    out: str | os.PathLike | None = None,
    **settings: Any,
) -> Verdict:
    """Which of two policies is better: of what they did, or by letting both act from the same initial conditions.

    Args:
        a, b: two records (or folders of records, or what `rollout` gave); or two policies, as `load` takes them.
        world: with policies: where they act, as `make` takes it.
        episodes: with policies: pairs; with `until_decided` the most.
        env_seed: with policies: the first env seed.
        alpha: probability of naming a better policy where there is none, two-sided.
        until_decided: stop when that is decided, or hopeless; needs `out`.
        out: folder for the page (`compare.html`), and with `until_decided` for both records.
        settings: with policies: as those of `rollout`; with `until_decided` as the flags of `understudy compare`.

    Returns:
        who is better, the difference A - B with its interval, and p.

    Raises:
        ValueError: records and policies mixed, or a world with records. PairingError: no common initial condition.
    """

    done = [_record_of(one) for one in (a, b)]
    if all(record is not None for record in done):
        if world is not None or until_decided or settings:
            what = "a world" if world is not None else next(iter(settings), "until_decided")
            raise ValueError(f"records are compared as they are; {what} is for policies that act")
        return _compare_done([record for record in done if record is not None], alpha, out)
    if any(record is not None for record in done):
        raise ValueError("one of the two is a record, the other a policy; compare records with records")
    if world is None:
        raise ValueError("two policies act somewhere: give a world, such as understudy.compare(a, b, 'lift')")

    if until_decided:
        return _compare_live(a, b, world, episodes, env_seed, alpha, out, settings)
    tried = [
        rollout(one, world, episodes=episodes, env_seed=env_seed, **settings)  # type: ignore[arg-type]
        for one in (a, b)
    ]
    return _compare_done([one.record for one in tried], alpha, out)


def open_dataset(source: str | os.PathLike, **settings: Any) -> Dataset:
    """A LeRobot dataset (v3.0, v2.1, v2.0) as arrays: a folder (`$VAR` expanded), a hub id, or several: "A,B".

    `dataset.columns["action"]` is (N, D) float32 over all N frames; `dataset.starts` and `dataset.lengths` say where
    each episode lies. See `policies/data/open.py` for the settings: `columns`, `episodes`, `without`, `embodiment`.

    Raises:
        DatasetError: saying what is wrong where, and what to do.
    """
    from .policies.data.open import open_dataset as open_it

    return open_it(os.fspath(source), **settings)


def read_record(folder: str | os.PathLike) -> Record:
    """The record that an evaluation wrote, also of one that was stopped.

    Raises:
        FileNotFoundError: no record there. RecordError: a damaged one, naming the file.
    """
    from .eval.ledger.record import read_record as read

    return read(os.fspath(folder))


# ---- what the functions share


def read_world_of(source: WorldSource, perturb: str = "", perturb_level: float = 1.0, **changes: Any) -> World:
    """The world that is meant, with fields changed, under disturbances. Raises as `make`."""
    from .configs.settings.load import load as load_yaml
    from .configs.world import read_world

    if isinstance(source, os.PathLike):
        source = os.fspath(source)
    if isinstance(source, str) and source.endswith((".yaml", ".yml")):
        keys = load_yaml(os.path.expandvars(source))
        source = keys.get("world", keys) if "type" not in keys else keys  # of an evaluation: where it acts
    world = read_world(source)
    check_names(changes, [field.name for field in dataclasses.fields(world)], f"world '{world.task}'")
    world = read_world(world, **changes)
    if perturb:
        from .sim.perturb import perturbed

        return perturbed(world, perturb, perturb_level)
    return world


def _fitting(policy: Any, world: World, settings: dict) -> LoadedPolicy:
    """The policy, checked against the world; one of lerobot's is opened for it."""
    from .policies.agent.loaded import LoadedPolicy

    if isinstance(policy, LoadedPolicy) and not settings and not policy.foreign:
        policy.check(world)
        return policy
    return load(policy, world=world, **settings)


def _path_of(policy: Any) -> str | None:
    """The folder or hub name of a policy; None of one that was made in Python."""
    from .policies.agent.loaded import LoadedPolicy
    from .policies.agent.trained import TrainedRun

    if isinstance(policy, LoadedPolicy):
        return None if policy.made_here else policy.path
    if isinstance(policy, TrainedRun):
        return str(policy.path)
    return os.path.expandvars(os.fspath(policy)) if isinstance(policy, (str, os.PathLike)) else None


def _record_of(one: Any) -> Record | None:
    """The record that something is, or lies there; None of a policy."""
    from .eval.ledger.record import MANIFEST, Record, read_record
    from .eval.rollout.collected import Rollouts

    if isinstance(one, Rollouts):
        return one.record
    if isinstance(one, Record):
        return one
    if isinstance(one, (str, os.PathLike)) and (Path(os.path.expandvars(one)) / MANIFEST).is_file():
        return read_record(os.fspath(one))
    return None


def _compare_done(records: Sequence[Record], alpha: float, out: str | os.PathLike | None) -> Verdict:
    from .eval.compare.comparison import compare_records
    from .eval.compare.page import write_comparison
    from .eval.compare.verdict import Verdict

    comparison = compare_records(records, alpha)
    if out is not None:
        comparison.write(os.fspath(out))
        write_comparison(comparison, records, os.fspath(out))
    return Verdict.of(comparison, out)


def _compare_live(a, b, world, most: int, env_seed: int, alpha: float, out, settings: dict) -> Verdict:
    from .eval.compare.compare import Compare
    from .eval.compare.compare import compare as run
    from .eval.compare.verdict import Verdict
    from .policies.agent.loaded import LoadedPolicy

    for one in (a, b):
        if isinstance(one, LoadedPolicy) and _changed(one):
            raise ValueError("until_decided lets policies act as they are saved; give their folders")
    paths = tuple(_path_of(one) for one in (a, b))
    if None in paths or out is None:
        raise ValueError("until_decided records its episodes: give out, and policies that lie in folders")
    check_names(settings, _names(Compare, ("what", "out", "world")), "compare")
    asked = {"max": most, "env_seed": env_seed, "alpha": alpha, "until_decided": True} | settings
    config = Compare(what=paths, world=world, out=os.fspath(out), **asked)  # type: ignore[arg-type]
    return Verdict.of(run(config), out)  # type: ignore[arg-type]  # of episodes, since no data were given


def _changed(policy: LoadedPolicy) -> dict[str, Any]:
    """The settings of a policy that are not the default."""
    from .policies.agent.loaded import OF_RECORDS

    fields = [field for field in dataclasses.fields(policy.settings) if field.name not in OF_RECORDS]
    told = {field.name: getattr(policy.settings, field.name) for field in fields}
    return {field.name: told[field.name] for field in fields if told[field.name] != field.default}


def _names(config_class: Any, without: tuple[str, ...]) -> list[str]:
    return [field.name for field in dataclasses.fields(config_class) if field.name not in without]


def _word(value: Any) -> str:
    """A value as a flag of the command line has it."""
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    """What JSON does not know: paths, numbers of NumPy."""
    return value.item() if hasattr(value, "item") else os.fspath(value)
