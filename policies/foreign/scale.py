"""How a lerobot checkpoint scales what it reads and says: its processors' statistics, or buffers among old weights.

Since 0.4 a checkpoint folder holds `policy_preprocessor.json` and `policy_postprocessor.json`, lists of named steps,
and safetensors files of statistics for the (un)normaliser. Before, the statistics were buffers of the model, named
`normalize_inputs.buffer_observation_state.mean` and so on. The formulas are those of lerobot's
`processor/normalize_processor.py` (0.4.4), in the same order of operations. This file needs no lerobot.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...configs.pointers import why_unread
from ...configs.spec import ACTION
from ..learning.checkpoint import CheckpointError
from ..policy import Scale

PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
OLD_BUFFERS = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")
# steps that change no number but by rename, place and scale; all others may, or read the text of the task
PLAIN_STEPS = {
    "rename_observations_processor",
    "to_batch_processor",
    "device_processor",
    "normalizer_processor",
    "unnormalizer_processor",
}
EPS = 1e-8  # lerobot's guard against a division by zero
# mode -> names of the statistics it needs; the first two end at -1 and 1, mean and std at 0 and 1
MODES = {
    "IDENTITY": (),
    "MIN_MAX": ("min", "max"),
    "MEAN_STD": ("mean", "std"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}


class ForeignError(CheckpointError):
    """A foreign checkpoint that cannot be used; the message says which part and what to do."""


class ForeignWarning(UserWarning):
    """Something of a foreign checkpoint was passed over or guessed."""


@dataclass(frozen=True)
class Rule:
    """How one feature is scaled."""

    mode: str  # of MODES
    stats: Mapping[str, Tensor]  # of the feature, e.g. "min" -> (D,) or (C, 1, 1)
    eps: float = EPS

    def ends(self) -> tuple[Tensor, Tensor] | None:
        """(offset, divisor) of the feature in units, None for no scaling."""
        if not MODES[self.mode]:
            return None
        first, second = (self.stats[name] for name in MODES[self.mode])
        if self.mode == "MEAN_STD":
            return first, second + self.eps
        width = second - first
        return first, torch.where(width == 0, self.eps, width)


class Normaliser(nn.Module):
    """Units -> what the network reads, bit for bit as lerobot does it. Buffers broadcast against (..., D) or CHW."""

    def __init__(self, rule: Rule):
        super().__init__()
        ends = rule.ends()
        self.plain, self.centred = ends is None, rule.mode == "MEAN_STD"
        offset, divisor = ends or (torch.zeros(1), torch.ones(1))
        self.register_buffer("offset", offset.float().clone())
        self.register_buffer("divisor", divisor.float().clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.plain:
            return x
        if self.centred:
            return (x - self.offset) / self.divisor
        return 2 * (x - self.offset) / self.divisor - 1


def action_scale(rule: Rule, dims: int) -> Scale:
    """The action's scaling as the scale that policies here share: -1..1 over (min, max), or offset and factor."""
    ends = rule.ends()
    if ends is None:
        return Scale(torch.zeros(dims), torch.ones(dims))
    offset, divisor = (part.double() for part in ends)
    if rule.mode == "MEAN_STD":
        return Scale(offset, rule.stats["std"].double().clamp(min=rule.eps))
    return Scale(offset + divisor / 2, divisor / 2)


def read_rules(folder: Path, config: Mapping, weights: Mapping[str, Tensor]) -> dict[str, Rule]:
    """Feature -> its rule; from the processors' files, else from the old buffers.

    Args:
        config: the checkpoint's config.json.
        weights: all tensors of model.safetensors.
    Raises:
        ForeignError: no statistics, statistics that are missing or never filled, an unknown mode.
    """
    features = {**config["input_features"], **config["output_features"]}
    if (folder / PREPROCESSOR).is_file():
        return _rules_of_processors(folder, features)
    modes, stats = config.get("normalization_mapping") or {}, _of_buffers(features, weights)
    wanted = [key for key, feature in features.items() if modes.get(feature["type"], "IDENTITY") != "IDENTITY"]
    if wanted and not stats:
        raise ForeignError(
            f"{folder} holds no statistics: neither {PREPROCESSOR} nor buffers among the weights; copy the whole"
            " `pretrained_model` folder that lerobot-train wrote"
        )
    return {
        key: _rule(folder, key, modes.get(f["type"], "IDENTITY"), stats.get(key, {}), EPS)
        for key, f in features.items()
    }


