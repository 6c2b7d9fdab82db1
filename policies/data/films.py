"""Which frame of a film belongs to which row: the times of its frames, and the clips of all its episodes, compared.

A film is a video file; it holds one episode or several, each a clip that begins at a time which the episodes table
states. All clips of a film are judged together, before a frame is handed out, since a clip that begins beside a frame
tells that its neighbours may lie wrong too. Frames are found by their time; where the times contradict each other, but
the film holds exactly as many frames as its episodes have rows, by their order, with a warning. Anything else is
refused: a picture of another row is worse than none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .layout import Clip, DatasetError, Entry, Layout
from .tables import refuse_pointer

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

BESIDE = 0.1  # part of a frame by which a clip may begin beside a frame
REACH = 0.5  # part of a frame by which a later frame of a clip may be off: the nearest one is still its own
SLIVER = 2  # frames: what lies between two clips and is too short to be an episode that was left out


@dataclass(frozen=True)
class Film:
    """The times at which a film shows its frames, in the order in which it shows them."""

    path: Path
    stamps: np.ndarray  # (F,) int64, ascending, in units of `base`
    base: Fraction  # seconds

    @cached_property
    def times(self) -> np.ndarray:
        """(F,) seconds, float64."""
        return self.stamps * float(self.base)

    @cached_property
    def places(self) -> np.ndarray:
        """(F,) int64 numbers of the frames where none is missing: one that the film lacks is counted."""
        steps = np.diff(self.stamps)
        usual = np.median(steps) if len(steps) else 1
        return np.concatenate([[0], np.maximum(1, np.round(steps / max(usual, 1))).astype(np.int64).cumsum()])

    @cached_property
    def rate(self) -> float | None:
        """Frames a second; None of a single frame."""
        return float(self.places[-1] / (self.times[-1] - self.times[0])) if len(self.stamps) > 1 else None


@dataclass(frozen=True)
class Alignment:
    """Which frames of a film belong to its episodes."""

    frames: dict[int, np.ndarray] = field(default_factory=dict)  # episode id -> (length,) frame numbers
    lacking: dict[int, str] = field(default_factory=dict)  # episode id -> what the film lacks of it
    warning: str = ""  # what is odd about it, though its frames can be told


def read_film(path: Path, what: str = "the episode") -> Film:
    """The times of the frames of a video file. Decodes nothing, unless the file says no times.

    Raises:
        DatasetError: a file that cannot be read, or that holds no frame.
    """
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            shown = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
            base = stream.time_base
        if None in shown or len(set(shown)) < len(shown):
            shown = _decoded_stamps(path)
    except (av.FFmpegError, IndexError) as error:
        refuse_pointer(path)
        raise cannot_decode(path, error, what) from error
    if not shown or None in shown or base is None:
        raise cannot_decode(path, "it holds no frames with times" if shown else "it holds no frames", what)
    return Film(path, np.unique(np.array(shown, np.int64)), base)


def _decoded_stamps(path: Path) -> list[int | None]:
    stamps: list[int | None] = []
    with decoding(path) as (container, stream):
        stamps += [frame.pts for frame in container.decode(stream)]
    return stamps


@contextmanager
def decoding(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A film and its stream of pictures, decoded by several threads, which may be left before its end.

    Where somebody turned PyAV's logging on, as lerobot does, its decoder's threads wait for Python's lock to log, and
    closing waits for them with the lock held: for ever. So they are let go first, without it.
    """
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            yield container, stream
        finally:
            stream.codec_context.flush_buffers()


def cannot_decode(path: Path, why: object, what: str) -> DatasetError:
    """The error of a video file that is damaged, `what` saying whose it is."""
    return DatasetError(f"the video {path} cannot be decoded ({why}); copy it again or leave {what} out")


def align_clips(layout: Layout, key: str, path: str, film: Film) -> Alignment:
    """The frames of all episodes whose clips of the camera `key` lie in the film `path`, judged together.

    Raises:
        DatasetError: the clips do not fit the film, so that frames of other rows could be taken; says why.
    """
    same: dict[tuple, list[Entry]] = {}  # recordings, each once: a dataset may be named twice
    for entry in _clips_of(layout, key, path):
        same.setdefault((entry.file, entry.first, entry.length, entry.clips[key].start), []).append(entry)
    found = _align(layout, key, film, [entries[0] for entries in same.values()])
    for entries in same.values():
        first, ids = entries[0].id, [entry.id for entry in entries]
        if first in found.frames:
            found.frames.update(dict.fromkeys(ids, found.frames[first]))
        if first in found.lacking:
            found.lacking.update(dict.fromkeys(ids, found.lacking[first]))
    return found


