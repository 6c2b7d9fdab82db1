"""Parts of films as films of their own, copied by packets: nothing is decoded and nothing is encoded again.

A part can be cut where its first frame is a key frame and no frame after its last is needed for one within. What came
out is compared, frame time by frame time, with what went in.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..films import Film, read_film

OFF = 1e-4  # s by which the time of a frame may change, by another clock's ticks


def cut_film(film: Film, parts: Sequence[tuple[np.ndarray, Path]]) -> list[bool]:
    """Write parts of a film; returns which could be cut.

    Args:
        film: the film.
        parts: (frame numbers of a part, ascending and without a gap; file to write), in the order of the film.
    """
    if len(parts) == 1 and len(parts[0][0]) == len(film.stamps):
        shutil.copyfile(film.path, parts[0][1])
        return [True]
    packets = _packets(film)
    return [_cut(film, packets, numbers, out) for numbers, out in parts]


def _packets(film: Film) -> list:
    """All packets in the order of decoding."""
    import av

    packets: list = []
    with av.open(str(film.path)) as container:
        packets += [packet for packet in container.demux(container.streams.video[0]) if packet.size]
    return packets


def _cut(film: Film, packets: list, numbers: np.ndarray, out: Path) -> bool:
    """Write one part and look at it. False where it cannot be cut, and then nothing is left."""
    stamps = film.stamps[numbers]
    chosen = _chosen(packets, set(stamps.tolist()), int(stamps[0])) if (np.diff(numbers) == 1).all() else None
    if chosen is None:
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    _write(film, chosen, int(stamps[0]), out)
    found = read_film(out).times
    due = (stamps - stamps[0]) * float(film.base)
    if len(found) == len(due) and np.abs(found - due).max() <= OFF:
        return True
    out.unlink()
    return False


def _chosen(packets: list, wanted: set[int], first: int) -> list | None:
    """The packets of the frames `wanted`; None where they do not stand alone."""
    begin = next((place for place, packet in enumerate(packets) if packet.pts == first), None)
    if begin is None or not packets[begin].is_keyframe:
        return None
    chosen, missing = [], set(wanted)
    for packet in packets[begin:]:
        if not missing:
            break
        if packet.pts in missing:
            chosen.append(packet)
            missing.remove(packet.pts)
        elif packet.pts is None or packet.pts > first:
            return None  # a frame after the last is decoded before it
    return None if missing else chosen


def _write(film: Film, packets: list, first: int, out: Path) -> None:
    import av

    with av.open(str(film.path)) as source, av.open(str(out), "w", format="mp4") as container:
        template = source.streams.video[0]
        stream = container.add_stream_from_template(template)
        stream.time_base = template.time_base
        for packet, decoded in zip(packets, _decoding_times(packets), strict=True):  # each belongs to one part
            packet.pts, packet.dts, packet.stream = packet.pts - first, decoded - first, stream
            container.mux(packet)


def _decoding_times(packets: list) -> list[int]:
    """When each packet is to be decoded: as stated; where one is not, all by the order of their frames.

    A container need not state it. The n-th packet is then decoded at the n-th time of a frame, moved back by as much as
    no packet is late for its own frame.
    """
    stated = [packet.dts for packet in packets]
    if None not in stated:
        return stated
    shown = sorted(packet.pts for packet in packets)
    late = max(time - packet.pts for time, packet in zip(shown, packets, strict=True))
    return [time - late for time in shown]
