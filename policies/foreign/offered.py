"""Policies of ours as types of lerobot's: what its plug-in builds, trains and saves, and how it is opened again here.

The plug-in (`distributions/lerobot_policy_understudy`) holds lerobot's classes; all that a policy is stands here and
needs no lerobot. Network, loss and acting are ours. Actions and states are scaled inside, by scales among the weights,
so lerobot's own normalisation is the identity in every checkpoint; one that says otherwise is refused.

    config.json         lerobot's settings, with `type` understudy_NAME; `policy`: ours; `embodiment`: who acts
    model.safetensors   `model.*` as trained, `average.*` the averaged weights, which act; either may stand alone
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...configs.plugins import discover, lookup
from ...configs.protocols import keeps
from ...configs.settings.decode import decode_choice, keys_of
from ...configs.settings.load import load
from ...configs.spec import ACTION, IMAGES, Embodiment, EmbodimentError, vectors
from ..data.corrections import INTERVENTION, learned_steps
from ..data.layout import DatasetError
from ..data.open import open_dataset
from ..data.statistics import statistics
from ..data.task_spec import TaskSpec, load_task_spec
from ..data.windows import VALID, Windows
from ..kinds import PolicyConfig, Scales
from ..learning.checkpoint import blank_scales, load_config
from ..learning.integrity import check_like, check_scales, load_tensors
from ..learning.pictures import fill_encoders, settled
from ..learning.pinned import check_inside, pinned_task_spec
from ..learning.possible import LOOKED_AT
from ..learning.settings import Settings
from ..policy import Begins, Prepared
from .scale import POSTPROCESSOR, PREPROCESSOR, ForeignError, steps_of

PREFIX = "understudy_"  # of the types' names among lerobot's
KINDS = ("diffusion", "flow", "one_step", "regression")  # of our policies that lerobot can train
MODEL, AVERAGE = "model.", "average."
LONE = "observation.image"  # lerobot's key of a lone camera, which is the camera "image" here
NOT_OFFERED = {"language": "the text of a task", "goal": "goal pictures"}  # settings whose inputs lerobot does not hand


def is_offered(document: Mapping) -> bool:
    """Whether a config.json is of a policy of ours in lerobot's layout."""
    return "kind" not in document and str(document.get("type", "")).startswith(PREFIX)


def key_of(theirs: str) -> str:
    """Our observation key of one of lerobot's."""
    return IMAGES + "image" if theirs == LONE else theirs


def settings_of(kind: str, source: str, changes: Mapping[str, Any], inputs: Sequence[str] = ()) -> PolicyConfig:
    """The settings of a policy.

    Args:
        kind: "flow", ...
        source: a file of `understudy train` or of the policy alone, or its settings as YAML; may be empty.
        changes: n_obs_steps, n_past_steps, horizon, n_action_steps in lerobot's words; None leaves one as it is.
        inputs: lerobot's keys of what is observed, taken where the settings name none.

    Raises:
        UsageError, LookupError, ValueError: an unknown setting, or one that cannot be.
    """
    discover("policies")
    raw = _settings(kind, source)
    window = dict(raw.get("window") or {})
    steps = {name: value for name, value in changes.items() if value is not None}
    if "n_obs_steps" in steps:
        window["observe"] = list(range(1 - steps["n_obs_steps"], 1))
    if "n_past_steps" in steps:
        window["recall"] = list(range(-steps["n_past_steps"], 0))
    raw |= {"window": window | {name: steps[name] for name in ("horizon",) if name in steps}}
    raw |= {name: steps[name] for name in ("n_action_steps",) if name in steps}
    if inputs and "inputs" not in raw:
        raw["inputs"] = [key_of(key) for key in inputs]
    config = decode_choice(PolicyConfig, raw | {"type": kind})
    for name, what in NOT_OFFERED.items():
        if getattr(config, name, None):
            raise ValueError(f"`{name}` reads {what}, which lerobot does not hand to a policy; leave it out")
    return config


def task_spec_of(source: str) -> TaskSpec | None:
    """The task spec that a file of `understudy train` holds; None of other settings."""
    from ...configs.settings.decode import decode

    raw = load(source) if source.endswith((".yaml", ".yml")) else {}
    held = raw.get("task_spec") if "policy" in raw else None
    return decode(TaskSpec, dict(held)) if isinstance(held, Mapping) else load_task_spec(held) if held else None


