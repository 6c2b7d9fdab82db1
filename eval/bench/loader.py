"""Windows a second and peak memory of one loader, measured in a process of its own.

Both loaders read the same files, in random order, on one core and one thread: O = 2 observed frames, H = 16 actions,
with padding masks. Ours also scales what it gathers; lerobot scales later, in a step that is not counted here.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ...configs.children import calling
from ...configs.spec import ACTION, SCENE, STATE, Window

BATCHES = (64, 256, 1024, 4096)  # windows at a time; lerobot takes the first
WINDOW = Window(observe=(-1, 0), horizon=16)


def compare(data: str | Path, seconds: float = 5.0) -> dict:
    """Run both loaders one after the other on the dataset in folder `data`.

    Returns:
        {"ours": ..., "lerobot": ..., "ratio": .., "best_ratio": ..}; rates in windows a second of wall and CPU time,
        memory in MiB. The ratios are of CPU time, so that a busy machine does not decide: at equal batch, and at our
        best one.
    """
    ours, lerobot = _in_process("ours", data, seconds), _in_process("lerobot", data, seconds)
    rates = [row["per_cpu_second"] for row in ours["rates"]]
    peer = lerobot["rates"][0]["per_cpu_second"]
    return {"ours": ours, "lerobot": lerobot, "ratio": rates[0] / peer, "best_ratio": max(rates) / peer}


def table(result: dict) -> str:
    """`compare`'s result, one line a measurement."""
    lines = [f"{'loader':<10}{'batch':>6}{'windows/s':>14}{'per CPU s':>14}{'peak MiB':>10}{'of it imports':>15}"]
    for name in ("ours", "lerobot"):
        side = result[name]
        for row in side["rates"]:
            speeds = f"{row['per_second']:>14,.0f}{row['per_cpu_second']:>14,.0f}"
            lines.append(f"{name:<10}{row['batch']:>6}{speeds}{side['peak_mib']:>10.0f}{side['imports_mib']:>15.0f}")
    held = f"{result['ours']['windows']:,} windows of {', '.join(result['ours']['keys'])} and actions"
    ratios = f"ratio {result['ratio']:,.0f} at batch {BATCHES[0]}, {result['best_ratio']:,.0f} at our best, by CPU time"
    lines.append(f"{held}\n{ratios}")
    return "\n".join(lines)


def measure(step: Callable[[], int], seconds: float) -> dict:
    """Call `step`, which says how many windows it gave, for `seconds`, after one call that is not counted."""
    step()
    count, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        count += step()
    return {
        "per_second": count / (time.perf_counter() - wall),
        "per_cpu_second": count / (time.process_time() - cpu),
    }


def peak_mib() -> float:
    """Greatest resident memory of this process so far (VmHWM), MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


def ours(data: str, seconds: float) -> dict:
    """Our windows, scaled."""
    import torch

    from ...policies.data.open import open_dataset
    from ...policies.data.statistics import statistics
    from ...policies.data.windows import Windows
    from ...policies.policy import Scale

    torch.set_num_threads(1)
    imports = peak_mib()
    dataset = open_dataset(data)
    keys = tuple(key for key in (STATE, SCENE) if key in dataset.columns)
    stats = statistics(dataset, (*keys, ACTION))
    scales = {key: Scale(stats[key].mean, stats[key].std) for key in keys}
    scales[ACTION] = Scale.between(stats[ACTION].min, stats[ACTION].max)
    windows = Windows(dataset, WINDOW, keys)

    def rate(batch: int) -> dict:
        orders = (torch.randperm(len(windows)).split(batch) for _ in itertools.count())
        return {"batch": batch} | measure(_gatherer(windows, scales, itertools.chain.from_iterable(orders)), seconds)

    rates = [rate(batch) for batch in BATCHES]
    return {"keys": keys, "windows": len(windows), "rates": rates, "imports_mib": imports, "peak_mib": peak_mib()}


def _gatherer(windows, scales: dict, order: Iterable) -> Callable[[], int]:
    order = iter(order)

    def step() -> int:
        indices = next(order)
        batch = windows.gather(indices)
        for key, scale in scales.items():
            batch[key] = scale.scale(batch[key])
        return len(indices)

    return step


def lerobot(data: str, seconds: float) -> dict:
    """Stock lerobot: `LeRobotDataset` with `delta_timestamps`, collated by torch's loader in the same process."""
    from ...configs.compat import prepare_lerobot

    prepare_lerobot()
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    torch.set_num_threads(1)
    imports = peak_mib()
    info = json.loads((Path(data) / "meta" / "info.json").read_text())
    keys = tuple(key for key in (STATE, SCENE) if key in info["features"])
    observed = [offset / info["fps"] for offset in WINDOW.observe]
    deltas = dict.fromkeys(keys, observed)
    deltas[ACTION] = [offset / info["fps"] for offset in WINDOW.actions]
    dataset = LeRobotDataset(f"local/{Path(data).name}", root=data, delta_timestamps=deltas)
    batches = torch.utils.data.DataLoader(dataset, BATCHES[0], shuffle=True)
    endless = itertools.chain.from_iterable(batches for _ in itertools.count())
    rates = [{"batch": BATCHES[0]} | measure(lambda: len(next(endless)["index"]), seconds)]
    return {"keys": keys, "windows": len(dataset), "rates": rates, "imports_mib": imports, "peak_mib": peak_mib()}


def _in_process(which: str, data: str | Path, seconds: float) -> dict:
    command = calling(f"{__name__}:main", which, data, seconds)
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"loader '{which}' failed: {reason}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(which: str, data: str, seconds: str) -> None:
    """Print the rates of one side as a line of JSON: in a process of its own, pinned to one core."""
    from ...configs.machine import prepare

    prepare()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(json.dumps({"ours": ours, "lerobot": lerobot}[which](data, float(seconds))))
