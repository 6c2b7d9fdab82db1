"""How many processes a training was asked for, and how many are there: told by the environment, before torch is there.

`accelerate launch --cpu --num_processes 2` starts one process and says nothing, and so may a launcher of another
cluster. So what was asked for, by a flag or by the words of the launcher, is compared with what came to be.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")  # of torchrun, accelerate, MPI
RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
FLAGS = ("--num_processes", "--num-processes", "--nproc_per_node", "--nproc-per-node")
OTHERS = {  # what `accelerate launch` hands on that training does by no means
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
HOW = (
    "start N processes by `accelerate launch --multi_gpu --num_processes N -m understudy train ...` (without a GPU, "
    "too: with --cpu accelerate starts one), or by `torchrun --nproc_per_node N -m understudy train ...`; "
    "one process by `understudy train` alone"
)


def is_main(environment: Mapping[str, str] | None = None) -> bool:
    """Whether this process is the only one, or the first of several."""
    rank, _ = _first(RANKS, os.environ if environment is None else environment)
    return rank in (None, 0)


def size_of(
    asked: int | None,
    by: str = "--processes",
    environment: Mapping[str, str] | None = None,
    launcher: Sequence[str] | None = None,
) -> int:
    """How many processes train together.

    Args:
        asked: how many there must be; by default as many as the launcher was asked for.
        by: who asked.
        environment: variables; default this process's.
        launcher: words of the command that started this process; default as the system tells.

    Raises:
        ValueError: as many as were asked for are not there.
    """
    environment = os.environ if environment is None else environment
    size, name = _first(SIZES, environment)
    size = size or 1
    if size > 1 and _first(RANKS, environment)[0] is None:
        raise ValueError(f"{name} is {size}, but RANK does not say which of them this process is: unset it, or {HOW}")

    if size == 1:  # of a launcher that was asked for several, its words alone tell
        words = _parent() if launcher is None else list(launcher)
        flag, wanted = _wanted(words)
        if wanted > 1:
            raise ValueError(f"{flag} {wanted} was asked for, and one process was started: {HOW}")
    if asked is not None and asked < 1:
        raise ValueError(f"--processes {asked}: at least one trains")
    if asked is not None and asked != size:
        here = "one is" if size == 1 else f"{size} are"
        raise ValueError(f"{by} asks for {asked} process{'es' if asked > 1 else ''}, and {here} here: {HOW}")
    return size


def check_launcher(settings: Any, environment: Mapping[str, str] | None = None) -> None:
    """Refuse what `accelerate launch` was asked for and the settings of a training say otherwise.

    Raises:
        ValueError: naming both.
    """
    environment = os.environ if environment is None else environment
    for name, what in OTHERS.items():
        if _is_on(environment.get(name)):
            raise ValueError(f"accelerate was asked for {what}, by which understudy does not train; leave it out")

    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision not in ("no", settings.precision):
        raise ValueError(
            f"accelerate was asked for mixed precision {precision}, the training for {settings.precision}: say "
            "--precision bf16, or --mixed_precision no to accelerate"
        )
    steps = environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps not in ("1", "auto", str(settings.accumulate)):
        raise ValueError(
            f"accelerate was asked to accumulate {steps} gradients, the training {settings.accumulate}: say "
            f"--accumulate {steps}, or leave it out for both"
        )
    if _is_on(environment.get("ACCELERATE_USE_FSDP")) and not settings.shard:
        raise ValueError(
            "accelerate was asked for FSDP, the training was not: say --shard true, or leave --use_fsdp out"
        )
    backend = environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if backend != "no":
        raise ValueError(f"accelerate was asked to compile by {backend}, which training does not; leave it out")


def _first(names: Sequence[str], environment: Mapping[str, str]) -> tuple[int | None, str]:
    """The first of some variables that holds a number, and its name; a 1 only if no other says more."""
    told = [(int(environment[name]), name) for name in names if environment.get(name, "").isdigit()]
    return max(told, default=(None, names[0]), key=lambda one: one[0])


def _wanted(words: Sequence[str]) -> tuple[str, int]:
    """(flag, number of processes) in the words of a launcher, or in the file that accelerate reads; 1 where none is."""
    launchers = [
        place for place, word in enumerate(words[:3]) if Path(word).name.startswith(("accelerate", "torchrun"))
    ]
    if not launchers:
        return "", 1
    words, file = words[launchers[-1] + 1 :], None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, equals, value = word.partition("=")
        value = value if equals else following
        if flag in FLAGS and value.isdigit():
            return flag, int(value)
        if flag in ("--config_file", "--config-file"):
            file = Path(value)
        if flag == "-m" or flag.endswith(".py"):
            break
    return _filed(file)


def _filed(file: Path | None) -> tuple[str, int]:
    """What the file of `accelerate config` says."""
    import yaml

    cache = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    file = (file or Path(cache) / "accelerate" / "default_config.yaml").expanduser()
    try:
        told = yaml.safe_load(file.read_text())
        return f"num_processes of {file}", int(told["num_processes"])
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError):
        return "", 1


def _is_on(value: str | None) -> bool:
    return (value or "").lower() in ("1", "true", "yes")


def _parent() -> list[str]:
    """The words of the command that started this process; none where the system does not tell."""
    try:
        return Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
