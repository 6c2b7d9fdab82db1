"""How a training may begin and go on: what a run began with, what a resume may change, what a parent hands on.

    RUN/begun_with.json     {kind: training, format, dataset, init, sha256}, written before config.yaml; runs of earlier
                            versions have none and go on without the comparison

A run folder without a config.yaml holds nothing yet.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import yaml

from ...configs.documents import read_document, sealed
from ...configs.files import replace_text
from ...configs.parse import parse
from ...configs.settings.decode import decode, keys_of
from ...configs.settings.load import load
from ...configs.settings.refusals import UsageError
from ...configs.spec import Embodiment, EmbodimentError, picture_keys, vectors
from ..data.dataset import Dataset, held_out_of
from ..data.looks import differences
from ..data.rewards import Learner
from ..data.task_spec import TaskSpec
from ..kinds import CriticConfig, PolicyConfig, WorldModelConfig
from .checkpoint import (
    _document,
    check_stated,
    find_checkpoint,
    fingerprint,
    is_of,
    load_config,
    read_embodiment,
    with_former_defaults,
)
from .integrity import CheckpointError, check_like, damaged, load_tensors, verify
from .links import linked, numbered
from .places import BEGUN, DoorError
from .run import SETTINGS
from .settings import LEARNERS, kind_of

if TYPE_CHECKING:
    from torch import Tensor, nn

KIND, FORMAT = "training", 1
CONTINUED = (  # settings that a resume may change: how long, where, how much is kept; never what is learnt from
    "steps", "data", "embodiment", "device", "threads", "log_every", "save_every", "keep", "keep_every", "wandb",
    "eval_workers", "resident_gb", "captured",
)  # fmt: skip


def is_whole(run: Path, config_class: type) -> bool:
    """Whether the settings of a run can be read."""
    try:
        read_settings(run, config_class)
    except DoorError:
        return False
    return True


def read_settings(run: Path, config_class: type):
    """The settings in a run's config.yaml; one of an earlier version goes on as it began.

    Raises:
        DoorError: a file that is damaged.
    """
    try:
        raw = load(run / SETTINGS, config_class)
        learners = {kind: raw[kind] for kind in LEARNERS if raw.get(kind)}
        settings = decode(
            config_class, raw | {k: with_former_defaults(LEARNERS[k], learner) for k, learner in learners.items()}
        )
        settings.check()
        return settings
    except (UsageError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        saved = linked(run, "last") or next(reversed(numbered(run)), None)
        out = (
            f"bring a whole copy, or begin a new run from its weights: understudy train CONFIG.yaml --init {saved}"
            if saved
            else f"it holds no checkpoint either: begin it anew with: understudy train CONFIG.yaml --out {run}"
        )
        reason = " ".join(str(error).split()).removeprefix(f"{run / SETTINGS} ")
        raise DoorError(f"{run / SETTINGS} cannot be read ({reason}); it is damaged: {out}") from None


def changed(run: Path, settings, words: Sequence[str]):
    """The settings of a run with the words given beside --resume.

    Raises:
        DoorError: naming the first flag that a resume does not take.
    """
    before = parse(type(settings), str(run / SETTINGS), [])
    for flag in _flags(words):
        name = flag[0].removeprefix("--").partition("=")[0]
        if not flag[0].startswith("--"):
            raise DoorError(_refusal(run, flag[0]))
        asked = parse(type(settings), str(run / SETTINGS), flag)
        for field in dataclasses.fields(settings):
            value = getattr(asked, field.name)
            if value == getattr(before, field.name):
                continue
            if field.name not in CONTINUED:
                raise DoorError(_refusal(run, f"--{name}"))
            settings = dataclasses.replace(settings, **{field.name: value})
    return settings


def replaced(run: Path, settings, changes: Mapping[str, object]):
    """`changed`, of settings by name."""
    for name, value in changes.items():
        if value != getattr(settings, name) and name not in CONTINUED:
            raise DoorError(_refusal(run, f"--{name}"))
    return dataclasses.replace(settings, **changes)


def write_settings(run: Path, text: str) -> None:
    """Write config.yaml anew, and its hash beside it."""
    begun = read_begun(run)
    replace_text(run / SETTINGS, text)
    if begun:
        values = {"kind": KIND, "format": FORMAT, **begun, "settings": _hash(text)}
        replace_text(run / BEGUN, json.dumps(sealed(values), indent=1) + "\n")


def warn_of_edits(run: Path, begun: Mapping) -> None:
    """Say that config.yaml is not what `understudy train` wrote; what it says now is trained."""
    if begun.get("settings") not in (None, _hash((run / SETTINGS).read_text())):
        warnings.warn(
            f"{run / SETTINGS} was changed since the run began; it goes on with what it says now. If nobody meant "
            "that, stop and bring a whole copy",
            stacklevel=3,
        )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_begun(run: Path, dataset: Dataset, init: Path | None, settings: str) -> None:
    """Note what a training begins with; `settings` is the text of its config.yaml."""
    values = {"kind": KIND, "format": FORMAT, "dataset": _about(dataset), "settings": _hash(settings)}
    values["init"] = None if init is None else {"path": str(init), "fingerprint": fingerprint(init)}
    replace_text(run / BEGUN, json.dumps(sealed(values), indent=1) + "\n")


def read_begun(run: Path) -> dict:
    """What a training began with; nothing of an earlier version's run. Raises DoorError."""
    if not (run / BEGUN).is_file():
        return {}
    try:
        begun = read_document(run / BEGUN, KIND, FORMAT, DoorError)
    except (DoorError, OSError) as error:
        raise DoorError(f"{error}. Delete it to go on without comparing the dataset") from error
    wanted = {"dataset": (dict,), "init": (dict, type(None))}
    if not all(isinstance(begun.get(name, 0), kinds) for name, kinds in wanted.items()):
        raise DoorError(f"{run / BEGUN} is damaged; delete it to go on without comparing the dataset")
    return begun