def _align(layout: Layout, key: str, film: Film, entries: list[Entry]) -> Alignment:
    clips = [_Clip(entry, film, entry.clips[key], layout.rate) for entry in entries]
    fault, rates = _misfit(film, clips, layout.rate), _other_rate(film, clips, layout.rate)
    if fault and rates and rates not in fault:
        fault = f"{rates}: {fault.replace(f'the film {film.path}', 'it')}"
    lacking = {} if fault else {clip.entry.id: clip.lack for clip in clips if clip.lack is not None}

    # all is there, at its time
    if not fault and not lacking:
        frames = {clip.entry.id: clip.near for clip in clips}
        return Alignment(frames, warning=_told(film, clips, layout.rate))

    # the times are wrong, but there is one frame a row
    rows = sum(entry.length for entry in entries)
    if len(film.stamps) == rows and film.places[-1] == rows - 1 and _in_order(film, clips, layout.rate):
        ends = np.cumsum([entry.length for entry in entries])
        frames = {e.id: np.arange(end - e.length, end) for e, end in zip(entries, ends, strict=True)}
        reason = fault or rates or _runs_out(film, clips, lacking)
        hint = f". If its rows were recorded at {film.rate:.5g} Hz, correct `fps` in meta/info.json" if rates else ""
        return Alignment(frames, warning=f"{reason}. It has one frame a row, so they are paired in their order{hint}")

    # frames are missing
    fault = fault or rates
    late = [clip for clip in clips if clip.entry.id in lacking and clip.beyond]
    if not fault and late and len(film.stamps) >= rows:
        fault = _runs_out(film, clips, lacking)
    if fault:
        raise DatasetError(f"{fault}. {_advice(film, clips, layout.rate)}")
    frames = {clip.entry.id: clip.near for clip in clips if clip.entry.id not in lacking}
    lost = {i: _lacks(film, clips, i, frame) for i, frame in lacking.items()}
    return Alignment(frames, lost, _told_of_lost(film, rows) if frames else "")


def _told_of_lost(film: Film, rows: int) -> str:
    """A warning of a film with fewer frames than rows, where its times do not tell which are lost; else empty."""
    if len(film.stamps) >= rows or film.places[-1] >= len(film.stamps):
        return ""
    return (
        f"the film {film.path} has {len(film.stamps)} frames, its episodes {rows} rows: if it lost frames before its"
        " end, the pictures that follow are those of later rows"
    )


def _clips_of(layout: Layout, key: str, path: str) -> list[Entry]:
    """All episodes that lie in a film, also those that were left out, by the beginning of their clips."""
    listed = (*layout.entries, *layout.others)
    found = [entry for entry in listed if key in entry.clips and entry.clips[key].path == path]
    return sorted(found, key=lambda entry: entry.clips[key].start)


class _Clip:
    """An episode's part of a film, by time. Places and distances are in steps of the dataset."""

    def __init__(self, entry: Entry, film: Film, clip: Clip, rate: float):
        first, end = clip.start * rate, clip.end
        times = film.times * rate
        wanted = first + np.arange(entry.length)
        after = np.searchsorted(times, wanted).clip(1, len(times) - 1) if len(times) > 1 else np.zeros(1, np.int64)
        before = np.maximum(after - 1, 0)
        nearer = wanted - times[before] <= times[after] - wanted
        self.near: np.ndarray = np.broadcast_to(np.where(nearer, before, after), wanted.shape)  # (length,)
        self.off = np.abs(times[self.near] - wanted)  # (length,)
        self.entry, self.first, self.end = entry, first, end
        self.beyond = bool(wanted[-1] > times[-1] + REACH)  # it ends after the film
        self.outside = bool(first > times[-1] + REACH)  # it begins after the film
        place = float(np.interp(first, times, np.arange(len(times))))
        self.place = place + min(0.0, first - times[0])  # of its beginning, in frames of the film

    @property
    def lack(self) -> int | None:
        """The first of its rows for which the film has no frame."""
        bad = np.flatnonzero(self.off >= REACH)
        return int(bad[0]) if len(bad) else None

    @property
    def regular(self) -> bool:
        """Whether its frames follow each other evenly, or each has its exact time."""
        steps = np.diff(self.near)
        even = len(steps) == 0 or (steps[0] == 1 and (steps == 1).all())
        return bool(even or ((steps > 0).all() and (self.off <= BESIDE).all()))


