"""lerobot's own processors around its own `predict_action_chunk`: what a policy of lerobot's says to our observations.

Pictures reach a policy in the size that its checkpoint states, except where the policy itself fits any size into its
own, with padding (SmolVLA, pi0, pi0.5): a picture stretched beforehand would be another one.

A tokenizer that lies in the folder `tokenizer` of a checkpoint is taken in place of the one that the processors name,
and a model in the folder `vlm` in place of `vlm_model_name`: such a checkpoint needs no network and no cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...configs.spec import IMAGES
from .diffusion import as_pictures
from .folder import Foreign, lacks_files
from .scale import PLAIN_STEPS, POSTPROCESSOR, PREPROCESSOR, ForeignError, check_statistics, renames_of, steps_of

TOKENIZER = "tokenizer"  # folder of a checkpoint
FAILURES = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError)  # of lerobot's code
PADS = {"smolvla": "resize_imgs_with_padding", "pi0": "image_resolution", "pi05": "image_resolution"}  # type -> setting


class LeRobotChunks(nn.Module):
    """lerobot's own processors around its own `predict_action_chunk`; `task` is the instruction if it reads one."""

    def __init__(self, foreign: Foreign, keys: Mapping[str, str], task: str = ""):
        super().__init__()
        self.foreign, self.keys, self.task = foreign, dict(keys), task
        self.policy: Any = foreign.build()
        self.before, self.after = _processors(foreign, self.policy.config)
        self.named = {new: old for old, new in renames_of(foreign.folder).items()}  # as `before` looks for them
        self.pads = bool(getattr(self.policy.config, PADS.get(foreign.kind, ""), None))  # takes pictures of any size

    @property
    def reads_text(self) -> bool:
        """Whether the text of the task may change what it does: something before it is more than numbers scaled."""
        names = {getattr(type(step), "_registry_name", "") for step in self.before.steps}
        return not names <= PLAIN_STEPS

    def forward(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Observations (M, O, ...) in units -> actions (M, H, D) in units."""
        self.policy.reset()
        frames = next(iter(rows.values())).shape[1]
        for frame in range(frames):
            batch = self.remember({key: value[:, frame] for key, value in rows.items()})
        return self.after(self.policy.predict_action_chunk(batch).cpu())

    def remember(self, obs: Mapping[str, Tensor]) -> dict:
        """One frame (M, ...) through the processors and into the policy's queues, if it has any."""
        batch = {self.named.get(own, own): self._units(key, own, obs[key]).cpu() for key, own in self.keys.items()}
        batch = self.before(batch | {"task": [self.task] * len(next(iter(obs.values())))})
        device = next(self.policy.parameters()).device
        batch = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
        batch.pop("action", None)  # None, but some policies look for it in their queues
        queues = getattr(self.policy, "_queues", {})
        if "observation.images" in queues and self.policy.config.image_features:
            pictures = [batch[key] for key in self.policy.config.image_features]
            batch["observation.images"] = torch.stack(pictures, -4)
        if queues:
            from lerobot.policies.utils import populate_queues

            populate_queues(queues, batch, exclude_keys=["action"])
        return batch

    def _units(self, key: str, own: str, value: Tensor) -> Tensor:
        if not key.startswith(IMAGES):
            return value
        stated = self.foreign.config["input_features"][own]["shape"][1:]
        return as_pictures(value, (value.shape[-3], value.shape[-2]) if self.pads else stated)


def _processors(foreign: Foreign, config):
    """lerobot's pipelines: as saved, or made from the statistics among old weights."""
    from lerobot.policies.factory import make_pre_post_processors

    if not (foreign.folder / PREPROCESSOR).is_file():
        stats = {key: dict(rule.stats) for key, rule in foreign.rules.items() if rule.stats}
        return make_pre_post_processors(config, dataset_stats=stats)
    check_statistics(foreign.folder)
    changes = {"device_processor": {"device": "cpu"}}
    if (foreign.folder / TOKENIZER).is_dir():
        changes["tokenizer_processor"] = {"tokenizer_name": str(foreign.folder / TOKENIZER)}
    steps = {name: steps_of(foreign.folder, name) for name in (PREPROCESSOR, POSTPROCESSOR)}
    named = {name: {step["registry_name"] for step in steps[name]} for name in steps}
    here = {name: {one: to for one, to in changes.items() if one in named[name]} for name in steps}
    try:
        return make_pre_post_processors(
            config,
            pretrained_path=str(foreign.folder),
            preprocessor_overrides=here[PREPROCESSOR],
            postprocessor_overrides=here[POSTPROCESSOR],
        )
    except (OSError, ValueError) as error:
        wanted = _tokenizer(foreign, steps[PREPROCESSOR])
        if wanted is None:
            raise
        raise ForeignError(lacks_files(foreign.kind, foreign.folder, error, wanted, TOKENIZER)) from error


def _tokenizer(foreign: Foreign, steps: list) -> str | None:
    """The tokenizer that is asked for by name or path; None where nothing is read as text."""
    if (foreign.folder / TOKENIZER).is_dir():
        return str(foreign.folder / TOKENIZER)
    asked = [step.get("config", {}) for step in steps if step["registry_name"] == "tokenizer_processor"]
    return next((str(settings.get("tokenizer_name")) for settings in asked), None)


def zeros(body, frames: int) -> dict[str, Tensor]:
    """Two rows of observations of a body that are all zero: key -> (2, frames, ...)."""
    rows = {}
    for key in body.keys:
        size, kind = (len(body.embodiment.offers()[key]),), torch.float32
        if key.startswith(IMAGES):
            size, kind = (*body.embodiment.cameras[key.removeprefix(IMAGES)], 3), torch.uint8
        rows[key] = torch.zeros(2, frames, *size, dtype=kind)
    return rows


def does_not_plan(foreign: Foreign, error: Exception) -> ForeignError:
    """What lerobot's code stumbled over, and packages of versions that it was not made for."""
    strange = [f"{name} {held} is installed, lerobot asks for {asked}" for name, held, asked in misfits("transformers")]
    beside = f" ({'; '.join(strange)})" if strange else ""
    return ForeignError(f"the {foreign.kind} policy of {foreign.folder} does not plan: {error!r}{beside}")


def misfits(*names: str) -> list[tuple[str, str, str]]:
    """(package, installed version, versions that the installed lerobot asks for), where the two do not agree."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    found = []
    for line in requires("lerobot") or ():
        asked = Requirement(line)
        try:
            held = version(asked.name) if asked.name in names and asked.specifier else ""
        except PackageNotFoundError:
            continue
        if held and not asked.specifier.contains(held, prereleases=True):
            found.append((asked.name, held, str(asked.specifier)))
    return list(dict.fromkeys(found))
