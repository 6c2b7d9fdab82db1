"""The processes that train together: one, or those that a launcher started, each with a part of every batch.

They take the same steps, and meet where one must not go on without the others. The first of them, the main one, alone
writes, prints and validates. What fails on one ends all: it says why, the others are quiet. Of one process nothing here
does anything.
"""

from __future__ import annotations

import gc
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from ...configs.devices import choose_device
from ...configs.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .feed import Order

Made = TypeVar("Made")
PATIENCE = timedelta(hours=6)  # how long processes wait for one another: the main one may have films to decode first
FAILED = 2  # exit status of a command that was refused


class Elsewhere(SystemExit):
    """Another process of the training said why it ends."""


class Lost(ConnectionError):
    """Another process of the training is gone."""


@dataclass(frozen=True)
class Crew:
    """This process among those that train together.

    Args:
        rank: its number, from 0.
        size: how many there are.
        device: where what they tell one another must lie.
    """

    rank: int = 0
    size: int = 1
    device: torch.device | str = "cpu"

    @property
    def main(self) -> bool:
        """Whether this one writes, prints and validates."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, in float64."""
        import torch

        return self._reduced(torch.tensor(values, dtype=torch.float64), "SUM").tolist()

    def any(self, *flags: bool) -> list[bool]:
        """Of each flag, whether it is true anywhere."""
        import torch

        if self.size == 1:
            return [*flags]
        return [bool(one) for one in self._reduced(torch.tensor(flags, dtype=torch.int64), "MAX").tolist()]

    def gathered(self, values: Tensor) -> list[Tensor]:
        """A tensor of equal shape on every process: all of them, in order."""
        import torch
        import torch.distributed as dist

        if self.size == 1:
            return [values]
        values = values.to(self.device)
        out = [torch.empty_like(values) for _ in range(self.size)]
        with _words():
            dist.all_gather(out, values)
        return [one.cpu() for one in out]

    def agree(self, told: Mapping[str, str]) -> None:
        """All must ask, with the same names.

        Args:
            told: what must be the same in all processes, by a name that may follow "has another".
        Raises:
            ValueError: in the main process, naming what differs and where. Elsewhere: in the others.
        """
        if self.size == 1:
            return
        import torch

        parts = [hashlib.sha256(value.encode()).digest()[:8] for value in told.values()]
        held = torch.tensor([int.from_bytes(part, "big", signed=True) for part in parts], dtype=torch.int64)
        first, *others = self.gathered(held)
        differs = {rank: [*(other != first).nonzero().flatten().tolist()] for rank, other in enumerate(others, 1)}
        names = [*told]
        said = [f"process {rank} has another {names[place]}" for rank, places in differs.items() for place in places]
        if said and not self.main:
            raise Elsewhere(FAILED)
        if said:
            raise ValueError(
                f"the processes would not train one policy: {', '.join(said)} than the first. Start the same command, "
                "of the same code and data, on every machine"
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """What fails inside on one process ends all; nothing inside may wait for another process."""
        if self.size == 1:
            yield
            return
        try:
            yield
        except BaseException:
            _, of_main = self.any(True, self.main)
            if of_main and not self.main:
                raise Elsewhere(FAILED) from None
            raise
        failed, _ = self.any(False, False)
        if failed:
            raise Elsewhere(FAILED)

    def in_turn(self, do: Callable[[], Made]) -> Made:
        """`do()` on the main process, then on the others, which find what it left in caches."""
        if self.size == 1:
            return do()
        done: list[Made] = []
        for turn in (self.main, not self.main):
            with self.together():
                if turn:
                    done.append(do())
        return done[0]

    def progress(self, what: str, total: int, done: int) -> Progress:
        """Progress in steps, shown by the main process."""
        return (Progress if self.main else _Silent)(what, total, "steps", done=done)

    def _reduced(self, values: Tensor, how: str) -> Tensor:
        import torch.distributed as dist

        if self.size == 1:
            return values
        values = values.to(self.device)
        with _words():
            dist.all_reduce(values, getattr(dist.ReduceOp, how))
        return values


ALONE = Crew()


class PartOrder:
    """Which windows of each step are this process's: every one is of one process."""

    def __init__(self, order: Order, crew: Crew):
        self._order, self._crew = order, crew

    def indices(self, step: int) -> Tensor:
        """(batch / size,) int64 positions, a function of the step alone."""
        return self._order.indices(step)[self._crew.rank :: self._crew.size]


@contextmanager
def crew_of(size: int, device: str) -> Iterator[Crew]:
    """Meet the other processes, and part from them at the end.

    Args:
        size: how many were asked for, see `processes.size_of`.
        device: as settings say it.

    Raises:
        ValueError: they do not come to be, or each has no device.
        Lost: another one is gone.
    """
    if size == 1:
        yield ALONE
        return
    from accelerate.state import PartialState

    if PartialState._shared_state:
        raise ValueError(
            "several processes do one training each time they are started: start the same command again for the next "
            "stage, or train in one process"
        )
    chosen = choose_device(device)
    _check_devices(device, chosen)
    state = PartialState(cpu=chosen == "cpu", timeout=PATIENCE)
    if state.num_processes != size:
        raise ValueError(f"{size} processes were asked for, but accelerate sees {state.num_processes}")
    crew = Crew(state.process_index, size, state.device)
    try:
        with _quiet(crew.main), _words():
            yield crew
    finally:
        leave()


def leave() -> None:
    """Part from the other processes, at the end of a command."""
    import torch.distributed as dist

    if dist.is_initialized():
        gc.collect()  # what still holds the group would keep its threads until the interpreter is gone
        dist.destroy_process_group()


def rank_seed(seed: int, rank: int) -> int:
    """The seed of what a process draws while it trains; that of the first is the training's own."""
    return seed if rank == 0 else (seed * 1_000_003 + 7_919 * rank) % 2**63


def packed(states: Mapping[str, Tensor], crew: Crew) -> dict[str, Tensor]:
    """The generators of all processes: those of the main one by their names, the others' as RANK/NAME."""
    if crew.size == 1:
        return dict(states)
    import torch

    own = {name: state for name, state in states.items() if name == "cpu" or name == _cuda(crew)}
    sizes = [len(state) for state in own.values()]
    names = ["cpu", *(["cuda"] if len(own) > 1 else [])]
    out = dict(states)
    for rank, joined in enumerate(crew.gathered(torch.cat([*own.values()]))):
        if rank:
            out |= {f"{rank}/{name}": part for name, part in zip(names, joined.split(sizes), strict=True)}
    return out


def unpacked(states: Mapping[str, Tensor], crew: Crew) -> dict[str, Tensor]:
    """What of `packed` is this process's."""
    if crew.main:
        return {name: state for name, state in states.items() if "/" not in name}
    own = {name.partition("/")[2]: state for name, state in states.items() if name.startswith(f"{crew.rank}/")}
    return {_cuda(crew) if name == "cuda" else name: state for name, state in own.items()}


def _cuda(crew: Crew) -> str:
    return f"cuda.{getattr(crew.device, 'index', None) or 0}"


def _check_devices(device: str, chosen: str) -> None:
    import torch

    if ":" in chosen:
        raise ValueError(f"--device {device} would be the GPU of every process; leave it out, each takes its own")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if chosen == "cuda" and here > torch.cuda.device_count():
        raise ValueError(
            f"{here} processes train here, and there are {torch.cuda.device_count()} GPUs: start one for each, or "
            "--device cpu"
        )


@contextmanager
def _words() -> Iterator[None]:
    """Say what it means that a message to another process could not be passed on."""
    import torch.distributed as dist

    try:
        yield
    except dist.DistError as error:
        raise Lost(_LOST) from error
    except RuntimeError as error:
        if isinstance(error, Lost) or not any(sign in str(error) for sign in _SIGNS):
            raise
        raise Lost(_LOST) from error


_SIGNS = ("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL error", "Broken pipe")
_LOST = (
    "another process of this training is gone (killed, or out of memory), so none can go on. What was saved is whole: "
    "start as many again, with --resume"
)


@contextmanager
def _quiet(main: bool) -> Iterator[None]:
    if main:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Silent(Progress):
    """Progress that another process shows."""

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *error) -> None:
        pass

    def _speak(self, note: str) -> None:
        pass