def held_out_in(run: Path) -> int | None:
    """How many episodes the training of a run held out; None where the run does not say."""
    try:
        episodes = (read_begun(run).get("dataset") or {}).get("episodes")
        settings = yaml.safe_load((run / SETTINGS).read_text(encoding="utf-8"))
    except (DoorError, OSError, UnicodeDecodeError, yaml.YAMLError):
        return None  # `understudy doctor RUN` says it
    validation = settings.get("validation") if isinstance(settings, Mapping) else None
    if not (isinstance(episodes, int) and isinstance(validation, int | float) and episodes > 0 and 0 <= validation < 1):
        return None
    return held_out_of(episodes, validation)


def check_dataset(run: Path, begun: Mapping, dataset: Dataset, moved: Sequence[str]) -> None:
    """Refuse to go on with other data than the run began with.

    Args:
        moved: flags that give the data anew; without a note of the first nobody knows whether they are the same.
    Raises:
        DoorError: saying what differs.
    """
    if not begun:
        if moved:
            raise DoorError(_refusal(run, moved[0]) + f" ({BEGUN}, which would tell them apart, is not there)")
        return
    then, now = begun["dataset"], _about(dataset)
    if then.get("fingerprint") == now["fingerprint"]:
        return
    differs = [
        f"{name} were {then.get(name)} and are {now[name]}"
        for name in ("episodes", "frames")
        if then.get(name) != now[name]
    ]
    what = "; ".join(differs) or "as many episodes and frames, with other content"
    raise DoorError(
        f"the dataset is not the one that {run} began with: {what} (fingerprint {then.get('fingerprint')}, now "
        f"{now['fingerprint']}). Bring back the first ({then.get('source')}; where it was moved to: --data), or train "
        f"on this one: understudy train CONFIG.yaml --data ... --init {run}"
    )


def check_body(run: Path, checkpoint: Path, embodiment: Embodiment, inputs: tuple[str, ...]) -> None:
    """Refuse to go on for another body than the checkpoint's. Raises DoorError."""
    try:
        read_embodiment(checkpoint).check(embodiment, inputs)
    except EmbodimentError as error:
        raise DoorError(
            f"who acts is not who {run} began with: {error}. Bring back the first dataset, or train a new run"
        ) from error


