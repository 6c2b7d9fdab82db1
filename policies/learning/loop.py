"""The one training loop: any `Trainable`, windows in, checkpoints out.

It knows nothing of policies or critics. Exactness: the order of batches is a function of (seed, epoch), noise comes
from torch's global generator, whose state is saved; so a run that was killed and resumed ends with the same bits.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...configs.devices import choose_device
from ...configs.ends import listening
from ...configs.files import replace_text
from ...configs.progress import Progress
from ...configs.protocols import keeps
from ..policy import Stepped
from .captured import CannotCapture, CapturedStep, CudaRecorder, Recorder, warn_uncaptured
from .checkpoint import TRAINING, load_weights, point, rotate, save_checkpoint
from .crew import ALONE, FAILED, Crew, Elsewhere, PartOrder, packed, unpacked
from .feed import Feed, Source
from .integrity import load_tensors
from .optimizer import Best, Optimize, generator_state, optimizer_state, restore_generators, restore_optimizer
from .parts import parts_of
from .sharing import Shared, part_like, take, whole
from .side_evaluation import Aside
from .state import read_rows, read_state
from .validate import account

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long to train and how often to do what, in steps."""

    steps: int
    log: int = 100
    validate: int = 1000
    save: int = 1000
    keep: int = 2  # newest checkpoints kept, besides `last` and `best`
    keep_every: int = 0  # multiples of this many steps are kept for good; 0: none


class BatchOrder:
    """Which windows make the batch of a step: shuffled epochs, a function of (seed, step) alone."""

    def __init__(self, count: int, batch: int, seed: int):
        if count < 1:
            raise ValueError("there is no window to train on")
        self.batch, self.count, self.seed = min(batch, count), count, seed
        self.per_epoch = count // self.batch
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def indices(self, step: int) -> Tensor:
        """(batch,) int64 positions of the windows of step `step`."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
            self._epoch, self._order = epoch, torch.randperm(self.count, generator=generator)
        return self._order[place * self.batch : (place + 1) * self.batch]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a polite kill came; everything up to the step in hand is saved."""


class Objective(nn.Module):
    """A trainable's loss as a forward pass, which is what distributed wrappers synchronise."""

    def __init__(self, trainable: nn.Module):
        super().__init__()
        self.trainable = trainable

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        return self.trainable.loss(batch)


def open_accelerator(cpu: bool, precision: str, crew: Crew = ALONE) -> Accelerator:
    """accelerate has one state a process; that of an earlier training here, which computed otherwise, is given up."""
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    if crew.size > 1:
        os.environ.pop("ACCELERATE_USE_FSDP", None)  # weights are shared out here, see `sharing.py`
        AcceleratorState._reset_state()  # of an earlier stage; the processes stay together
        ways = [DistributedDataParallelKwargs(find_unused_parameters=True)]
        return Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=ways)
    if AcceleratorState._shared_state:
        state = AcceleratorState()
        other = state.mixed_precision != precision or (state.device.type == "cpu") != cpu
        if other and state.num_processes == 1:
            AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=cpu, mixed_precision=precision)


