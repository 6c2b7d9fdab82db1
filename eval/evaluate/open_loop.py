"""`understudy eval --policy RUN --data DATASET`: how far the policy's plans lie from recorded actions; nobody acts.

The composition root of open-loop evaluation: opens policy and data, chooses the episodes that its training held out,
keeps a record and a page. Everything that can be refused is refused before the policy plans.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...configs.command import command_of
from ...configs.devices import check_device
from ...configs.progress import Progress, counted
from ...configs.settings.load import load
from ...configs.settings.refusals import UsageError
from ...configs.settings.shipped import find_config, is_config
from ...policies.learning.checks import check_data
from ..ledger.provenance import provenance
from ..ledger.record import REPORT, Record
from ..offline.errors import Asked, chunk_errors, kinds_of, mean_action, spread_of, wrapping
from ..offline.held_out import Training, keys_of, training_of
from ..offline.record import ErrorWriter
from ..offline.summary import summarize_errors, text
from .open_loop_page import write_error_report

if TYPE_CHECKING:
    import numpy as np

    from ...configs.spec import Embodiment
    from ...policies.agent.open import Acting
    from ...policies.data.dataset import Dataset
    from ...policies.policy import Planner

HELD_OUT, ALL = "held-out", "all"


@dataclass(frozen=True, kw_only=True)
class OpenLoop:
    """Let a policy plan at recorded observations and measure how far off its actions are; nobody acts.

    Without --data the policy acts in a world (`understudy eval --help`). What a policy would be worth by recorded
    episodes with success labels is another question: `understudy estimate`.
    """

    DISCOVER: ClassVar[tuple[str, ...]] = ("policies",)

    policy: str  # run or checkpoint folder, lerobot's too; or a name on the hub: OWNER/NAME, OWNER/NAME@REVISION
    POSITIONALS: ClassVar[tuple[str, ...]] = ("policy",)

    data: str  # LeRobot dataset: folder or hub id; several: A,B
    out: str | None = None  # folder of the record; must not exist
    resume: str | None = None  # go on with this record instead of --out; all else as it was
    episodes: str = HELD_OUT  # held-out: those that its training held out, all of a dataset it never saw; or all, 0-5,7
    without: str = ""  # episodes left out, for example 6
    held_out_of: tuple[str, ...] = ()  # runs that say what was held out, where the policy does not: what it is made of
    columns: dict[str, list[str] | str] = field(default_factory=dict)  # {action: actions}; default as in its training
    embodiment: str | None = None  # file that says who acts, where the dataset does not; default as in its training
    task_text: str | None = None  # instruction for a policy of lerobot's that reads one; default the dataset's
    n_action_steps: int | None = None  # E, actions of each chunk that count; default the policy's own
    candidates: int = 1  # N samples at each observation; above 1 their mean is judged too
    every: int = 1  # plan at every so many recorded observations
    policy_seed: int = 0  # of the policy's noise
    steps: int | None = None  # of the sampler; default the policy's own
    solver: str | None = None  # of the sampler: ddim | dpmpp | heun
    scheduler: str | None = None  # instead of a solver: a class of diffusers, such as UniPCMultistepScheduler
    batch: int = 64  # observations at a time; results depend on it in the last digits
    threads: int = 1  # of torch on the CPU
    device: str = "auto"  # where the policy computes: auto (a GPU if there is one) | cpu | cuda | cuda:N

    def __post_init__(self):
        if (self.out is None) == (self.resume is None):
            raise ValueError("give --out DIR for a new record, or --resume DIR to go on with one")
        for name in ("candidates", "every", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if self.n_action_steps is not None and self.n_action_steps < 1:
            raise ValueError(f"--n_action_steps must be at least 1, got {self.n_action_steps}")

    @property
    def root(self) -> Path:
        """The folder of the record."""
        return Path(os.path.expandvars(self.resume or self.out or ""))

    def check_names(self) -> None:
        """Refuse names and paths that are not there, before anything heavy is imported; the folder comes last."""
        from ...policies.agent.open import check_policy

        check_device(self.device)
        check_policy(self.policy)
        for source in self.data.split(","):
            check_data(source)
        if self.resume is None and self.root.exists():
            raise ValueError(f"'{self.root}' exists; give another --out, or --resume {self.root} to go on with it")

    def run(self) -> None:
        record = judge(self)
        print(text(summarize_errors(record), record.manifest))
        print(f"\nreport          {record.root / REPORT}")


def asks_for_data(words: Sequence[str]) -> bool:
    """Whether the words of `understudy eval` name recorded data, themselves or by their config file."""
    if any(word == "--data" or word.startswith("--data=") for word in words):
        return True
    return bool(words) and is_config(words[0]) and "data" in load(find_config(words[0]))


def refuse_acting(words: Sequence[str], acting: type) -> None:
    """Refuse flags of the verb that lets policies act, beside --data. Raises UsageError naming the first."""
    ours, theirs = ({item.name for item in dataclasses.fields(kind)} for kind in (OpenLoop, acting))
    for word in words:
        name = word.removeprefix("--").partition("=")[0].partition(".")[0].replace("-", "_")
        if word.startswith("--") and name in theirs - ours:
            raise UsageError(
                f"--{name} is of a policy that acts; with --data it only plans at recorded observations, nobody acts."
                " Leave one of the two out"
            )


def judge(config: OpenLoop) -> Record:
    """Judge the policy and return the record. Ctrl-C ends it early and is raised again.

    Raises:
        ValueError: saying what does not fit: the dataset, its episodes, or the place of the record.
    """
    import torch

    config.check_names()
    torch.set_num_threads(config.threads)

    policy, dataset, about, agent = _open(config)
    chosen, data = select(config, dataset)
    asked = _asked(config, policy)
    data |= _measures(policy, dataset, chosen, data.pop("baseline"), asked)
    data["notes"] += [
        f"{name} is an angle that jumps by more than half a turn: its error counts the jumps"
        for name in wrapping(dataset)
    ]
    command = command_of(config, "eval", without=("out", "resume"))
    manifest = {"policy": about, "data": data, "agent": agent | dataclasses.asdict(asked), "command": command}
    for warning in _warnings(data):
        print(f"warning: {warning}", file=sys.stderr)

    writer = ErrorWriter(config.root, manifest | provenance(), resume=config.resume is not None)
    with writer:
        try:
            _plan_all(config, policy, dataset, chosen, asked, writer)
        except KeyboardInterrupt as stop:
            kept = f"{len(writer.done)} of {len(chosen)} episodes are kept"
            goes_on = f"the same command with --resume {writer.root} in place of --out goes on"
            raise KeyboardInterrupt(f"{kept}; {goes_on}") from stop
        finally:
            record = writer.close(complete=len(writer.done) == len(chosen))
            if writer.done:
                write_error_report(record)
    return record


def _open(config: OpenLoop) -> tuple[Planner, Dataset, dict, dict]:
    """The policy, the whole dataset with what the policy reads, and what a manifest says of how it is asked."""
    from ...policies.agent.open import agent_settings, open_agent
    from ...policies.data.open import open_dataset

    options = _reading(config)

    def body():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is opened again, with what the policy reads
            return open_dataset(config.data, columns=(), check=False, **options).embodiment

    agent, about = open_agent(_acting(config), body, _text_of(config, options))
    dataset = open_dataset(config.data, columns=tuple(agent.planner.inputs), **options)
    _check_fit(config, agent.planner, dataset)
    settings = agent_settings(_acting(config), agent)
    kept = ("policy_seed", "sampler", "threads", "device", "task_text")
    return agent.planner, dataset, about, {name: settings[name] for name in kept if name in settings}


def check_actions(config: OpenLoop) -> None:
    """Refuse data of other actions by what the checkpoint says, before anything is judged. Raises EmbodimentError."""
    from ...policies.agent.stage import body_of
    from ...policies.data.open import open_dataset

    known = body_of(config.policy)
    if known is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is opened again, with what the policy reads
        dataset = open_dataset(config.data, columns=(), check=False, **_reading(config))
    _check_actions(config, known[0], dataset.embodiment)


def _check_fit(config: OpenLoop, policy: Planner, dataset: Dataset) -> None:
    """Refuse data of another body than the policy's: names, order, units, rate, meaning. Raises EmbodimentError."""
    from ...configs.spec import EmbodimentError

    ours, theirs = policy.embodiment, dataset.embodiment
    _check_actions(config, ours, theirs)
    try:
        ours.check(theirs, tuple(policy.inputs))
    except EmbodimentError as error:
        raise EmbodimentError(f"{config.data} does not fit {config.policy}: {error}") from error


