"""A lerobot checkpoint folder: recognised, read and built by lerobot's own classes, tolerant of other versions.

    pretrained_model/config.json         lerobot's settings with "type" (ours has "format" and "kind")
                     model.safetensors   weights, in old checkpoints with statistics among them
                     policy_preprocessor*.json, policy_postprocessor*.json and their safetensors (since 0.4)

Settings that the installed lerobot does not know are passed over with a warning; weights must fit exactly. lerobot is
imported here and nowhere else in `policies`, after `configs/compat.py` has made that safe. What a policy means by its
numbers stands in `scale.py` and `body.py`.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from ...configs.pointers import why_unread
from ...configs.spec import ACTION
from .scale import OLD_BUFFERS, ForeignError, ForeignWarning, Rule, old_buffers, read_rules

WEIGHTS = "model.safetensors"
VLM = "vlm"  # folder of a checkpoint: the vision-language model around which it is built, without its weights
REASONS = {  # types that act otherwise than by chunks
    "tdmpc": "plans by search from its last plan and returns time first",
    "sac": "returns single actions, no chunks",
    "gaussian_actor": "returns single actions, no chunks",  # what sac is called since 0.6
    "reward_classifier": "judges and does not act",
    "sarm": "judges and does not act",
    "robometer": "judges and does not act",
    "topreward": "judges and does not act",
}
EXTRAS = {"pi0": "pi", "pi05": "pi", "pi0_fast": "pi", "wall_x": "wallx"}  # types whose extra is called otherwise


@dataclass(frozen=True)
class Foreign:
    """A lerobot checkpoint on the disk."""

    folder: Path

    @cached_property
    def config(self) -> dict:
        """Its config.json. Raises ForeignError if it is incomplete."""
        config = read_json(self.folder / "config.json")
        for name in ("input_features", "output_features"):
            if not isinstance(config.get(name), dict):
                raise ForeignError(
                    f"{self.folder}/config.json has no '{name}': older than lerobot 0.2, or saved before training;"
                    " bring it up to date with lerobot"
                )
        if ACTION not in config["output_features"]:
            raise ForeignError(f"{self.folder}/config.json has no '{ACTION}' among its output_features")
        return config

    @property
    def kind(self) -> str:
        """lerobot's type, such as "diffusion"."""
        return self.config["type"]

    @property
    def temporal_ensemble(self) -> float | None:
        """Decay with which it blends the chunks that cover a step (ACT); None: the newest chunk alone counts.

        Raises:
            ForeignError: a negative one, by which newer chunks would count more.
        """
        decay = self.config.get("temporal_ensemble_coeff")
        if isinstance(decay, bool) or not isinstance(decay, (int, float, type(None))) or decay == math.inf:
            raise ForeignError(
                f"{self.folder}/config.json has temporal_ensemble_coeff {decay!r}, which is no decay; set it to 0 or"
                " more, or to null for the newest chunk alone"
            )
        if decay is not None and not decay >= 0:
            raise ForeignError(
                f"{self.folder}/config.json has temporal_ensemble_coeff {decay}: newer chunks would count more, which"
                " temporal ensembling here does not do; set it to 0 or more, or to null for the newest chunk alone"
            )
        return decay

    @cached_property
    def weights(self) -> Mapping[str, Tensor]:
        """All tensors of model.safetensors. Raises ForeignError if the file is missing or damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            loaded = load_file(self.folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            reason = why_unread(self.folder / WEIGHTS, error)
            raise ForeignError(
                f"{self.folder / WEIGHTS} cannot be read ({reason}); copy the whole `pretrained_model` folder"
            ) from error
        for name, value in loaded.items():  # statistics that were never filled are refused where they are used
            if value.is_floating_point() and not name.startswith(OLD_BUFFERS) and not bool(value.isfinite().all()):
                raise ForeignError(
                    f"{self.folder / WEIGHTS}: '{name}' holds NaN or infinity; copy the checkpoint again"
                )
        return {name.replace("._orig_mod", ""): value for name, value in loaded.items()}

    @cached_property
    def rules(self) -> dict[str, Rule]:
        """Feature -> how it is scaled."""
        return read_rules(self.folder, self.config, self.weights)

    def dims(self, key: str) -> int:
        """Size of a vector feature in the policy's own name; 0 if it has none."""
        feature = {**self.config["input_features"], **self.config["output_features"]}.get(key)
        return 0 if feature is None else int(feature["shape"][0])

    def build(self) -> nn.Module:
        """lerobot's policy with these weights, in evaluation mode on the CPU.

        Raises:
            ImportError: lerobot, or what it needs for this type, is not installed.
            LookupError: a type that the installed lerobot does not have.
            ForeignError: settings or weights that do not fit.
        """
        settings = self._settings()
        try:
            policy = _policy_class(self.kind)(settings)
        except ImportError as error:
            raise _lacks_packages(self.kind, error) from error
        except OSError as error:
            name = str(settings.vlm_model_name) if hasattr(settings, "vlm_model_name") else ""
            raise ForeignError(lacks_files(self.kind, self.folder, error, name, VLM)) from error
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            raise ForeignError(f"lerobot cannot build the {self.kind} policy of {self.folder}: {error}") from error
        _fill(policy, self.weights, self.folder)
        return policy.eval().requires_grad_(False)

    def _settings(self):
        """lerobot's configuration object; unknown settings are passed over."""
        import draccus

        kind = _config_class(self.kind, self.folder)
        self._say_what_is_not_done()
        known = {field.name for field in fields(kind)}
        strange = sorted(set(self.config) - known - {"type"})
        if strange:
            warnings.warn(
                f"{self.folder}/config.json: passed over what this lerobot does not know: {', '.join(strange)}",
                ForeignWarning,
                stacklevel=3,
            )
        values = {name: value for name, value in self.config.items() if name in known}
        values |= {name: None for name in ("pretrained_backbone_weights", "pretrained_path") if name in values}
        if "vlm_model_name" in known and (self.folder / VLM).is_dir():
            values["vlm_model_name"] = str(self.folder / VLM)
        try:
            return draccus.decode(kind, values | {"device": "cpu", "use_amp": False} | _plain_speed(values))
        except (draccus.ParsingError, ValueError, TypeError) as error:
            raise ForeignError(f"{self.folder}/config.json does not fit this lerobot: {error}") from error

    def _say_what_is_not_done(self) -> None:
        """Refuse weights that are an addition to others; warn of settings of acting that are left out here.

        All else of the settings is either lerobot's own, since its classes are built from it, or is of training alone.
        """
        if self.config.get("use_peft"):
            raise ForeignError(
                f"{self.folder}/config.json has use_peft: its weights are an adapter of another policy's, which are not"
                " in this folder; merge both (`merge_and_unload` of peft), save the result, and set it to false"
            )
        rtc = self.config.get("rtc_config")
        left_out = {
            "use_amp": self.config.get("use_amp") and "networks compute in full precision here",
            "rtc_config": isinstance(rtc, Mapping)
            and rtc.get("enabled")
            and "each chunk is planned afresh, without the rest of the one before",
        }
        for name, instead in left_out.items():
            if instead:
                warnings.warn(f"{self.folder}/config.json has {name}: {instead}", ForeignWarning, stacklevel=4)


