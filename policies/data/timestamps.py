"""Whether the timestamps of a data file go on, at the rate that is stated, from the first frame of a film on."""

from __future__ import annotations

import numpy as np

from .claims import AGAIN
from .layout import DatasetError, Entry
from .row_order import place_of

SLOW = 0.05  # part by which a clock may differ from the rate that is stated
CLOCK = 1e6  # s; timestamps beyond are those of a clock, not of a film


def check_times(
    times: np.ndarray | None, entries: list[Entry], starts: np.ndarray, rate: float, file: str, notes: list[str]
) -> None:
    """Timestamps go on, and at the stated rate. Raises DatasetError where they go back."""
    if times is None or len(times) < 2:
        return
    step = 1 / rate
    steps = np.diff(times).astype(np.float64, copy=False)
    steps[starts[1:] - 1] = step
    ends = np.append(starts[1:], len(times)) - 1
    edges = times[np.concatenate([starts, ends])]
    grain = float(np.spacing(np.abs(edges).max())) if times.dtype.kind == "f" else 0.0

    # what cannot be judged
    low, high = float(steps.min()), float(steps.max())
    counts = ends - starts
    spans = times[ends].astype(np.float64) - times[starts].astype(np.float64)
    if not np.isfinite([low, high]).all():
        notes.append(f"the timestamps of {file} hold NaN or infinite values")
        return
    if not spans.any() and low >= 0 and counts.any() and grain < step / 4:
        notes.append(f"the timestamps of {file} never change within an episode")
        return

    # back, or not on
    if low < -max(step / 2, 2 * grain):
        row = int(steps.argmin())
        entry, at = place_of(row, entries, starts)
        raise DatasetError(
            f"the timestamps of episode {entry.id} in {file} go back from {times[row]} s at frame {at} to"
            f" {times[row + 1]} s: its rows are not in the order of time, or are of two recordings; {AGAIN}"
        )
    if grain > step / 4:
        notes.append(
            f"the timestamps of {file} are kept as {times.dtype} around {float(np.abs(edges).max()):.6g} s, in steps of"
            f" {grain:.2g} s, too coarse for {rate:g} frames a second"
        )
        return
    if low <= 0:
        entry, at = place_of(int(steps.argmin()), entries, starts)
        notes.append(
            f"in {file} time does not go on at {int((steps <= 0).sum())} frames (episode {entry.id}, frame {at + 1})"
        )

    # at which rate, single long steps apart
    long = np.flatnonzero(steps > 1.5 * step + 2 * grain) if high > 1.5 * step + 2 * grain else np.empty(0, np.int64)
    if 0 < len(long) <= max(1, len(steps) // 10):
        entry, at = place_of(int(long[0]), entries, starts)
        notes.append(
            f"in {file} {steps[long[0]]:.3g} s pass from frame {at} to {at + 1} of episode {entry.id}, {step:.3g} s are"
            f" due, and {len(long) - 1} times more: frames may be missing"
        )
        np.subtract.at(spans, np.searchsorted(starts, long, "right") - 1, steps[long] - step)
    off = np.abs(spans * rate - counts) > np.maximum(SLOW * counts, 1)
    if off.any() or abs(spans.sum() * rate - counts.sum()) > SLOW * counts.sum():
        wrong = off if off.any() else np.ones(len(off), bool)
        found = counts[wrong].sum() / spans[wrong].sum() if spans[wrong].sum() > 0 else 0.0
        notes.append(
            f"the timestamps of {file} tell of {found:.4g} frames a second (episode {entries[int(wrong.argmax())].id}),"
            f" meta/info.json says fps {rate:g}: correct the one that is wrong"
        )


def note_late(
    times: np.ndarray | None, entries: list[Entry], starts: np.ndarray, rate: float, file: str, notes: list[str]
) -> None:
    """Note episodes with films whose first timestamp is not 0, and no time of a clock either."""
    if times is None or not any(entry.clips for entry in entries):
        return
    first = times[starts].astype(np.float64)
    late = np.flatnonzero((np.abs(first) * rate > 0.5) & (np.abs(first) < CLOCK))
    if late.size:
        entry, begin = entries[late[0]], first[late[0]]
        notes.append(
            f"the timestamps of {file} begin at {begin:.4g} s in episode {entry.id}, not at 0; its first row gets the"
            f" first frame of its clip: if rows were cut off and the film was not, {abs(begin) * rate:.0f} frames"
            " beside the right one"
        )