def _misfit(film: Film, clips: list[_Clip], rate: float) -> str:
    """Why the times of the clips cannot be believed; empty where they can, also of a film that is cut short."""
    # where the film begins
    begin = float(film.times[0]) * rate
    if abs(begin) > BESIDE and not any(abs(clip.first - begin) <= BESIDE for clip in clips):
        first = clips[0]
        return (
            f"the film {film.path} begins at {film.times[0]:.4g} s, {abs(begin - first.first):.2f} frames"
            f" {'after' if begin > first.first else 'before'} {_whose(first)}, its first, at {first.first / rate:.4g} s"
        )

    # where the clips begin
    for clip in clips:
        if clip.off[0] > BESIDE and not clip.outside and not (clip.off[0] >= REACH and clip.first > begin):
            low = int(np.floor(clip.place))
            return (
                f"{_whose(clip)} begins beside the frames of the film {film.path}: at {clip.first / rate:.6g} s,"
                f" {clip.place - low:.2f} frames after frame {low} and {low + 1 - clip.place:.2f} before {low + 1}"
            )

    # whether they overlap
    for one, other in zip(clips, clips[1:], strict=False):
        whole = one.near[one.off < REACH]
        if len(whole) and not other.outside and whole[-1] >= other.near[0]:
            return (
                f"{_whose(other)} begins at frame {other.near[0]} of the film {film.path}, before {_whose(one)} ends,"
                f" at frame {whole[-1]}: {whole[-1] - other.near[0] + 1} frames would belong to both"
            )
    return _misfit_of_rates(film, clips, rate)


def _misfit_of_rates(film: Film, clips: list[_Clip], rate: float) -> str:
    """Why the frames of a film at another rate cannot be told by their times."""
    reason = _other_rate(film, clips, rate)
    if not reason:
        return ""
    if not all(clip.regular for clip in clips if clip.lack is None):
        return reason

    # by the count of rows the clip would begin elsewhere than by time
    for clip in clips:
        counted = round(clip.first)
        if abs(clip.first - counted) < 0.01 and not clip.outside and film.places[clip.near[0]] != counted:
            if not _follows(clip, clips):
                return (
                    f"{reason}: {_whose(clip)} begins at {clip.first / rate:.6g} s, at frame {clip.near[0]} by time and"
                    f" at frame {counted} by the count of rows"
                )

    # every so many frames one: only of a film that lasts as long as its rows
    stride = round((film.rate or rate) / rate)
    rows = sum(clip.entry.length for clip in clips)
    return reason if stride > 1 and abs(len(film.stamps) - stride * rows) >= stride else ""


def _follows(clip: _Clip, clips: list[_Clip]) -> bool:
    """Whether a clip begins with the very frame after another one's last."""
    return any(other.near[-1] + 1 == clip.near[0] for other in clips)


def _in_order(film: Film, clips: list[_Clip], rate: float) -> bool:
    """Whether the clips begin about where they would if each followed the one before, by either clock."""
    lengths = np.array([clip.entry.length for clip in clips])
    counted = np.cumsum(lengths) - lengths
    begins = np.array([clip.first for clip in clips])
    slack = max(1.0, lengths.min() / 2)
    clocks = (begins, begins * ((film.rate or rate) / rate))
    return bool((np.diff(begins) > 0).all()) and any(bool((np.abs(c - counted) <= slack).all()) for c in clocks)


def _told(film: Film, clips: list[_Clip], rate: float) -> str:
    """A warning of rates that differ so that it shows within a clip, or of frames between two clips; else empty."""
    reason = _other_rate(film, clips, rate)
    strides = any(len(clip.near) > 1 and clip.near[1] - clip.near[0] > 1 for clip in clips)
    if reason and strides:
        return f"{reason}. The frame at the time of each row is taken"
    if reason and any((clip.off > BESIDE).any() for clip in clips):
        return f"{reason}. The frames that follow the beginning of an episode are taken, one a row"
    if reason:
        return ""
    return _told_of_order(film, clips, rate) or _told_of_rest(film, clips)