def begin(policy: PolicyConfig, root: str | Path, scale: str | None = None, spec: TaskSpec | None = None) -> nn.Module:
    """A policy before its training, scaled by a dataset as `understudy train` would scale it with all its episodes.

    Args:
        policy: its settings.
        root: the folder of the dataset.
        scale: file of the action scale, or from:RUN; else `spec`, else the range of the data's actions.

    Raises:
        DatasetError, EmbodimentError, ValueError: a dataset that does not fit.
    """
    dataset = open_dataset(root, columns=policy.inputs)
    policy = settled(policy, dataset)
    whole = np.arange(len(dataset.lengths))
    asked = Settings(data=str(root), policy=policy, scale=scale, task_spec=None if scale else spec)
    pinned = pinned_task_spec(asked, dataset, whole)
    pinned.check(dataset.embodiment)
    check_inside(asked, dataset, pinned, whole)

    stats = statistics(dataset, vectors(policy.inputs), whole)
    scales = Scales(
        action=(pinned.scale.low, pinned.scale.high),
        states={key: (tuple(one.mean.tolist()), tuple(one.std.tolist())) for key, one in stats.items()},
    )
    model = policy.build(dataset.embodiment, scales)
    for said in fill_encoders(model):
        print(said)
    if keeps(model, Begins):
        model.begin(dataset, whole)
    if keeps(model, Prepared):
        model.prepare(Windows(dataset, policy.window, vectors(policy.inputs)).actions(LOOKED_AT))
    return model


def blank(settings: Mapping, embodiment: Mapping) -> nn.Module:
    """The policy that `policy` and `embodiment` of a config.json describe, its weights and scales to be filled."""
    body = Embodiment.from_dict(dict(embodiment))
    config: Any = load_config({"kind": "policy", "type": settings["type"], "config": dict(settings)})
    return config.build(body, blank_scales(body))


def described(model: Any) -> dict[str, dict]:
    """`policy` and `embodiment` of the config.json of a model."""
    plain = json.loads(json.dumps(keys_of(model.config)))  # tuples become lists
    return {"policy": plain, "embodiment": json.loads(model.embodiment.to_json())}


def refuse_takeovers(root: str | Path) -> None:
    """Refuse a dataset in which a person took over from a policy: lerobot draws all steps alike, also the policy's own.

    Raises:
        DatasetError: with what to do instead; or a column `intervention` that holds no flags.
    """
    dataset = open_dataset(root, columns=())
    learned = learned_steps(dataset, None, np.arange(len(dataset.lengths)))
    if learned is None:
        return
    led = int((learned.weights > 0).sum())
    raise DatasetError(
        f"{root}: a person took over from a policy there: '{INTERVENTION}' is true in {led} of {len(learned.weights)} "
        "steps, and the others are the policy's own, which are no examples. lerobot-train would learn from all alike. "
        f"Learn from the person's: understudy train --data {root} --policy.type TYPE --corrections.weight 1 (then "
        "`understudy export RUN OUT` writes lerobot's layout); or from all of them on purpose: --policy.all_alike=true"
    )


def check_same_body(trained: Mapping, root: str | Path, inputs: tuple[str, ...]) -> None:
    """Refuse a dataset of another body than that of a checkpoint. Raises EmbodimentError by name."""
    Embodiment.from_dict(dict(trained)).check(open_dataset(root, columns=()).embodiment, inputs)


def batch_of(
    batch: Mapping[str, Any], inputs: Sequence[str], theirs: Sequence[str], recalled: int
) -> dict[str, Tensor]:
    """A batch of lerobot's as our windows (see `data.windows.Windows.gather`).

    Args:
        inputs: our observation keys that are read.
        theirs: lerobot's keys that there are.
        recalled: how many of the actions lie before now.
    """
    names = {key_of(key): key for key in theirs}
    obs = {key: _seen(key, batch[names[key]]) for key in inputs}
    first = obs[inputs[0]]
    pad = batch.get(f"{names[inputs[0]]}_is_pad")
    seen = first.new_ones(first.shape[:2], dtype=torch.bool) if pad is None else ~pad
    action = batch[ACTION].float()
    pad = batch.get("action_is_pad")
    valid = action.new_ones(action.shape[:2], dtype=torch.bool) if pad is None else ~pad
    if recalled:  # before an episode began there were no actions
        action = torch.cat([action[:, :recalled] * valid[:, :recalled, None], action[:, recalled:]], 1)
    return obs | {VALID: seen, ACTION: action, "action.valid": valid}


def seen_now(batch: Mapping[str, Any], inputs: Sequence[str], theirs: Sequence[str]) -> dict[str, Tensor]:
    """What a policy of ours is shown at one step, under our keys. Raises KeyError: lerobot handed no such thing."""
    names = {key_of(key): key for key in theirs}
    return {key: batch[names.get(key, key)] for key in inputs}