class Loop:
    """Trains `model` on batches until `pace.steps`.

    Args:
        model: an `nn.Module` that is a `Trainable`.
        gather: (B,) window positions -> batch; or windows that are held on the device.
        order: which windows come when.
        run: folder for checkpoints, metrics.jsonl and tb/.
        save: (folder, acting model, tensors, documents) -> None, writes one checkpoint.
        validate: acting model -> named scalars.
        aside: judges checkpoints in a process of its own.
        captured: record the step and replay it, where it computes on a GPU.
        recorder: what records it; by default CUDA graphs.
        crew: the processes that train together; `order` says the windows of them all.
        accumulate: in how many parts, one after the other, a process computes its windows of a step.
        shard: share the weights out among the processes.
    """

    def __init__(
        self,
        model: nn.Module,
        gather: Source,
        order: BatchOrder,
        *,
        optimize: Optimize,
        pace: Pace,
        run: Path,
        description: dict,
        validate: Callable[[nn.Module], dict[str, float]],
        device: str = "auto",
        precision: str = "no",
        best: Best = Best.action_error,
        transform: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
        wandb: bool = False,
        aside: Aside | None = None,
        captured: bool = False,
        recorder: Recorder | None = None,
        crew: Crew = ALONE,
        accumulate: int = 1,
        shard: bool = False,
    ):
        chosen = choose_device(device)
        if ":" in chosen:
            torch.cuda.set_device(chosen)
        self.accelerator, self.crew = open_accelerator(chosen == "cpu", precision, crew), crew
        mine = order if crew.size == 1 else PartOrder(order, crew)
        self.model, self.feed, self.accumulate = model, Feed(gather, mine, self.accelerator.device), accumulate
        self.optimize, self.pace, self.run, self.description = optimize, pace, run, description
        self.validate, self.transform, self.mark = validate, transform or (lambda batch: batch), best
        model.to(self.accelerator.device)
        self.objective, self._shared = Objective(model), None
        if shard and crew.size > 1:
            self.average = optimize.average(model)
            self._shared = Shared(self.objective, Objective(self.average.module), self.average.module, crew)
            self.optimizer = self._stepper = optimize.build(model)
        else:
            self.optimizer = optimize.build(model)
            self.average = optimize.average(model)
            self.objective, self._stepper = self.accelerator.prepare(self.objective, self.optimizer)
        self.step, self.best, self.seconds = 0, float("inf"), 0.0
        self.validated: dict[str, float] = {}  # scalars of the last validation
        self.log = MetricLog(run, wandb, written=crew.main)
        self.aside = aside if aside and crew.main else Aside()
        self._captures, self._recorder = captured or recorder is not None, recorder
        self._captured: CapturedStep | None = None
        self._stop = False

    @property
    def is_shared(self) -> bool:
        """Whether each process holds a part of the weights alone."""
        return self._shared is not None

    def fit(self) -> None:
        """Train to the end.

        Raises:
            Interrupted: Ctrl-C, SIGTERM or SIGHUP; the state is saved.
            FloatingPointError: the loss is not finite; names the batch.
        """
        self.capture()
        with listening(self._interrupt):
            try:
                with self.crew.progress("training", self.pace.steps, done=self.step) as progress:
                    while self.step < self.pace.steps:
                        self._advance(progress)
                self.aside.wait(lambda: self._stop)
                if self._stop and self.aside.busy:
                    raise Interrupted(
                        f"trained, but not judged to the end; for that: understudy train --resume {self.run}"
                    )
            finally:
                self.aside.stop()
                self.log.close()

    def _advance(self, progress: Progress) -> None:
        began = time.perf_counter()
        self.take_step()
        last = self.step == self.pace.steps
        if self._captured and self._is_due(last):
            self._take_in(self._captured)
        self.seconds += time.perf_counter() - began
        if self.step % self.pace.log == 0 or last:
            self.log.write(self.step, self.log.collected() | {"rate": progress.rate, "seconds": self.seconds})
        progress.update(self.step, f"loss {self.log.loss:.4g}")
        fresh_best = (self.step % self.pace.validate == 0 or last) and self._validate()
        stop, fresh_best, judged = self.crew.any(self._stop, fresh_best, self.aside.due(self.step))
        if self.step % self.pace.save == 0 or last or fresh_best or judged or stop:
            self._save(fresh_best, judged)
        self.aside.poll()
        if stop and not last:
            raise Interrupted(
                f"stopped at step {self.step} and saved; go on with: understudy train --resume {self.run}"
            )

    def capture(self) -> None:
        """Record the step from here on, where that is asked for and possible here."""
        if not self._captures or (self._recorder is None and self.accelerator.device.type != "cuda"):
            return
        self._captured = CapturedStep(
            self.objective, self.model, self.optimizer, self.average, optimize=self.optimize, feed=self.feed,
            transform=self.transform, recorder=self._recorder or CudaRecorder(),
        )  # fmt: skip

    def take_step(self) -> None:
        """One step: as always, or a recorded one, whose numbers stay on the device until they are due."""
        if self._captured:
            try:
                self._captured.step(self.step, self.optimize.rate(self.step, self.pace.steps))
                self.step += 1
                return
            except CannotCapture as error:
                warn_uncaptured(error)
                self._take_in(self._captured)
                self._captured.release()
                self._captured = None
        scalars = self.train_step()
        self.step += 1
        self.log.collect(scalars)

    def _is_due(self, last: bool) -> bool:
        """Whether the numbers of recorded steps are wanted: before anything is written."""
        paces = (self.pace.log, self.pace.validate, self.pace.save)
        return last or self._stop or self.aside.due(self.step) or any(self.step % pace == 0 for pace in paces)

    def _take_in(self, captured: CapturedStep) -> None:
        """Read what recorded steps left on the device. Raises FloatingPointError."""
        broken = captured.broken
        if broken is not None:
            raise _not_finite("not finite", broken, self.feed(broken))
        self.log.collect(*captured.read())

    def train_step(self) -> dict[str, float]:
        rate = self.optimize.rate(self.step, self.pace.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("pace", 1.0)

        batch = self.feed(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        scalars = self._add_gradients(batch)
        norm = nn.utils.clip_grad_norm_(self.objective.parameters(), self.optimize.clip_norm)
        self._stepper.step()

        if keeps(self.model, Stepped):  # target networks follow
            self.model.stepped()
        self.average.update_parameters(self.model)
        norm = whole({"norm": norm})["norm"]
        loss = scalars.pop("loss")
        return {"loss": loss, "gradient_norm": float(norm), "lr": rate, **scalars}

    def _add_gradients(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Gradients of the loss of a step's windows, of all processes; its numbers. Raises FloatingPointError."""
        parts = parts_of(self.model, self.transform(batch), self.accumulate, self.crew)
        sums: dict[str, float] = {}
        for place, (part, share) in enumerate(parts):
            with self._computing(meets=place == len(parts) - 1):
                loss, scalars = self.objective(part)
                self.accelerator.backward(loss if share == 1 else loss * (share * self.crew.size))
            for name, value in ({"loss": loss.item()} | scalars).items():
                sums[name] = sums.get(name, 0.0) + share * value

        own, names = sums["loss"], sorted(sums)
        if self.crew.size > 1:
            sums = dict(zip(names, self.crew.total([sums[name] for name in names]), strict=True))
        if not math.isfinite(own):
            raise _not_finite(str(own), self.step, batch)
        if not math.isfinite(sums["loss"]):
            raise Elsewhere(FAILED)
        return sums

    def _computing(self, meets: bool) -> AbstractContextManager:
        """How a part of a step is computed; `meets`: gradients of all processes are put together after it."""
        if self._shared:
            return self.accelerator.autocast()
        return nullcontext() if meets else self.accelerator.no_sync(self.objective)

    def _acting(self) -> nn.Module | None:
        """The averaged model, whole, on the main process."""
        if self._shared:
            return self._shared.acting(self.average.module, self.accelerator.device)
        return self.average.module if self.crew.main else None

    def _validate(self) -> bool:
        """Validate the averaged weights; is this the best so far?"""
        acting, better = self._acting(), False
        with self.crew.together():
            if acting is not None:
                better = self._judge(acting.eval())
        return better

    def _judge(self, acting: nn.Module) -> bool:
        """Validate without disturbing the generators; is this the best so far?"""
        state = generator_state()
        with torch.no_grad():
            scalars = {f"validation/{name}": value for name, value in self.validate(acting).items()}
        restore_generators(state)
        self.log.write(self.step, scalars)
        self.validated = scalars
        if self.step < self.pace.steps and (line := account(self.step, scalars)):  # the end has words of its own
            print(line, flush=True)
        ranked = {Best.action_error: ("action_error", "loss"), Best.loss: ("loss",), Best.none: ()}[self.mark]
        score = next((scalars[f"validation/{n}"] for n in ranked if f"validation/{n}" in scalars), float("inf"))
        better = score < self.best
        self.best = min(score, self.best)
        return better

    def _save(self, best: bool, judged: bool = False) -> None:
        acting = self._acting()
        tensors, groups = optimizer_state(self.optimizer)
        parts = {
            "weights.safetensors": whole(self.model.state_dict()),
            "optimizer.safetensors": whole(tensors),
            "rng.safetensors": packed(generator_state(), self.crew),
        }
        with self.crew.together():
            if acting is not None:
                self._write(acting, parts, groups, best, judged)

    def _write(self, acting: nn.Module, parts: dict, groups: dict, best: bool, judged: bool) -> None:
        folder = self.run / "checkpoints" / f"{self.step:08d}"
        progress = {"step": self.step, "best": self.best, "seconds": self.seconds}
        progress |= {"averaged": int(self.average.n_averaged), "marked": bool(best)}

        save_checkpoint(
            folder,
            acting,
            tensors=parts,
            documents={"optimizer.json": groups, "progress.json": progress},
            **self.description,
        )

        if best:  # before `last`, from which a killed run goes on: what comes after a checkpoint may be lost
            point(self.run, "best", folder)
        point(self.run, "last", folder)
        if judged:
            self.aside.submit(folder)
        rotate(self.run, self.pace.keep, self.pace.keep_every, self.aside.held)

    def restore(self, folder: Path) -> None:
        """Go on exactly where the checkpoint `folder` was written.

        Raises:
            CheckpointError: a part that is missing, damaged or of another training; nothing is written.
        """
        with self.crew.together():
            state = read_state(folder, self.model, self.optimizer)
            generators = unpacked(state.generators, self.crew)
        self._load(self.model, folder / TRAINING / "weights.safetensors")
        self._load(self.average.module, folder / "model.safetensors")
        moments = state.optimizer
        if self._shared:
            held = [value for group in self.optimizer.param_groups for value in group["params"]]
            moments = {name: _moment(name, value, held) for name, value in moments.items()}
        restore_optimizer(self.optimizer, moments, state.groups)
        self.step, self.best, self.seconds = state.step, state.best, state.seconds
        self.average.n_averaged.fill_(state.averaged)
        if state.marked and self.crew.main and not (self.run / "best").exists():  # killed before the link was made
            point(self.run, "best", folder)
        self.log.forget_after(self.step)
        restore_generators(generators)
        self.aside.resume(self.step)

    def _load(self, model: nn.Module, file: Path) -> None:
        if self._shared:
            take(model, load_tensors(file))
        else:
            load_weights(model, file)

    def _interrupt(self) -> None:
        self._stop = True


def _moment(name: str, value: Tensor, parameters: list[Tensor]) -> Tensor:
    """A moment shared out as its parameter is; names are "<parameter>.<name>"."""
    index, _, what = name.partition(".")
    return value if what == "step" else part_like(parameters[int(index)], value)


def _not_finite(value: str, step: int, batch: Mapping[str, Tensor]) -> FloatingPointError:
    """What is wrong where the loss of a step is no number."""
    episodes = sorted(set(batch["episode"].tolist())) if "episode" in batch else []
    return FloatingPointError(
        f"loss is {value} at step {step}; dataset rows {batch['index'].tolist()}, episodes {episodes}. "
        "The last checkpoint is untouched; look at these rows, or lower the learning rate"
    )


class MetricLog:
    """metrics.jsonl, one line a record; TensorBoard where installed; wandb where asked. `written`: by this process."""

    def __init__(self, run: Path, wandb: bool = False, written: bool = True):
        self.path, self._written = run / "metrics.jsonl", written
        self._sums: dict[str, float] = {}
        self._count, self.loss = 0, float("nan")
        self._board = self._wandb = None
        if not written:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            SummaryWriter = None
        if SummaryWriter is not None:
            self._board = SummaryWriter(str(run / "tb"))
        if wandb:
            import wandb as client

            try:
                self._wandb = client.init(project="understudy", name=run.name, dir=str(run), resume="allow")
            except client.errors.Error as error:
                raise ValueError(f"--wandb: {error} Or leave it out; metrics.jsonl has the same numbers") from error

    def collect(self, scalars: Mapping[str, float], steps: int = 1) -> None:
        """Take in numbers of a step, or means of several."""
        self._count += steps
        self.loss = scalars.get("loss", self.loss)
        for name, value in scalars.items():
            self._sums[name] = self._sums.get(name, 0.0) + (value if steps == 1 else steps * value)

    def collected(self) -> dict[str, float]:
        """Means since the last call."""
        means = {name: total / max(self._count, 1) for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        if not self._written:
            return
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")
        for name, value in scalars.items():
            if self._board is not None:
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(scalars), step=step)

    def forget_after(self, step: int) -> None:
        """Drop what a killed run wrote after its last checkpoint, and with a warning lines that cannot be read."""
        if self._written and self.path.exists():
            rows = read_rows(self.path)
            replace_text(self.path, "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()