def read_json(path: Path) -> dict:
    """A JSON object. Raises ForeignError if the file is missing, damaged or another thing."""
    try:
        values = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ForeignError(f"{path} cannot be read ({why_unread(path, error)})") from error
    if not isinstance(values, dict):
        raise ForeignError(f"{path} must hold names and values")
    return values


def _plain_speed(values: Mapping) -> dict:
    return {"compile_model": False} if "compile_model" in values else {}


def _config_class(kind: str, folder: Path):
    from ...configs.compat import prepare_lerobot

    prepare_lerobot()
    import lerobot.policies  # noqa: F401  registers the types
    from lerobot.configs.policies import PreTrainedConfig

    if kind in REASONS:
        raise ForeignError(f"{folder} holds a lerobot policy of type '{kind}', which {REASONS[kind]}; not supported")
    known = PreTrainedConfig.get_known_choices()
    if kind not in known:
        names = ", ".join(sorted(set(known) - set(REASONS)))
        raise LookupError(f"{folder} holds a policy of type '{kind}'; the installed lerobot knows {names}")
    return known[kind]


def _policy_class(kind: str):
    from lerobot.policies.factory import get_policy_class

    return get_policy_class(kind)


def _lacks_packages(kind: str, error: ImportError) -> ImportError:
    extra = EXTRAS.get(kind, kind.replace("_", "-"))
    return ImportError(
        f"lerobot policies of type '{kind}' need more than is installed ({error}): pip install 'lerobot[{extra}]'"
    )


def lacks_files(kind: str, folder: Path, error: Exception, name: str, place: str) -> str:
    """What a policy around a pretrained model needs beside its checkpoint, and where to put it.

    Args:
        name: what was asked for, by its name on the hub or its path.
        place: folder of the checkpoint that is looked into first.
    """
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    said = f"needs the {place} '{name}', which is not here" if name else "needs files of another model"
    advice = f"; put a copy of it into {folder / place}, or fetch '{name}' once with a network" if name else ""
    return f"the {kind} policy of {folder} {said} ({first}){advice}"


def _fill(policy: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Load weights, refusing what is missing, left over or of another shape. Shared tensors are saved only once."""
    kept = {name: value for name, value in weights.items() if name not in old_buffers(weights)}
    if hasattr(policy, "_fix_pytorch_state_dict_keys"):  # pi0 and pi0.5 as openpi names their weights
        kept = cast(Any, policy)._fix_pytorch_state_dict_keys(kept, policy.config)
        kept = {"model." + name.removeprefix("model."): value for name, value in kept.items()}
    try:
        missing, unexpected = policy.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        raise ForeignError(f"{folder / WEIGHTS} does not fit the network of config.json: {error}") from error
    state = policy.state_dict()
    held = {state[name].data_ptr() for name in kept if name in state}
    missing = [name for name in missing if state[name].data_ptr() not in held]
    for names, what in ((missing, "lacks"), (unexpected, "has the unknown")):
        if names:
            raise ForeignError(
                f"{folder / WEIGHTS} does not fit the network of config.json: it {what} weight '{names[0]}'"
                f" ({len(names)} in all)"
            )
