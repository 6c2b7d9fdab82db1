"""The settings of `understudy train`, read and checked before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ...configs.devices import PRECISIONS
from ...configs.protocols import keeps
from ...configs.settings.outline import is_outline
from ...configs.settings.refusals import UsageError
from ..data.corrections import Corrections
from ..data.task_spec import TaskSpec
from ..data.weighting import Weighting
from ..kinds import CriticConfig, PolicyConfig, WorldModelConfig
from .optimizer import Best, Optimize

LEARNERS = {"policy": "policy", "critic": "critic", "world_model": "world"}  # setting -> kind of its checkpoints
NOTHING = (
    "give the dataset and one thing to train: --data DATA --policy.type diffusion; or a config with `policy` and "
    "`data`, for example configs/train/pusht.yaml, or with `critic` and `data`, for example "
    "configs/train/value_iql.yaml, or with `world_model` and `data`, for example configs/train/dream_pusht.yaml; and "
    "only one of them"
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Train a policy on demonstrations, a critic on what succeeded and what did not, or a world model on both."""

    RENAMED: ClassVar[dict[str, str]] = {"piece": "task_spec"}  # former names that are still read

    DISCOVER: ClassVar[tuple[str, ...]] = ("policies", "world_models")

    data: str = ""  # the LeRobot dataset: a folder, a name on the hub, or several as one: A,B
    episodes: str = "all"  # the episodes that are read, such as 0-5,7-9; of several datasets a part for each: 0-5;all
    without: str = ""  # the episodes that are left out, such as 6
    columns: dict[str, list[str] | str] = field(
        default_factory=dict
    )  # columns read under another name: {action: actions, observation.state: [a, b]}
    policy: PolicyConfig | None = None  # type of the policy that is trained
    critic: CriticConfig | None = None  # type of the critic (ranks action chunks) that is trained in place of a policy
    world_model: WorldModelConfig | None = None  # type of the world model that is trained in place of a policy
    out: Path | None = None  # the folder of the run, which must be new; by default runs/NAME of the dataset
    name: str = ""  # what reports call the policy; by default the path of its run
    steps: int = 20_000  # optimiser steps
    batch: int = 256  # training windows in each step, of each process where several train
    shares: str = (
        ""  # with --data A,B: the shares of each batch from A and B, such as 2,1; by default one pool of windows
    )
    weighting: Weighting | None = None  # draws windows of good episodes more often; by default all alike
    # what is learned from recordings with take-overs (bool column `intervention`): --corrections.weight of a person's
    # steps, --corrections.own of the policy's; by default, where somebody took over, a person's steps alone
    corrections: Corrections | None = None
    optimize: Optimize = Optimize()
    task_spec: TaskSpec | None = None  # file with the action scale (and mirror symmetry) that policies of a task share
    scale: str | None = None  # takes the action scale from a file, or from an earlier run: from:RUN
    mirror: bool = False  # mirrors a random half of each batch, by the symmetry that the task spec states
    embodiment: Path | None = None  # file that says names, units and rate of the robot where the dataset does not
    validation: float = 0.05  # share of the episodes that is held out, to measure errors on
    seed: int = 0  # seed of the initial weights, the order of batches and the noise
    device: str = "auto"  # where to compute: auto (a GPU if there is one) | cpu | cuda | cuda:N
    precision: str = (
        "no"  # the forward pass in float32 (no), in bf16, or auto: bf16 where the device has it; acting is in float32
    )
    resident_gb: float | None = None  # GB of data held on the device, the rest is streamed; default half of a GPU
    captured: bool = False  # on a GPU: record the training step as a CUDA graph and replay it (new: see docs/vision.md)
    threads: int | None = None  # CPU threads that torch uses; by default all cores
    processes: int | None = (
        None  # processes that must train together; by default as many as their launcher was asked for
    )
    accumulate: int = 1  # batches, one after the other, whose gradients make one step; a step takes them all
    shard: bool = False  # several processes: each keeps a part of weights and moments (FSDP) in place of all (DDP)
    best: Best = Best.action_error  # which held-out error marks the checkpoint `best`: action_error | loss | none
    log_every: int = 100  # steps between lines of metrics.jsonl
    validate_every: int = 1000  # steps between measurements on the held-out episodes
    save_every: int = 1000  # steps between checkpoints
    keep: int = 2  # how many of the newest checkpoints are kept, beside `best` and `last`
    keep_every: int = 0  # keeps the checkpoints at multiples of this step for good; 0: none
    eval: Path | None = None  # config of `understudy eval` by which checkpoints act as training goes on; marks `best`
    every: int = 1000  # with --eval: steps between checkpoints that act
    eval_episodes: int | None = None  # with --eval: episodes of each evaluation; by default as its config says
    eval_seed: int = 0  # with --eval: first evaluation seed; 0-999 are for choosing among policies
    eval_workers: int = 0  # with --eval: processes that simulate; results do not depend on it
    init: Path | None = None  # starts from the weights of this run or checkpoint (fine-tuning)
    freeze: tuple[str, ...] = ()  # parts that training leaves as they are: eyes, network, or deeper: network.layers.0
    resume: Path | None = None  # goes on with this run exactly, by its own settings; --steps trains it longer
    wandb: bool = False  # logs to Weights & Biases too

    @property
    def learner(self) -> PolicyConfig | CriticConfig | WorldModelConfig:
        """What is trained."""
        return getattr(self, self.learns)

    @property
    def learns(self) -> str:
        """Which of the settings says what is trained."""
        return next(name for name in LEARNERS if getattr(self, name) is not None)

    @property
    def whole_batch(self) -> int:
        """Windows of a step, of all processes."""
        return self.batch * self.accumulate * (self.processes or 1)

    @property
    def folder(self) -> Path:
        """The folder of the run: as asked, else by the name of the dataset."""
        return self.out or Path("runs") / Path(self.data.rstrip("/")).name

    def check(self) -> None:
        """Raise ValueError unless there is data, and one thing to train that can be trained."""
        from ..data.mixing import check_shares, shares_of

        if not self.data or sum(getattr(self, name) is not None for name in LEARNERS) != 1:
            raise ValueError(NOTHING)
        if self.world_model is not None:
            self._check_world_model()
        if self.critic is not None and _is_ready(self.critic):
            kind = self.critic.get_choice_name(type(self.critic))
            raise ValueError(f"'{kind}' needs no training: understudy eval --candidates 10 --critic {kind}")
        if self.critic is not None and self.eval is not None:
            raise ValueError("`eval` lets what is trained act, but a critic does not; leave it out")
        if self.precision not in PRECISIONS:
            raise ValueError(f"--precision {self.precision}: known are {', '.join(PRECISIONS)}")
        if self.accumulate < 1:
            raise ValueError(f"--accumulate {self.accumulate}: a step takes at least one batch")
        if self.captured and (self.accumulate > 1 or (self.processes or 1) > 1):
            raise ValueError("--captured records a step of one batch and process; leave it out")
        if self.corrections is not None:
            self._check_corrections(self.corrections)
        check_shares(shares_of(self.shares), len(self.data.split(",")), self.weighting is not None, self.batch)

    def _check_corrections(self, corrections: Corrections) -> None:
        if self.policy is None:
            raise ValueError(
                "`corrections` are of policies: critics and world models learn from all steps; leave it out"
            )
        if not getattr(self.policy, "mask_padding", False):
            raise ValueError(
                "`corrections` need a policy that leaves out actions after the end of a recording (policy.mask_padding "
                "true): it would learn to stand still where a person handed back"
            )
        if getattr(self.policy, "rewards", None) is not None:
            raise ValueError("`corrections`: this policy learns from outcomes, for which all steps count; leave it out")
        if corrections.weight in (0, 1) and corrections.own in (0, 1):
            return
        for name in ("weighting", "shares"):
            if getattr(self, name):
                raise ValueError(
                    f"`corrections` with other weights than 0 and 1 and `{name}` both say how often a window is drawn; "
                    "leave one of them out"
                )

    def _check_world_model(self) -> None:
        for name in ("weighting", "eval", "shares"):
            if getattr(self, name):
                raise ValueError(f"`{name}` is of policies; a world model does not take it, leave it out")
        if self.mirror:
            raise ValueError("`mirror` is of policies: a world model's pictures are not mirrored yet; leave it out")


def kind_of(learner: PolicyConfig | CriticConfig | WorldModelConfig) -> str:
    """What the checkpoints of a training hold."""
    bases = {PolicyConfig: "policy", CriticConfig: "critic", WorldModelConfig: "world"}
    return next(kind for base, kind in bases.items() if isinstance(learner, base))


def take_resume(words: list[str]) -> Path | None:
    """Take --resume and its value out of the words; None where it is not among them."""
    for place, word in enumerate(words):
        key, equals, value = word.partition("=")
        if key == "--resume":
            end = place + (1 if equals else 2)
            if not equals:
                value = words[place + 1] if place + 1 < len(words) else ""
            if not value or value.startswith("--"):
                raise UsageError("--resume needs the folder of a run")
            del words[place:end]
            return Path(value)
    return None


def _is_ready(critic: CriticConfig) -> bool:
    """Whether a critic judges without training (`policy.Ready`): of ours, every one that learns from no outcomes."""
    from ..data.rewards import Rewarded

    if is_outline(type(critic)):
        return not keeps(critic, Rewarded)
    return callable(getattr(critic, "beside", None))