def scale_differs(folder: Path, spec: TaskSpec) -> bool:
    """Whether a checkpoint acts in another action scale than a task spec says; without one of its own it does not.

    Raises:
        CheckpointError: weights that cannot be read.
    """
    import torch

    from ..policy import Scale

    held = load_tensors(folder / "model.safetensors")
    ours = Scale.between(spec.scale.low, spec.scale.high)
    pairs = [(held.get(f"action_scale.{name}"), getattr(ours, name)) for name in ("mean", "std")]
    return any(a is not None and (a.shape != b.shape or not torch.allclose(a, b)) for a, b in pairs)


class Parent:
    """The checkpoint that a fine-tuning starts from, compared with what will be trained.

    Raises:
        CheckpointError: one that is damaged, of another program, or of another kind or type.
        DoorError: another body, or other inputs.
    """

    def __init__(self, path: Path, learner: PolicyConfig | CriticConfig | WorldModelConfig, embodiment: Embodiment):
        self.given, self.folder = path, find_checkpoint(path)
        document = _document(self.folder)
        wanted = kind_of(learner)
        if document.get("kind") != wanted:
            kind = document.get("kind", "checkpoint of another program")
            raise CheckpointError(f"--init {path} holds a {kind}; a {wanted} begins with the weights of a {wanted}")

        verify(self.folder, ("config.json", "embodiment.json", "model.safetensors"))
        self.config = load_config(document, self.folder)
        kind = learner.get_choice_name(type(learner))
        if document["type"] != kind:
            raise CheckpointError(f"--init {path} holds a {wanted} of type {document['type']}, not {kind}")
        theirs, ours = cast(Learner, self.config).inputs, cast(Learner, learner).inputs
        if vectors(tuple(theirs)) != vectors(tuple(ours)):
            raise DoorError(
                f"--init {path} reads {', '.join(theirs)}, in this order; the new {wanted} reads "
                f"{', '.join(ours)}. Give it the same `inputs`; only cameras may be others"
            )
        self.cameras = picture_keys(tuple(theirs)), picture_keys(tuple(ours))
        self._compare(embodiment, ours)
        before, now = (_flat(keys_of(config)) for config in (self.config, learner))
        self.unlike = [
            f"{k} {before.get(k)} -> {now.get(k)}"
            for k in sorted(before.keys() | now.keys())
            if before.get(k) != now.get(k) and not k.startswith("vision.looks.")
        ]
        looks = [getattr(getattr(one, "vision", None), "looks", {}) for one in (self.config, learner)]
        self.strange = [*differences(*looks)]

    def hand_on(self, model: nn.Module) -> list[str]:
        """Put the weights into a new model, which keeps what was fitted to its data; what to say of it, line by line.

        Raises:
            CheckpointError: weights that do not fit or cannot be.
        """
        from ..policy import Scale

        file, own = self.folder / "model.safetensors", model.state_dict()
        check_stated(self.folder, model)
        try:
            weights = load_tensors(file)
            new = self._other_cameras(weights, own)
            check_like(file, weights, own)
        except CheckpointError as error:
            raise damaged(self.folder, f"--init {self.given}: {error}") from error
        scales = [
            f"{name}.{part}"
            for name, module in model.named_modules()
            if isinstance(module, Scale)
            for part in ("mean", "std")
        ]
        fitted = [name for name in own if name.startswith("skip.")]  # to the new data, in the new scale
        model.load_state_dict(weights | {name: own[name] for name in (*scales, *fitted)})
        moved = [name for name in scales if not bool((weights[name].to(own[name].device) == own[name]).all())]
        return self._story(moved, weights, own) + new

    def _other_cameras(self, weights: dict[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
        """Where other cameras are read, leave new in `weights` what belongs to them; what to say of it.

        The encoders of cameras that both read are taken over, and all that has the same shape.
        """
        theirs, ours = self.cameras
        if theirs == ours:
            return []
        fresh = [name for name in own if name not in weights or weights[name].shape != own[name].shape]
        for name in [*weights]:
            if name not in own:
                del weights[name]
        weights |= {name: own[name] for name in fresh}
        cameras = [key for key in ours if key not in theirs]
        lines = [f"  cameras that it did not read, whose encoders begin anew: {', '.join(cameras)}"] if cameras else []
        dropped = [key for key in theirs if key not in ours]
        lines += [f"  cameras of its own that are left out: {', '.join(dropped)}"] if dropped else []
        layers = [name for name in fresh if not name.startswith("eyes.")]
        return lines + ([f"  layers that read the cameras together begin anew: {', '.join(layers)}"] if layers else [])

    def check_unchanged(self, begun: Mapping) -> None:
        """Refuse a parent that has been trained on since the run began. Raises DoorError."""
        then = (begun.get("init") or {}).get("fingerprint")
        if then is not None and not is_of(then, self.folder):
            now = fingerprint(self.folder)
            raise DoorError(
                f"--init {self.given} holds other weights ({now}) than when the run began ({then}); begin anew, "
                "with another --out"
            )

    def _compare(self, embodiment: Embodiment, inputs: tuple[str, ...]) -> None:
        """Names, order, units, rate, mode, frame; limits may be others: without a card they are those of the data."""
        theirs = read_embodiment(self.folder)
        try:
            if len(theirs.action) == len(embodiment.action):
                theirs = dataclasses.replace(theirs, limits=embodiment.limits)
            theirs.check(embodiment, inputs)
        except EmbodimentError as error:
            raise DoorError(
                f"--init {self.given} was trained for another body: {error}. Train without --init"
            ) from error

    def _story(self, moved: Sequence[str], weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
        lines = [f"fine-tuning {self.folder}"]
        lines += [f"  warning: {strange}" for strange in self.strange]
        if self.unlike:
            lines.append(f"  settings that differ from its own: {'; '.join(self.unlike)}")
        if not moved:
            lines.append("  scales are its own")
        for stem in dict.fromkeys(name.rpartition(".")[0] for name in moved):
            then, now = (_span(values[f"{stem}.mean"], values[f"{stem}.std"]) for values in (weights, own))
            lines.append(f"  {stem} is new: {now}, its own was {then}")
        if any(name.startswith("action_scale.") for name in moved):
            lines.append(f"  to keep the action scale of the parent: --scale from:{self.given}")
        return lines


def _about(dataset: Dataset) -> dict:
    """What is noted of a dataset; the world that it was recorded in where the recording says so."""
    recording = dataset.root / "meta" / "recording.json"
    try:
        world = json.loads(recording.read_bytes()).get("world")
    except (OSError, ValueError, AttributeError):  # of other programs, or none
        world = None
    about = {} if world is None else {"world": world}
    return about | {
        "source": str(dataset.hub or dataset.root),
        "fingerprint": dataset.fingerprint,
        "episodes": len(dataset.lengths),
        "frames": len(dataset),
    }


def _refusal(run: Path, flag: str) -> str:
    return (
        f"--resume takes the settings of {run / SETTINGS}; {flag} is not changed by it. To train with other settings "
        f"from its weights: understudy train CONFIG.yaml --init {run}. A resume takes "
        f"{', '.join('--' + name for name in CONTINUED)}"
    )


def _flags(words: Sequence[str]) -> list[list[str]]:
    """The words by flag; those before the first flag one by one."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not groups or not groups[-1][0].startswith("--"):
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def _flat(values: Mapping, prefix: str = "") -> dict:
    flat: dict = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _span(mean: Tensor, std: Tensor) -> str:
    """What becomes -1..1, dimension by dimension; the first few."""
    pairs = [f"{m - s:.4g}..{m + s:.4g}" for m, s in zip(mean.flatten().tolist(), std.flatten().tolist(), strict=True)]
    return ", ".join(pairs[:4]) + (f" and {len(pairs) - 4} more" if len(pairs) > 4 else "")
