"""The table of a bench as a study: what `understudy study bench` and `bench all` write for RESULTS.md.

Speeds are of one machine, which the notes describe; only ratios are worth comparing. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

from ..ledger.study import Study, StudyError
from ..statistics.intervals import Interval, exact


def bench_study(document: Mapping) -> Study:
    """The study of one bench (not of `all`).

    Raises:
        StudyError: a bench that has no table here.
    """
    what, result = document["bench"], document["result"]
    if what not in TABLES:
        raise StudyError(f"no table for bench '{what}'; run one of {', '.join(TABLES)} with --out FILE")
    title, command, columns, rows, notes = TABLES[what](result)
    command = document.get("command", command)
    title += f", {document['pictures']} px" if document.get("pictures") and what in ("train", "latency") else ""
    notes = (*notes, machine_of(document))
    return Study(title=title, command=command, columns=columns, rows=rows, notes=notes)


def machine_of(document: Mapping) -> str:
    """A sentence that names the machine of a bench, but not the host."""
    told = ", ".join(f"{name} {value}" for name, value in document["machine"].items() if value is not None)
    return f"Machine: {told}."


def _rollout(result: Mapping):
    peer = "lerobot" if result["task"] == "pusht" else "robosuite"
    cases = {name: case for name, case in result["cases"].items() if "speedup" in case}
    rows = [
        (name, case["understudy"]["steps_per_s"], case[peer]["steps_per_s"], _spread(case["speedup"], case["speedups"]))
        for name, case in cases.items()
    ]
    pairs = len(next(iter(cases.values()))["speedups"])
    notes = [f"Control steps a second; speed-up: median of {pairs} interleaved pairs and their range."]
    notes += [f"{result['rest'][0].upper()}{result['rest'][1:]}."] if "rest" in result else []
    title = f"Rollouts of {result['task']} beside {peer}, {result['size']} px, chunks of {result['n_action_steps']}"
    return title, f"understudy bench rollout --task {result['task']}", ("case", "ours", peer, "speed-up"), rows, notes


def _race(title: str, what: str):
    def table(result: Mapping):
        rows = [
            (name, race["sides"][0]["ms"], race["sides"][1]["ms"], _spread(race["ratio"], race["ratios"]))
            for name, race in result.items()
        ]
        columns = ("case", "ours, ms", "lerobot, ms", "ours / lerobot")
        notes = ("Ratio: median of interleaved pairs and their range; below 1 ours is faster.",)
        return title, f"understudy bench {what}", columns, rows, notes

    return table


def _loader(result: Mapping):
    ours, peer = result["ours"], result["lerobot"]
    least = peer["rates"][0]["per_cpu_second"]
    rows = [
        (name, rate["batch"], rate["per_cpu_second"], rate["per_cpu_second"] / least, side["peak_mib"])
        for name, side in (("ours", ours), ("lerobot", peer))
        for rate in side["rates"]
    ]
    columns = ("loader", "batch", "windows per CPU second", "of lerobot's", "peak memory, MiB")
    keys = ", ".join(ours["keys"])
    notes = (
        f"{ours['windows']:,} windows of {keys} and actions, in random order, on one core and one thread.",
        "Rates are of CPU time, so that a busy machine does not decide. Ours are scaled, lerobot's not yet.",
        "Peak memory: of a process that loads at all of its batch sizes, imports included.",
    )
    return "Windows of a dataset beside lerobot's loader", "understudy bench loader", columns, rows, notes


def _learn(result: Mapping):
    if "stages_s" in result:
        return _learn_stages(result)
    ours, peer = result["curves"]["understudy"], result["curves"]["lerobot"]
    notes = (
        f"The least loss of lerobot is {result['loss']:.4f}, after {result['lerobot_s']:.0f} CPU s; ours "
        f"{_sooner(result['ours_s'], result['ratio'], 'is')}.",
        f"Batch {result['batch']}, pictures of {result['pictures']} px; ours trains {result['noise_draws']} noised "
        "chunks on each encoded observation. Loss: squared error of the noise, at the same noise levels on both sides.",
        f"Ours waits while its loss is the lower one: {ours[-1][1]} steps of it, {peer[-1][1]} of lerobot's, whose "
        "learning rate warms up from nothing.",
    )
    columns = ("after", "ours, CPU s", "ours, loss", "lerobot, CPU s", "lerobot, loss")
    title = "Held-out loss from pictures beside lerobot's diffusion policy"
    return title, "understudy bench learn", columns, _turns(ours, peer), notes


def _learn_stages(result: Mapping):
    ours, whole = result["curves"]["in stages"], result["curves"]["end to end"]
    notes = (
        f"The least loss end to end is {result['loss']:.4f}, after {result['whole_s']:.0f} CPU s; stages "
        f"{_sooner(result['stages_s'], result['ratio'], 'are')}.",
        f"Of their time the encoder, with one frame, took {result['encoder_s']:.0f} CPU s, and embedding every frame "
        f"once {result['embedding_s']:.0f}.",
        f"{result['context']} frames of {result['pictures']} px, batch {result['batch']}. Loss: squared error of the "
        "noise for held-out windows, at the same noise levels; none while the encoder's stage lasts.",
        "The stages wait while their loss is the lower one.",
    )
    columns = ("after", "in stages, CPU s", "in stages, loss", "end to end, CPU s", "end to end, loss")
    title = "Held-out loss of a long context, in stages and end to end"
    return title, "understudy bench learn --against end_to_end", columns, _turns(ours, whole), notes


def _turns(first: Sequence, second: Sequence) -> list[tuple]:
    """A row for each turn: CPU seconds and loss of both, nothing where one waits."""
    waits = (None, None, None)
    pairs = enumerate(zip_longest(first, second, fillvalue=waits), 1)
    return [(f"turn {turn}", one[0], one[2], other[0], other[2]) for turn, (one, other) in pairs]


def _sooner(seconds: float | None, ratio: float | None, verb: str) -> str:
    return (
        f"{verb} never there"
        if seconds is None
        else f"{verb} there after {seconds:.0f} CPU s, {ratio:.3g} times sooner"
    )


def _stages(result: Mapping):
    rows = [(side["name"], side["ms"], result["peak_mib"][side["name"]]) for side in result["sides"]]
    spread = sorted(1 / ratio for ratio in result["ratios"])
    notes = (
        f"Batch {result['batch']}, {result['context']} frames of {result['pictures']} px. End to end takes "
        f"{1 / result['ratio']:.3g} times as long ({spread[0]:.3g} to {spread[-1]:.3g} in {len(spread)} interleaved "
        f"pairs; {1 / result['cpu_ratio']:.3g} in CPU time).",
    )
    columns = ("training step", "ms", "peak memory, MiB")
    title = "A long context on kept embeddings beside the same end to end"
    return title, "understudy bench stages", columns, rows, notes


def _robot(result: Mapping):
    guard, bus, loop = result["guard"], result["bus"], result["loop"]
    steps, turns = guard["steps"], bus["turns"]
    rows: list[tuple] = [
        (f"{name}, ms", steps, guard[name]["median"], guard[name]["p99"], None)
        for name in ("command", "command, guarded", "added")
    ]
    rows += [
        (f"read and write six motors, {name}, processor ms", turns, *bus[name]["processor"].values(), None)
        for name in ("ours", "lerobot")
    ]
    low, high = bus["ratio, 95 %"]
    rows.append(("lerobot / ours", turns, Interval(low, bus["ratio"], high), None, None))
    missed = exact(loop["missed"], loop["steps"])
    rows.append(("a step of 60 Hz with two cameras, ms", loop["steps"], *loop["step"].values(), missed))
    for rate, told in result["replay"].items():
        late = exact(told["late"], told["actions"])
        rows.append((f"replayed at {rate}, ms after its time", told["actions"], *told["after"].values(), late))
    notes = (
        "An emulated SO-101 in a process of its own, commands of a slow swing (no seed: nothing is drawn). The sides "
        "of the first six rows took turns in one run; their line takes no time.",
        "Missed: share of the steps that ended after the next began, of the replayed actions that were a step late; "
        "Clopper-Pearson 95 %. The ratio is of medians, with its bootstrap 95 %.",
    )
    columns = ("what", "n", "median", "99 %", "missed")
    return "The guard, the bus and loops of an emulated SO-101", "understudy bench robot", columns, rows, notes


def _spread(middle: float, values: list[float]) -> tuple[float, float, float]:
    return min(values), middle, max(values)


TABLES = {
    "loader": _loader,
    "rollout": _rollout,
    "learn": _learn,
    "stages": _stages,
    "robot": _robot,
    "train": _race("A training step beside lerobot's diffusion policy", "train"),
    "latency": _race("A chunk of actions beside lerobot's diffusion policy", "latency"),
}
