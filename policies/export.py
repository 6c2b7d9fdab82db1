"""`understudy export RUN DST`: a policy of ours as a checkpoint of lerobot's plug-in types, and back.

    understudy export runs/lift out/lift_lerobot    # then: lerobot-eval --policy.path=out/lift_lerobot ...
    understudy export out/train/checkpoints/last/pretrained_model runs/back --to understudy

Only settings that every version of lerobot from 0.4.4 on knows are written, so that a checkpoint of a newer lerobot,
exported again, opens in an older one. What has no type in the plug-in (`offered.KINDS`) is refused by name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..configs.files import new_folder
from ..configs.spec import ACTION, IMAGES, SCENE, STATE

if TYPE_CHECKING:
    from torch import nn

FEATURES = {STATE: "STATE", SCENE: "ENV"}
IDENTITY = dict.fromkeys(("VISUAL", "STATE", "ENV", "ACTION"), "IDENTITY")


class To(Enum):
    """Whose layout is written."""

    lerobot = "lerobot"  # config.json, model.safetensors, policy_preprocessor.json, policy_postprocessor.json
    understudy = "understudy"  # a checkpoint as `understudy train` writes it


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a policy in lerobot's checkpoint layout, or one that lerobot trained in ours."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("policy", "out")
    DISCOVER: ClassVar[tuple[str, ...]] = ("policies",)

    policy: str  # run or checkpoint folder, of ours or of lerobot's plug-in types
    out: str  # folder to write; must not exist
    to: To = To.lerobot  # layout that is written: lerobot | understudy

    def run(self) -> None:
        """Write the folder beside and rename it.

        Raises:
            CheckpointError: what cannot be written so, by name. FileExistsError: `out` holds something.
        """
        from .learning.checkpoint import find_checkpoint, save_checkpoint

        out = Path(os.path.expandvars(self.out)).expanduser()
        model = exportable(self.policy)
        if out.exists() and (out.is_file() or any(out.iterdir())):
            raise FileExistsError(f"{out} exists; choose another folder")
        if self.to is To.understudy:
            save_checkpoint(out, model, kind="policy", config=model.config)
        else:
            write_lerobot(out, model)
        print(f"{out}: {find_checkpoint(self.policy)} in the layout of {self.to.value}")


def exportable(source: str) -> Any:
    """The policy of ours in a folder. Raises CheckpointError for what the plug-in has no type for."""
    from ..configs.protocols import keeps
    from .foreign.offered import KINDS, NOT_OFFERED
    from .kinds import PolicyConfig
    from .learning.checkpoint import CheckpointError
    from .load import load_policy
    from .policy import Configured

    model, about = load_policy(source)
    kind = str(about["type"])
    if kind.startswith("lerobot/"):
        raise CheckpointError(
            f"{source} is lerobot's own {kind.removeprefix('lerobot/')}: it acts here as it is (give its folder "
            "wherever a policy is asked for), and there is nothing to convert"
        )
    config = model.config if keeps(model, Configured) else None
    if kind not in KINDS or not isinstance(config, PolicyConfig):
        raise CheckpointError(f"{source} is a '{kind}', which has no type in lerobot; there are {', '.join(KINDS)}")
    for name, what in NOT_OFFERED.items():
        if getattr(config, name, None):
            raise CheckpointError(f"{source} reads {what} (`{name}`), which lerobot does not hand to a policy")
    return model


def write_lerobot(out: Path, model: nn.Module) -> None:
    """A checkpoint that lerobot's plug-in opens. Raises OSError, FileExistsError; nothing half-written stays."""
    from safetensors.torch import save_file

    documents = documents_of(model)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}

    def fill(half: Path) -> None:
        half.mkdir(exist_ok=True)
        for name, document in documents.items():
            (half / name).write_text(json.dumps(document, indent=2))
        from .foreign.offered import AVERAGE, MODEL

        tensors = {prefix + name: value.clone() for prefix in (MODEL, AVERAGE) for name, value in weights.items()}
        save_file(tensors | {"averaged": _none_yet()}, half / "model.safetensors")

    new_folder(out, fill)


def documents_of(model: Any) -> dict[str, dict]:
    """File name -> what lerobot reads beside the weights."""
    from .foreign.offered import PREFIX, described

    told = described(model)
    features = {key: _feature(key, model.embodiment) for key in model.inputs}
    acted = {ACTION: {"type": "ACTION", "shape": [len(model.embodiment.action)]}}
    config = {
        "type": PREFIX + told["policy"]["type"],
        "input_features": features,
        "output_features": acted,
        "device": "cpu",
        "push_to_hub": False,
        "n_action_steps": model.n_action_steps,
        "normalization_mapping": IDENTITY,
    }
    scaling = {"eps": 1e-8, "norm_map": IDENTITY}
    steps: list[tuple[str, Mapping]] = [
        ("rename_observations_processor", {"rename_map": {}}),
        ("to_batch_processor", {}),
        ("device_processor", {"device": "cpu", "float_dtype": None}),
        ("normalizer_processor", scaling | {"features": features | acted}),
    ]
    back: list[tuple[str, Mapping]] = [
        ("unnormalizer_processor", scaling | {"features": acted}),
        ("device_processor", {"device": "cpu", "float_dtype": None}),
    ]
    return {
        "config.json": config | told,
        "embodiment.json": told["embodiment"],
        "policy_preprocessor.json": _pipeline("policy_preprocessor", steps),
        "policy_postprocessor.json": _pipeline("policy_postprocessor", back),
    }


def _feature(key: str, body: Any) -> dict[str, Any]:
    if key.startswith(IMAGES):
        return {"type": "VISUAL", "shape": [3, *body.cameras[key.removeprefix(IMAGES)]]}
    return {"type": FEATURES[key], "shape": [len(body.offers()[key])]}


def _pipeline(name: str, steps: list[tuple[str, Mapping]]) -> dict[str, Any]:
    return {"name": name, "steps": [{"registry_name": step, "config": dict(config)} for step, config in steps]}


def _none_yet():
    import torch

    return torch.zeros((), dtype=torch.int64)