def warn_of_constants(folder: Path, rules: Mapping[str, Rule]) -> None:
    """Say which numbers that the policy reads never moved in its training: any other value is scaled beyond all."""
    for key, rule in rules.items():
        ends = rule.ends()
        if key == ACTION or ends is None or ends[0].ndim != 1:
            continue
        still = (ends[1].abs() <= 10 * rule.eps).nonzero().flatten().tolist()
        if still:
            first = still[0]
            warnings.warn(
                f"{folder}: number {first} of '{key}' was always {float(ends[0][first]):g} in its training, so lerobot"
                f" divides by {float(ends[1][first]):g} and any other value becomes immense; numbers of this kind:"
                f" {', '.join(map(str, still))}. Keep them at that value, or train without them",
                ForeignWarning,
                stacklevel=3,
            )


def old_buffers(weights: Mapping[str, Tensor]) -> set[str]:
    """Names of weights that are statistics of the old format."""
    return {name for name in weights if name.startswith(OLD_BUFFERS)}


def steps_of(folder: Path, name: str) -> list[dict]:
    """The steps of a processor file. Raises ForeignError unless each is one that lerobot has registered by name."""
    try:
        steps = json.loads((folder / name).read_text())["steps"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ForeignError(f"{folder / name} cannot be read ({error!r})") from error
    for step in steps:
        if "registry_name" not in step:
            code = step.get("class", "?")
            raise ForeignError(f"{folder / name} asks to run the code {code}; only lerobot's own named steps are run")
    return steps


def renames_of(folder: Path) -> dict[str, str]:
    """Observation key in the world -> key in the policy, of the steps that rename."""
    if not (folder / PREPROCESSOR).is_file():
        return {}
    found = (step for step in steps_of(folder, PREPROCESSOR) if step["registry_name"].startswith("rename_observations"))
    return {old: new for step in found for old, new in step["config"].get("rename_map", {}).items()}


def refuse_strange_steps(folder: Path) -> None:
    """Raise ForeignError for a step that changes numbers in a way this file does not know."""
    for name in (PREPROCESSOR, POSTPROCESSOR):
        for step in steps_of(folder, name) if (folder / name).is_file() else ():
            if step["registry_name"] not in PLAIN_STEPS:
                raise ForeignError(
                    f"step '{step['registry_name']}' of {folder / name} is not understood, so the policy has no field"
                    " here; as a black box it still acts"
                )
            if (dtype := step.get("config", {}).get("float_dtype")) not in (None, "float32"):
                raise ForeignError(
                    f"{folder / name} computes in {dtype}, which a field here does not; set its float_dtype to float32"
                )


def check_statistics(folder: Path) -> None:
    """Look at all that the processors of a checkpoint will compute with, as lerobot itself does not.

    Raises:
        ForeignError: a file outside of the folder or unreadable, statistics in use that are not finite or cannot be.
    """
    for name in (PREPROCESSOR, POSTPROCESSOR):
        for step in steps_of(folder, name) if (folder / name).is_file() else ():
            config, stats = step.get("config", {}), _statistics(folder, step)
            features = config.get("features", {})
            for key, held in stats.items():
                mode = config.get("norm_map", {}).get(features.get(key, {}).get("type"), "IDENTITY")
                used = {named: held[named] for named in MODES.get(mode, held) if named in held}
                _check_possible(folder, key, used if features else held)


def _check_possible(folder: Path, key: str, stats: Mapping[str, Tensor]) -> None:
    """Raise ForeignError for statistics that no data have."""
    for name, value in stats.items():
        if not bool(torch.isfinite(value).all()):
            raise ForeignError(f"{folder}: statistic '{name}' of '{key}' was never filled (not finite)")
    if "std" in stats and bool((stats["std"] < 0).any()):
        raise ForeignError(f"{folder}: statistic 'std' of '{key}' is negative; copy the checkpoint again")
    for low, high in (("min", "max"), ("q01", "q99"), ("q10", "q90")):
        if low in stats and high in stats and bool((stats[low] > stats[high]).any()):
            raise ForeignError(
                f"{folder}: statistic '{low}' of '{key}' is above its '{high}'; copy the checkpoint again"
            )


def _rules_of_processors(folder: Path, features: Mapping) -> dict[str, Rule]:
    """Observations are scaled by the preprocessor, actions by what the postprocessor undoes."""
    held = {
        PREPROCESSOR: _of_processor(folder, PREPROCESSOR, "normalizer_processor"),
        POSTPROCESSOR: _of_processor(folder, POSTPROCESSOR, "unnormalizer_processor"),
    }
    rules = {}
    for key, feature in features.items():
        config, stats = held[POSTPROCESSOR if key == ACTION and held[POSTPROCESSOR] else PREPROCESSOR] or ({}, {})
        kind = config.get("features", {}).get(key, feature)["type"]
        mode = config.get("norm_map", {}).get(kind, "IDENTITY")
        chosen = config.get("normalize_observation_keys")
        if key != ACTION and chosen is not None and key not in chosen:
            mode = "IDENTITY"
        rules[key] = _rule(folder, key, mode, stats.get(key, {}), config.get("eps", EPS))
    return rules


def _of_processor(folder: Path, name: str, kind: str) -> tuple[dict, dict[str, dict[str, Tensor]]] | None:
    """Settings and statistics of the scaling step of a processor; None without one."""
    scaling = [s for s in steps_of(folder, name) if s["registry_name"] == kind] if (folder / name).is_file() else []
    if not scaling:
        return None
    if len(scaling) > 1:
        raise ForeignError(f"{folder / name} scales {len(scaling)} times (steps '{kind}'); one such step is understood")
    (step,) = scaling
    return step.get("config", {}), _statistics(folder, step)


def _statistics(folder: Path, step: Mapping) -> dict[str, dict[str, Tensor]]:
    """Feature -> statistic -> its values, of one step of a processor; empty where it has none.

    Raises:
        ForeignError: a file that cannot be read, or lies outside of the folder.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (file := step.get("state_file")):
        return {}
    path = folder / str(file)
    if Path(str(file)).is_absolute() or ".." in Path(str(file)).parts:
        raise ForeignError(f"a processor of {folder} names the file '{file}', which is not inside the folder")
    try:
        flat = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ForeignError(f"{path} cannot be read ({why_unread(path, error)})") from error
    stats: dict[str, dict[str, Tensor]] = {}
    for name, value in flat.items():
        key, _, statistic = name.rpartition(".")
        stats.setdefault(key, {})[statistic] = value.float()
    return stats


def _of_buffers(features: Mapping, weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    stats: dict[str, dict[str, Tensor]] = {}
    names = {key.replace(".", "_"): key for key in features}
    for name in sorted(old_buffers(weights)):
        buffer, _, kind = name.partition(".")[2].removeprefix("buffer_").rpartition(".")
        if buffer in names:
            stats.setdefault(names[buffer], {})[kind] = weights[name].float()
    return stats


def _rule(folder: Path, key: str, mode: str, stats: Mapping[str, Tensor], eps: float) -> Rule:
    if mode not in MODES:
        raise ForeignError(f"{folder} scales '{key}' by {mode}, which is not known here; known: {', '.join(MODES)}")
    if not stats and key != ACTION:
        return Rule("IDENTITY", {})  # lerobot passes over features without statistics
    for name in MODES[mode]:
        if name not in stats:
            raise ForeignError(f"{folder} scales '{key}' by {mode} but holds no statistic '{name}' of it")
    _check_possible(folder, key, {name: stats[name] for name in MODES[mode]})
    return Rule(mode, stats, eps)
