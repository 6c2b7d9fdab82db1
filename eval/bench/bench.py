"""Measure ours beside stock lerobot or robosuite in the same run; only ratios are worth comparing between machines."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .settings import READS, Settings, describe_machine

if TYPE_CHECKING:
    from .policy import Size


@dataclass(frozen=True, kw_only=True)
class Bench(Settings):
    """Measure ours beside lerobot (loader, train, latency, learn, robot, serve), robosuite (rollout, dream); or all."""

    def run(self) -> None:
        from ...configs.command import command_of
        from ...configs.files import replace_text
        from ...configs.plugins import lookup

        lookup("bench", self.what, READS)
        if self.what == "all":
            from .every import measure_all

            return measure_all(self.out or Path("out/bench"), quick=self.quick, again=self.again, busy=self.busy)
        text, result = KINDS[self.what](self)
        about = {"bench": self.what, "command": command_of(self, "bench", without=("out",)), "pictures": self.pictures}
        document = json.dumps(about | {"machine": describe_machine(), "result": result})
        print(f"{text}\n{document}")
        if self.out:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            replace_text(self.out, document + "\n")


def _loader(bench: Bench) -> tuple[str, dict]:
    from .data import write_dataset
    from .loader import compare, table

    if bench.data:
        result = compare(os.path.expandvars(bench.data), bench.seconds or 5.0)
    else:
        with tempfile.TemporaryDirectory() as folder:
            result = compare(write_dataset(Path(folder) / "made_up"), bench.seconds or 5.0)
    return table(result), result


def _train(bench: Bench) -> tuple[str, dict]:
    from . import policy as bench_policy

    size = _prepare(bench)
    result = bench_policy.compare_training(size, bench.pairs, bench.seconds or 0.5)
    return _table(f"training step, batch {size.batch}{_seen(size)}", result), result


def _latency(bench: Bench) -> tuple[str, dict]:
    from . import policy as bench_policy

    size = _prepare(bench)
    result = bench_policy.compare_latency(size, bench.pairs, bench.seconds or 0.5)
    title = f"chunk of {size.horizon} actions, DDIM {size.solver_steps}, {size.observations} at a time{_seen(size)}"
    return _table(title, result), result


def _learn(bench: Bench) -> tuple[str, dict]:
    from .learn import compare_learning, table

    size = _prepare(bench)
    if not bench.data or not size.pictures or bench.turns < 1 or bench.noise_draws < 1:
        raise ValueError(
            "learn trains on the pictures of a dataset: --data DATA --pictures 96; turns and noise_draws are at least 1"
        )
    data = os.path.expandvars(bench.data)
    if bench.against == "end_to_end":
        return _learn_stages(bench, data, size)
    result = compare_learning(data, size, bench.seconds or 60.0, bench.turns, bench.noise_draws)
    return table(result), result


def _learn_stages(bench: Bench, data: str, size: Size) -> tuple[str, dict]:
    from .learn_stages import compare_stages_learning, table
    from .stages import Context

    context = Context(frames=bench.context, pictures=size.pictures, batch=size.batch)
    result = compare_stages_learning(data, context, bench.seconds or 60.0, bench.turns)
    return table(result), result


def _stages(bench: Bench) -> tuple[str, dict]:
    from .stages import Context, compare_stages, table

    size = _prepare(bench)
    context = Context(frames=bench.context, pictures=size.pictures or 84, batch=size.batch)
    result = compare_stages(context, bench.pairs, bench.seconds or 0.5)
    return table(result), result


def _rollout(bench: Bench) -> tuple[str, dict]:
    from ...configs.machine import versions
    from ...sim.robosuite.suite import Robosuite
    from .rollout import compare_rollouts, table

    if min(bench.pairs, bench.size, bench.n_action_steps, bench.envs) < 1:
        asked = f"{bench.pairs}, {bench.size}, {bench.n_action_steps}, {bench.envs}"
        raise ValueError(f"pairs, size, n_action_steps and envs must be at least 1: {asked}")
    if bench.scaling:
        return _scaling(bench)
    if bench.task == "pusht":
        return _pusht(bench)

    world = Robosuite(task=bench.task)
    result = compare_rollouts(world, bench.size, bench.n_action_steps, bench.pairs, bench.seconds or 1.0)

    settings = {"task": bench.task, "size": bench.size, "n_action_steps": bench.n_action_steps}
    title = f"{bench.task}, {bench.size} px, chunks of {bench.n_action_steps} steps"
    return f"{title}\n{table(result)}", settings | versions("robosuite", "mujoco") | {"cases": result}


def _pusht(bench: Bench) -> tuple[str, dict]:
    from ...configs.machine import versions
    from .pusht import SIZE, compare_pusht, table

    result = compare_pusht(bench.envs, bench.n_action_steps, bench.pairs, bench.seconds or 1.0)
    settings = {"task": "pusht", "size": SIZE, "n_action_steps": bench.n_action_steps, "envs": bench.envs}
    title = f"pusht, {bench.envs} environments, {SIZE} px, chunks of {bench.n_action_steps} steps"
    return f"{title}\n{table(result)}", settings | versions("gym-pusht", "lerobot") | {"cases": result}


def _scaling(bench: Bench) -> tuple[str, dict]:
    from .scaling import compare_scaling, table, world_for

    words = bench.scaling.split(",")
    workers = tuple(int(word) for word in words if word.strip().isdigit())
    if len(workers) < len(words) or min(*workers, bench.steps) < 1 or bench.episodes < 0 or bench.cameras < 0:
        raise ValueError(
            f"--scaling takes numbers of workers from 1 on, such as 1,2,4, not '{bench.scaling}'; "
            "steps are at least 1, episodes and cameras at least 0"
        )
    world = world_for(bench.task, bench.cameras, bench.size, bench.steps)
    episodes = bench.episodes or 2 * bench.envs * max(workers)
    rounds = max(1, bench.pairs // 3)
    result = compare_scaling(
        world, workers, block=bench.envs, n_action_steps=bench.n_action_steps, episodes=episodes, rounds=rounds
    )
    settings = {"task": bench.task, "workers": list(workers), "block": bench.envs, "episodes": episodes}
    settings |= {"steps": bench.steps, "cameras": bench.cameras, "rounds": rounds}
    title = f"{bench.task}, {episodes} episodes of {bench.steps} steps in blocks of {bench.envs}, {rounds} rounds"
    return f"{title}\n{table(result)}", settings | {"cases": result}


def _cluster(bench: Bench) -> tuple[str, dict]:
    from ...configs.engines import RAY, check_engine
    from .cluster import compare_cluster, table
    from .scaling import world_for

    check_engine(RAY, "", None)
    if min(bench.envs, bench.steps, bench.n_action_steps) < 1 or bench.episodes < 0 or bench.cameras < 0:
        raise ValueError("envs, steps and n_action_steps are at least 1, episodes and cameras at least 0")
    world = world_for(bench.task, bench.cameras, bench.size, bench.steps)
    episodes, rounds = bench.episodes or 8 * bench.envs, max(1, bench.pairs // 3)
    result = compare_cluster(
        world, block=bench.envs, n_action_steps=bench.n_action_steps, episodes=episodes, rounds=rounds
    )
    settings = {"task": bench.task, "block": bench.envs, "episodes": episodes, "steps": bench.steps}
    title = f"{bench.task}, {episodes} episodes of {bench.steps} steps in blocks of {bench.envs}, {rounds} rounds"
    return f"{title}\n{table(result)}", settings | {"cameras": bench.cameras, "rounds": rounds} | {"cases": result}


def _robot(bench: Bench) -> tuple[str, dict]:
    from .robot import compare_robot, table

    result = compare_robot(bench.seconds or 20.0)
    return table(result), result


def _twin(bench: Bench) -> tuple[str, dict]:
    from .twin import compare_twin, table

    task = "so101-pusht" if bench.task == "lift" else bench.task
    result = compare_twin(task, bench.seconds or 20.0, bench.data)
    return f"twin of {task}\n{table(result)}", result


def _serve(bench: Bench) -> tuple[str, dict]:
    from ...configs.machine import versions
    from .serve import compare_servers, table

    if bench.pairs < 1:
        raise ValueError(f"pairs must be at least 1, got {bench.pairs}")
    result = compare_servers(bench.seconds or 2.0, bench.pairs)
    return table(result), versions("websockets", "msgpack", "grpcio", "lerobot") | {"cases": result}


def _report(bench: Bench) -> tuple[str, dict]:
    from .report import compare_reports, table

    result = compare_reports()
    return table(result), result


def _dream(bench: Bench) -> tuple[str, dict]:
    from ...configs.machine import versions
    from .dream import compare_dreams, table

    if min(bench.pairs, bench.batch) < 1:
        raise ValueError(f"pairs and batch must be at least 1, got {bench.pairs} and {bench.batch}")
    run = os.path.expandvars(bench.data)
    result = compare_dreams(run, bench.batch, bench.pairs, bench.seconds or 1.0, bench.device, bench.threads)
    return table(result), versions("robosuite", "mujoco", "gym-pusht") | {"cases": result}


KINDS = {
    "loader": _loader,
    "train": _train,
    "latency": _latency,
    "learn": _learn,
    "stages": _stages,
    "rollout": _rollout,
    "cluster": _cluster,
    "robot": _robot,
    "twin": _twin,
    "serve": _serve,
    "report": _report,
    "dream": _dream,
}


def _prepare(bench: Bench):
    import torch

    from ...configs.devices import choose_device
    from .policy import Size

    if bench.pictures and bench.pictures < 32:
        raise ValueError(f"pictures are read from 32 px on, got {bench.pictures}")
    if bench.pairs < 1:
        raise ValueError(f"pairs must be at least 1, got {bench.pairs}")
    if bench.threads:
        torch.set_num_threads(bench.threads)
    return Size(
        channels=bench.channels,
        batch=bench.batch,
        horizon=bench.horizon,
        solver_steps=bench.solver_steps,
        observations=bench.observations,
        pictures=bench.pictures,
        device=choose_device(bench.device),
        precision=bench.precision,
    )


def _seen(size) -> str:
    """What both sides see, beside states."""
    return f", {size.pictures} px" if size.pictures else ""


def _table(title: str, result: dict) -> str:
    lines = [f"{title:<58}{'ours ms':>10}{'lerobot ms':>12}{'ratio':>8}{'range':>14}{'CPU ratio':>11}"]
    for name, race in result.items():
        ours, peer = race["sides"]
        label = f"{name} ({ours['parameters'] / 1e6:.2f} M against {peer['parameters'] / 1e6:.2f} M)"
        span = f"{min(race['ratios']):.2f}-{max(race['ratios']):.2f}"
        numbers = f"{ours['ms']:>10.2f}{peer['ms']:>12.2f}{race['ratio']:>8.2f}{span:>14}{race['cpu_ratio']:>11.2f}"
        lines.append(f"{label:<58}{numbers}")
    pairs = len(race["ratios"])
    lines.append(f"ratio = ours / lerobot, median of {pairs} interleaved pairs; below 1 ours is faster")
    return "\n".join(lines)