def _told_of_order(film: Film, clips: list[_Clip], rate: float) -> str:
    """A warning of clips that end elsewhere than their rows, or lie in another order; else empty."""
    for clip in clips:
        end = clip.end
        if end is not None and abs((end - clip.first / rate) * rate - clip.entry.length) > 1 + BESIDE:
            return (
                f"the clip of {_whose(clip)} in the film {film.path} lasts from {clip.first / rate:.4g} to {end:.4g} s,"
                f" {(end * rate - clip.first):.4g} frames, and has {clip.entry.length} rows: the frames from its"
                " beginning on are taken"
            )
    for one, other in zip(clips, clips[1:], strict=False):
        early, late = other.entry, one.entry
        if early.file == late.file and early.first is not None and late.first is not None and early.first < late.first:
            return (
                f"{_whose(other)} lies before {_whose(one)} in {early.file} and after it in the film {film.path}; each"
                " gets the frames from where its clip begins: if the two have changed places, those of the other"
            )
    return ""


def _told_of_rest(film: Film, clips: list[_Clip]) -> str:
    """A warning of a few frames between two clips or after the last, which may belong elsewhere; else empty."""
    for one, other in zip(clips, clips[1:], strict=False):
        if 0 < (between := int(other.near[0] - one.near[-1]) - 1) <= SLIVER:
            return (
                f"{between} frames of the film {film.path} lie between {_whose(one)} and {_whose(other)} and belong to"
                f" neither; if {_whose(other)} should begin at once, its clip begins too late, by {between} frames"
            )
    rest, own = len(film.stamps) - 1 - int(clips[-1].near[-1]), clips[-1].entry.first is None
    if clips[0].near[0] == 0 and 0 < rest and (own or rest <= SLIVER):
        rows = sum(clip.entry.length for clip in clips)
        return (
            f"the film {film.path} has {len(film.stamps)} frames for {rows} rows: the last {rest} belong to none; if it"
            f" has {rest} too many before its end, the pictures that follow are those of earlier rows"
        )
    return ""


def _other_rate(film: Film, clips: list[_Clip], rate: float) -> str:
    """Both rates and counts in words where the rates differ by more than rounding; else empty."""
    if film.rate is None or abs(film.rate / rate - 1) * len(film.stamps) < BESIDE:
        return ""
    rows = sum(clip.entry.length for clip in clips)
    whose = f"episode {clips[0].entry.id} has" if len(clips) == 1 else f"its {len(clips)} episodes have"
    frames = f"the film {film.path} has {len(film.stamps)} frames at {film.rate:.5g} Hz"
    return f"{frames}, {whose} {rows} rows at {rate:.5g} Hz"


def _runs_out(film: Film, clips: list[_Clip], lacking: dict[int, int]) -> str:
    clip = next(clip for clip in clips if clip.entry.id in lacking)
    rows = sum(clip.entry.length for clip in clips)
    return (
        f"the film {film.path} has {len(film.stamps)} frames and its episodes {rows} rows, but by time it lacks frame"
        f" {lacking[clip.entry.id]} of the {clip.entry.length} of {_whose(clip)}, which begins at {clip.place:.2f}"
    )


def _lacks(film: Film, clips: list[_Clip], episode: int, frame: int) -> str:
    length = next(clip.entry.length for clip in clips if clip.entry.id == episode)
    lacks = f"the video {film.path} lacks frame {frame} of the {length} of episode {episode}"
    return f"{lacks}; copy it again or leave the episode out"


def _advice(film: Film, clips: list[_Clip], rate: float) -> str:
    if _other_rate(film, clips, rate):
        missing = sum(clip.entry.length for clip in clips) - len(film.stamps)
        short = f", and {missing} rows have no frame, so it may be cut short, too" if missing > 0 else ""
        return (
            f"Which frame belongs to which row cannot be told{short}. Correct `fps` in meta/info.json if a row was"
            f" recorded with every frame, or write the film again with one frame a row at {rate:g} Hz; else leave this"
            " camera out"
        )
    return (
        f"None of the {len(clips)} episodes of this film is read, since pictures of other rows could be taken; correct"
        " the times where clips begin (from_timestamp in meta/episodes), write the film again, or leave this camera out"
    )


def _whose(clip: _Clip) -> str:
    return f"episode {clip.entry.id}"
