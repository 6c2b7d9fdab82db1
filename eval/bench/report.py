"""Time and peak memory to write the report of a long record, in a process of its own for each length.

The record is made up: progress curves of 200 steps and no films, whose bytes would only be copied. No peer writes such
a report.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from ...configs.children import calling
from .loader import peak_mib

LENGTHS = (200, 2000)  # episodes
STEPS = 200  # of an episode


def compare_reports(lengths: tuple[int, ...] = LENGTHS) -> dict:
    """episodes -> seconds (wall and CPU), peak memory and its part before the report, and the report's size in MiB."""
    return {str(length): _in_process(length) for length in lengths}


def measure(episodes: int) -> dict:
    """Write the report of a made-up record."""
    from ..evaluate.report import write_report

    with tempfile.TemporaryDirectory() as folder:
        record = made_up(Path(folder) / "record", episodes)
        before, wall, cpu = peak_mib(), time.perf_counter(), time.process_time()
        path = write_report(record)
        spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        size = path.stat().st_size / 2**20
    return spent | {"peak_mib": peak_mib(), "before_mib": before, "report_mib": size}


def made_up(root: Path, episodes: int):
    """A record of random progress curves; returns the `Record`."""
    from ..ledger.record import RecordWriter

    rng = np.random.default_rng(0)
    manifest = {"policy": {"path": "made up", "type": "none"}, "starts": {"set": "made up", "count": episodes}}
    with RecordWriter(root, manifest) as writer:
        for start in range(episodes):
            writer.add(_row(start, rng))
        writer.note(wall=1.0, acted=episodes)
        return writer.close(complete=True)


def table(result: dict) -> str:
    """`compare_reports`' result, one line a length."""
    lines = [f"{'report of':<20}{'s':>8}{'CPU s':>8}{'peak MiB':>10}{'of it before':>14}{'file MiB':>10}"]
    for episodes, measured in result.items():
        times = f"{measured['seconds']:>8.2f}{measured['cpu_seconds']:>8.2f}"
        sizes = f"{measured['peak_mib']:>10.0f}{measured['before_mib']:>14.0f}{measured['report_mib']:>10.2f}"
        lines.append(f"{episodes + ' episodes':<20}{times}{sizes}")
    lines.append("the first use in a process; no peer writes one")
    return "\n".join(lines)


def _row(start: int, rng: np.random.Generator) -> dict:
    progress = np.clip(np.cumsum(rng.uniform(0, 0.01, STEPS)), 0, 1).astype(np.float32)
    won = bool(progress[-1] > 0.99)
    return {
        "initial_conditions": "made up",
        "env_seed": start,
        "policy_seed": 0,
        "task": "made up",
        "success": won,
        "first_success": STEPS if won else -1,
        "best_progress": float(progress.max()),
        "final_progress": float(progress[-1]),
        "return": float(progress.sum()),
        "length": STEPS,
        "progress": progress.tolist(),
        "terminated": won,
        "truncated": not won,
        "wall_physics": 0.3,
        "wall_render": 0.1,
        "wall_policy": 0.6,
        "attempt": 0,
        "worker": 0,
        "video": "",
        "error": "",
        "labels": "{}",
    }


def _in_process(episodes: int) -> dict:
    command = calling(f"{__name__}:main", episodes)
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the report of {episodes} episodes failed: {reason}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(episodes: str) -> None:
    """Print `measure` as a line of JSON."""
    print(json.dumps(measure(int(episodes))))
