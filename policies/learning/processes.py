"""How many processes a launcher was asked for: training takes one, and several would each take themselves for it.

`torchrun` on a machine without a GPU starts as many as asked, and each believes to be alone; `accelerate launch --cpu
--num_processes 2` starts one and says nothing. Both are told by what was asked for, not by what accelerate sees.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")  # of torchrun, accelerate, MPI
FLAGS = ("--num_processes", "--num-processes", "--nproc_per_node", "--nproc-per-node")


def refuse_several(environment: Mapping[str, str] | None = None, launcher: Sequence[str] | None = None) -> None:
    """Raise ValueError where a launcher was asked for more than one process.

    Args:
        environment: variables; default this process's.
        launcher: words of the command that started this process; default as the system tells.
    """
    environment = os.environ if environment is None else environment
    for name in SIZES:
        if environment.get(name, "").isdigit() and int(environment[name]) > 1:
            raise ValueError(f"{name} is {environment[name]}: {_ADVICE}")

    words = _parent() if launcher is None else list(launcher)
    if not any(Path(word).name.startswith(("accelerate", "torchrun")) for word in words[:3]):
        return
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, equals, value = word.partition("=")
        count = value if equals else following
        if flag in FLAGS and count.isdigit() and int(count) > 1:
            raise ValueError(f"{flag} {count} was asked for: {_ADVICE}")


_ADVICE = (
    "training here runs in one process, and several would each train on all data and write into one folder; start it"
    " by `understudy train` alone (other seeds or settings at the same time: understudy run, --workers)"
)


def _parent() -> list[str]:
    """The words of the command that started this process; none where the system does not tell."""
    try:
        return Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