def open_offered(folder: Path, document: Mapping) -> tuple[nn.Module, dict]:
    """The policy of ours in a checkpoint that lerobot saved, and what a manifest says of it.

    Raises:
        ForeignError: settings or weights that are missing or do not fit, or a normalisation besides ours.
    """
    from .folder import Foreign
    from .planner import _about

    lookup("policy of ours in lerobot's layout", str(document["type"]), dict.fromkeys(PREFIX + kind for kind in KINDS))
    for name in ("policy", "embodiment"):
        if not isinstance(document.get(name), dict):
            raise ForeignError(f"{folder / 'config.json'} has no '{name}': saved before training, or cut off")
    _check_identity(folder, document)
    kind = str(document["policy"].get("type"))
    if PREFIX + kind != document["type"]:
        raise ForeignError(f"{folder / 'config.json'} is of type {document['type']}, but its policy is a '{kind}'")
    try:
        model = blank(document["policy"], document["embodiment"])
    except EmbodimentError as error:
        raise ForeignError(f"{folder / 'config.json'}: {error}") from error
    fill(model, folder / "model.safetensors")
    about = _about(Foreign(folder)) | {"type": kind, "config": dict(document["policy"])}
    return model.eval(), about


def fill(model: nn.Module, file: Path) -> None:
    """Read the weights that act. Raises CheckpointError for names or shapes that differ, NaN, impossible scales."""
    tensors = load_tensors(file)
    acting = AVERAGE if any(name.startswith(AVERAGE) for name in tensors) else MODEL
    kept = {name.removeprefix(acting): value for name, value in tensors.items() if name.startswith(acting)}
    check_like(file, kept, model.state_dict())
    model.load_state_dict(kept)
    check_scales(file, model)


def _check_identity(folder: Path, document: Mapping) -> None:
    """Refuse numbers that lerobot would scale besides: actions would come out in other units."""
    modes = dict(document.get("normalization_mapping") or {})
    where = "config.json"
    for name in (PREPROCESSOR, POSTPROCESSOR):
        for step in steps_of(folder, name) if (folder / name).is_file() else ():
            if step["registry_name"] in ("normalizer_processor", "unnormalizer_processor"):
                found = step.get("config", {}).get("norm_map", {})
                modes, where = modes | {key: mode for key, mode in found.items() if mode != "IDENTITY"}, name
    if wrong := {key: mode for key, mode in modes.items() if mode != "IDENTITY"}:
        key, mode = next(iter(wrong.items()))
        raise ForeignError(
            f"{folder / where} normalises {key} by {mode}; a policy of understudy scales inside, so lerobot must not: "
            "IDENTITY is expected. Train it again with --policy.normalization_mapping left out"
        )


def _settings(kind: str, source: str) -> dict[str, Any]:
    """Plain keys of the policy's settings, without its type."""
    import yaml

    if not source.strip():
        return {}
    if source.strip().endswith((".yaml", ".yml")):
        raw = load(source.strip())
    else:
        try:
            raw = yaml.safe_load(source)
        except yaml.YAMLError as error:
            raise ValueError(f"--policy.settings is neither a .yaml file nor YAML: {error}") from error
    if isinstance(raw, Mapping) and "policy" in raw and raw.get("corrections"):
        raise ValueError(
            f"--policy.settings={source.strip():.80} holds `corrections`: they say how often each step is drawn, and "
            "lerobot-train draws all alike; leave them out, or train by `understudy train`"
        )
    raw = raw.get("policy", raw) if isinstance(raw, Mapping) else raw
    if not isinstance(raw, Mapping):
        raise ValueError(f"--policy.settings must hold names and values, not {raw!r:.40}")
    said = raw.get("type", kind)
    if said != kind:
        raise ValueError(f"--policy.settings are of a '{said}'; give --policy.type={PREFIX}{said}")
    return {key: value for key, value in raw.items() if key != "type"}


def _seen(key: str, value: Tensor) -> Tensor:
    """(B, O, ...): vectors float32, pictures uint8 (B, O, h, w, 3), of lerobot's float (B, O, 3, h, w) in 0..1."""
    if not key.startswith(IMAGES):
        return value.float()
    pictures = value if value.dtype == torch.uint8 else (value * 255).round().clamp(0, 255).to(torch.uint8)
    return pictures.movedim(-3, -1).contiguous() if pictures.shape[-3] == 3 else pictures