def _check_actions(config: OpenLoop, ours: Embodiment, theirs: Embodiment) -> None:
    from ...configs.spec import EmbodimentError

    if ours.action != theirs.action:
        pairs = zip((*ours.action, None), (*theirs.action, None), strict=False)
        place, (first, other) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
        raise EmbodimentError(
            f"{config.policy} plans {len(ours.action)} actions, {config.data} has {len(theirs.action)}; the first that"
            f" differs is number {place}: {first or 'none'} against {other or 'none'}. Judge it by data of its own"
            " robot, or name the columns: --columns, --embodiment"
        )


def _acting(config: OpenLoop) -> Acting:
    from ...policies.agent.goal import RECORDED
    from ...policies.agent.open import Acting

    shared = {item.name for item in dataclasses.fields(Acting)} & {item.name for item in dataclasses.fields(OpenLoop)}
    values = {name: getattr(config, name) for name in shared - {"candidates"}}
    return Acting(**values, block=1, candidates=1, goal=RECORDED)


def _reading(config: OpenLoop) -> dict:
    """How the data is read: as in the policy's training, where nothing else is said."""
    from ...policies.data.layout import DatasetError
    from ...policies.data.open import open_dataset
    from ...policies.learning.run import read_as, training

    settings = training(config.policy) or {}
    embodiment = config.embodiment or settings.get("embodiment")
    options = {"embodiment": embodiment, "without": config.without, "sources": config.columns}
    if not config.columns and (own := read_as(settings)["sources"]):
        try:
            open_dataset(config.data, columns=(), check=False, sources=own)
        except DatasetError:
            return options  # a dataset of other columns
        options["sources"] = own
    return options


