"""`understudy train`: begin a training, or go on with one. The composition root of learning."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import draccus

from ...configs.devices import choose_device, choose_precision, computes_bf16
from ...configs.files import clear_leftovers
from ...configs.machine import versions
from ...configs.owner import InUseError, Owned, owned
from ...configs.parse import parse
from ...configs.settings.fields import default_of
from ...configs.settings.shipped import is_config
from ...configs.sources import our_code
from .account import announce_change, compare_with_guesses
from .checks import check_names
from .crew import Crew, Elsewhere, crew_of
from .doors import (
    changed,
    check_body,
    check_dataset,
    is_whole,
    read_begun,
    read_settings,
    replaced,
    warn_of_edits,
    write_settings,
)
from .links import step_of
from .loop import Interrupted, Loop
from .pinned import check_inside
from .places import check_free, clear, locate
from .possible import Possible, assemble, check_fits, open_data, prepare, write_run
from .processes import check_launcher, size_of
from .settings import Settings, take_resume
from .stages import Staged, staged

# settings that may be others on each machine; what data and weights hold is compared, or sent by the first process
OF_MACHINES = ("data", "embodiment", "out", "device", "threads", "resident_gb", "eval", "eval_workers", "init", "wandb")
INTERRUPTED = 130  # exit status of a process whose training another one was asked to end


@dataclass(frozen=True, kw_only=True)
class Train(Settings):
    """Train a policy on demonstrations, a critic on what succeeded and what did not, or a world model on both."""

    @classmethod
    def from_words(cls, words: list[str]) -> Train | Resume | Staged:
        """A training, one of several stages, or with --resume the words that stand beside it."""
        resume = take_resume(words)
        if resume is not None:
            return Resume(resume, tuple(words))
        path = words.pop(0) if words and is_config(words[0]) else None
        if path and (stages := staged(path, words, _train_stage, resume_run)):
            stages.check(partial(parse, cls))
            return stages
        config = parse(cls, path, words)
        if config.resume is not None and path is not None:
            raise ValueError(f"--resume takes the settings of its run; {path} is not read. Leave it out")
        return config

    def run(self) -> None:
        if self.resume:
            fields = [item for item in dataclasses.fields(self) if item.name != "resume"]
            changes = {item.name: getattr(self, item.name) for item in fields}
            asked = {item.name for item in fields if changes[item.name] != default_of(item)}
            resume_run(self.resume, {name: changes[name] for name in sorted(asked)})
        else:
            start_run(self)


@dataclass(frozen=True)
class Resume:
    """`train --resume RUN`: go on with a run, or from one of its checkpoints."""

    path: Path  # run or RUN/checkpoints/STEP
    words: tuple[str, ...]  # beside --resume

    def run(self) -> None:
        resume_run(self.path, self.words)


def start_run(config: Train) -> None:
    """Train from the beginning. Refuses a run folder that holds something; one refused later leaves none.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: before anything heavy is done.
    """
    config.check()
    check_names(config)
    check_launcher(config)
    with crew_of(size_of(config.processes), config.device) as crew:
        _start(config if crew.size == 1 else dataclasses.replace(config, processes=crew.size), crew)


def _start(config: Train, crew: Crew) -> None:
    config, run = _settle_precision(config, crew), config.folder
    with crew.together():
        if crew.main:
            check_free(run, lambda run: is_whole(run, Train))
    possible = crew.in_turn(lambda: _found_possible(config, run))
    _check_alike(config, possible, crew)
    with ExitStack() as held:
        with crew.together():
            if crew.main:
                held.enter_context(_alone(run))
                check_free(run, lambda run: is_whole(run, Train))  # another may have begun in the meantime
                clear(run)
                write_run(possible)
        try:
            loop = assemble(possible, crew)
            check_fits(possible, loop)
        except (Exception, Elsewhere):  # nothing is trained: the same command may be tried again
            if crew.main:
                clear(run)
            raise
        _fit(loop, config)


def _settle_precision(config: Train, crew: Crew) -> Train:
    """The settings with what `auto` stands for on these machines, which a resumed training keeps."""
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    lacks = crew.any(precision == "no")[0]
    if config.precision == "auto" and lacks:  # all compute alike
        precision = "no"
    settled = dataclasses.replace(config, precision=precision)
    if crew.main and not computes_bf16(device):
        if config.precision == "bf16":
            slow = f"this {device} has no instructions for bf16, which take several times as long as float32"
            print(f"note: {slow}; --precision auto trains in float32 here", file=sys.stderr)
        elif config.precision == "auto":
            print(f"trains in float32: this {device} has no instructions for bf16")
    return settled


def _found_possible(config: Train, run: Path) -> Possible:
    possible = prepare(config, open_data(config), run)
    check_inside(config, possible.dataset, possible.task_spec, possible.training)
    return possible


def _check_alike(config: Train, possible: Possible, crew: Crew) -> None:
    """Refuse processes that would train something else. Raises ValueError in the main one, Elsewhere in the others."""
    if crew.size == 1:
        return
    settings = {name: value for name, value in draccus.encode(config).items() if name not in OF_MACHINES}
    crew.agree(
        {
            "code of understudy": our_code(),
            "version of torch": versions("torch")["torch"],
            "dataset": possible.dataset.fingerprint,
            "value of a setting": json.dumps(settings, sort_keys=True, default=str),
        }
    )


def _train_stage(file: str, words: list[str]) -> None:
    """One stage of several, from its beginning."""
    start_run(parse(Train, file, words))


def resume_run(path: Path, beside: Sequence[str] | Mapping[str, object] = ()) -> None:
    """Go on with a run from its last checkpoint, bit for bit as if it had not stopped.

    Args:
        path: run folder, or one of its checkpoints.
        beside: words of the command line, or settings by name, that are to be changed.

    Raises:
        ValueError, FileNotFoundError: naming a flag that cannot be changed, a changed dataset, a damaged file.
    """
    path = Path(os.path.expandvars(path))
    run, checkpoint = locate(path)
    before = read_settings(run, Train)
    config = replaced(run, before, beside) if isinstance(beside, Mapping) else changed(run, before, beside)
    size = size_of(before.processes or 1, f"{run}, as it began,")
    check_launcher(config)
    with crew_of(size, config.device) as crew:
        _go_on(run, checkpoint, before, config, crew)


def _go_on(run: Path, checkpoint: Path | None, before: Train, config: Train, crew: Crew) -> None:
    begun = read_begun(run)
    warn_of_edits(run, begun)
    moved = [f"--{name}" for name in ("data", "embodiment") if getattr(config, name) != getattr(before, name)]

    def found_possible() -> Possible:
        dataset = open_data(config)
        check_dataset(run, begun, dataset, moved)
        if checkpoint is not None:
            check_body(run, checkpoint, dataset.embodiment, config.learner.inputs)
        return prepare(config, dataset, run, checkpoint=checkpoint, begun=begun)

    with ExitStack() as held:
        with crew.together():
            if crew.main:
                held.enter_context(_alone(run))
                clear_leftovers(run)  # half-made links of a killed training
        possible = crew.in_turn(found_possible)
        _check_alike(config, possible, crew)
        loop = assemble(possible, crew)
        check_fits(possible, loop)
        if checkpoint is not None:
            at = step_of(checkpoint)
            if config.steps != before.steps and at is not None and config.steps < at:
                raise ValueError(f"{run} is at step {at} already; --steps {config.steps} would go back")
            loop.restore(checkpoint)
            print(f"resuming {run} at step {loop.step} of {config.steps}")
        else:
            print(f"{run} has no checkpoint yet; training from the beginning")
            loop.log.forget_after(0)
        if config != before and crew.main:
            write_settings(run, draccus.dump(config))
            announce_change(before, config, loop.step)
        _fit(loop, config)


def _alone(run: Path) -> Owned:
    """Take a run folder, which is made, for this training. Raises ValueError where another one works in it."""
    run.mkdir(parents=True, exist_ok=True)
    try:
        return owned(run)
    except InUseError as error:
        raise ValueError(
            f"another `understudy train` works in {run}; wait for it, stop it, or choose another --out"
        ) from error


def _fit(loop: Loop, config: Train) -> None:
    started, began, cpu = loop.seconds, loop.step, sum(os.times()[:2])
    try:
        loop.fit()
    except Interrupted:
        if loop.crew.main:
            raise
        raise Elsewhere(INTERRUPTED) from None
    wall, cpu = loop.seconds - started, sum(os.times()[:2]) - cpu
    print(f"trained to step {loop.step} in {wall:.0f} s ({cpu:.0f} CPU s); checkpoint {loop.run / 'last'}")
    if loop.crew.size > 1 and wall:
        print(f"{loop.crew.size} processes: {(loop.step - began) * config.whole_batch / wall:.3g} windows/s together")
    compare_with_guesses(loop.validated)