def _text_of(config: OpenLoop, options: dict) -> str:
    """The text of the first task; each episode's own is told before the policy plans there."""
    from ...policies.data.open import open_dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tasks = open_dataset(config.data, columns=(), check=False, **options).tasks
    return tasks[0] if tasks else ""


def select(config: OpenLoop, dataset: Dataset) -> tuple[np.ndarray, dict]:
    """Positions of the episodes that are judged, and what a manifest says of them.

    Raises:
        ValueError: nothing was held out, or no such episodes.
    """
    import numpy as np

    training, keys = _training(config, dataset), keys_of(dataset)
    if config.episodes != HELD_OUT:
        chosen = set(_named(config, dataset))
    else:
        chosen = set(keys) & training.held_out if training.same else set(keys)
    if not chosen:
        raise ValueError(_nothing_held_out(config, training))

    places = np.array([place for place, key in enumerate(keys) if key in chosen], np.int64)
    seen = [place for place in places if keys[place] in training.trained]
    trained = [place for place, key in enumerate(keys) if key in training.trained - chosen]
    others = [place for place, key in enumerate(keys) if key not in chosen]
    return places, {
        "source": config.data,
        "fingerprint": dataset.fingerprint,
        "episodes": dataset.episode_ids[places].tolist(),
        "trained_on": dataset.episode_ids[seen].tolist() if seen else [],
        "status": _status(training, chosen, bool(seen)),
        "notes": list(training.notes),
        "baseline": (trained, others),
    }


def _nothing_held_out(config: OpenLoop, training: Training) -> str:
    because = f" ({'; '.join(training.notes)})" if training.notes else ""
    if len(config.held_out_of) > 1:
        return (
            f"no episode of {config.data} was held out by the trainings of all of {', '.join(config.held_out_of)};"
            " judge them by episodes that none was trained on (another --data), train them on the same --episodes with"
            " the same --validation, or look at the error of training: understudy eval --episodes all for each, and"
            " compare the records"
        )
    if training.known:
        mend = (
            "record more than one and train on those" if len(training.trained) == 1 else "train with --validation 0.1"
        )
        return (
            f"the training of {config.policy} held no episode of {config.data} out{because}; judge it by episodes "
            f"that it was not trained on (another --data), {mend}, or look at the error of training: --episodes all"
        )
    return (
        f"nobody knows which episodes of {config.data} the training of {config.policy} held out{because}. Bring back"
        " the data as they were (a copy elsewhere will do), or name episodes that were recorded since: --episodes 80-99"
    )


def _status(training: Training, chosen: set, seen: bool) -> str:
    """What the episodes are to the policy: trained, unknown, other, held out or unread."""
    if seen:
        return "trained"
    if not training.known:
        return "unknown"
    if not training.same:
        return "other"
    return "held out" if chosen <= training.held_out else "unread"


def _training(config: OpenLoop, dataset: Dataset) -> Training:
    """What the policy saw of the dataset, by its own account and by that of --held_out_of."""
    own = training_of(config.policy, dataset, config.data)
    if not config.held_out_of:
        return own
    told = [training_of(run, dataset, config.data) for run in config.held_out_of]
    for run, one in zip(config.held_out_of, told, strict=True):
        if not one.known or not one.same:
            raise ValueError(f"--held_out_of {run}: nobody knows which episodes of {config.data} its training held out")
    everyone = [own, *told] if own.known else told
    trained = frozenset().union(*(one.trained for one in everyone))
    held = frozenset.intersection(*(one.held_out for one in told)) - trained
    notes = f"held out is what the trainings of {', '.join(config.held_out_of)} held out"
    return Training(trained, held, True, True, (*own.notes, notes))


def _named(config: OpenLoop, dataset: Dataset) -> list:
    """Keys of the episodes that --episodes names. Raises DatasetError for one that is not there."""
    from ...policies.data.open import open_dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sources = dataset.layout.sources
        return keys_of(
            open_dataset(
                config.data,
                columns=(),
                check=False,
                episodes=config.episodes,
                without=config.without,
                sources=sources,
            )
        )


def _asked(config: OpenLoop, policy: Planner) -> Asked:
    from ...policies.policy import executed_of

    return Asked(
        n_action_steps=config.n_action_steps or min(executed_of(policy), policy.window.horizon),
        candidates=config.candidates,
        policy_seed=config.policy_seed,
        every=config.every,
        batch=config.batch,
    )


def _measures(policy: Planner, dataset: Dataset, chosen: np.ndarray, baseline: tuple, asked: Asked) -> dict:
    """What errors are measured in and compared with, for the manifest."""
    trained, others = baseline
    if trained:
        places, words = trained, f"the {counted(len(trained), 'episode')} that it was trained on"
    elif others:
        places, words = others, f"the {counted(len(others), 'episode')} that are not judged"
    else:
        places, words = chosen, "the judged episodes themselves, which favours it"
    body = dataset.embodiment
    return {
        "rate": dataset.rate,
        "action": list(body.action),
        "units": list(body.action_units),
        "kinds": kinds_of(body),
        "mode": body.mode.value,
        "inputs": list(policy.inputs),
        "horizon": policy.window.horizon,
        "every": asked.every,
        "spread": [float(f"{value:.7g}") for value in spread_of(dataset).tolist()],
        "mean_action": [float(f"{value:.7g}") for value in mean_action(dataset, places).tolist()],
        "mean_of": words,
    }


def _warnings(data: dict) -> list[str]:
    """What must be heard before numbers are seen."""
    if data["trained_on"]:
        return [
            f"the policy was TRAINED on {len(data['trained_on'])} of these {len(data['episodes'])} episodes: their"
            " errors say how well it remembers, not how well it predicts"
        ]
    if data["status"] == "unknown":
        because = f" ({'; '.join(data['notes'])})" if data["notes"] else ""
        return [
            f"nobody knows whether the policy was trained on these episodes{because}; if it was, their errors are too"
            " small. --held_out_of RUN takes those that a run held out"
        ]
    return []


def _plan_all(
    config: OpenLoop, policy: Planner, dataset: Dataset, chosen: np.ndarray, asked: Asked, writer: ErrorWriter
) -> None:
    """Judge all episodes that are not recorded yet."""
    import numpy as np

    from ...policies.agent.open import instruct

    about: Any = writer.manifest["data"]
    mean = np.asarray(about["mean_action"], np.float32)
    numbers: list[int] = list(map(int, dataset.episode_ids))
    reads = getattr(policy, "task_text", None) is not None
    with Progress(f"judging {config.policy}:", len(chosen), "episodes", done=len(writer.done)) as progress:
        for place in map(int, chosen):
            if numbers[place] in writer.done:
                continue
            if reads and config.task_text is None:
                instruct(policy, dataset.tasks[place])
            writer.add(chunk_errors(policy, dataset, place, mean, asked))
            progress.update(len(writer.done))
