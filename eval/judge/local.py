"""A vision-language model of transformers on this machine, from a folder or hub id.

Opened by `AutoProcessor` and `AutoModelForImageTextToText`, from safetensors alone and without code that comes with a
model. Weights must all be there: transformers draws missing ones at random, and would only warn.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from ...configs.compat import prepare_torchvision
from ...configs.extras import pip_install
from .judges import JudgeError, settled
from .prompt import CUT, Question

if TYPE_CHECKING:
    from .judges import VlmJudge

SAFE: dict[str, Any] = {"trust_remote_code": False}


class LocalModel:
    """See `judges.Answers`. Raises JudgeError for a model that cannot be opened, or is none that sees and writes."""

    def __init__(self, config: VlmJudge):
        import torch

        self.config = settled(config)
        library = _library()
        wanted = torch.bfloat16 if config.precision == "bf16" else torch.float32
        options = SAFE | {"use_safetensors": True, "dtype": wanted, "output_loading_info": True}
        try:
            self.processor = library.AutoProcessor.from_pretrained(self.config.model, **SAFE)
            model, loaded = library.AutoModelForImageTextToText.from_pretrained(self.config.model, **options)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError) as error:
            why = " ".join(str(error).split())[:400]
            raise JudgeError(
                f"transformers cannot open '{config.model}' as a model that sees and writes: {why}"
            ) from error
        wrong = {kind: sorted(map(str, loaded.get(f"{kind}_keys") or ())) for kind in ("missing", "mismatched")}
        for kind, names in wrong.items():
            if names:
                raise JudgeError(
                    f"{config.model}: weights are {kind}, such as {names[0]} ({len(names)} in all); they would be "
                    "random, and so would be the verdicts"
                )
        if not getattr(self.processor, "chat_template", None):
            raise JudgeError(f"{config.model} says nothing of how it is asked (no chat template); take a tuned model")
        self.model = model.to(config.device).eval()

    def answer(self, asked: Question, number: int) -> str:
        import torch
        from jinja2 import TemplateError
        from PIL import Image

        seen = [{"type": "image"} for _ in asked.frames]
        content = [{"type": "text", "text": asked.begin}, *seen, {"type": "text", "text": asked.end}]
        told = [
            {"role": "system", "content": [{"type": "text", "text": asked.system}]},
            {"role": "user", "content": content},
        ]
        frames = [Image.fromarray(np.ascontiguousarray(frame)) for frame in asked.frames]
        try:
            text = self.processor.apply_chat_template(told, add_generation_prompt=True, tokenize=False)
            self._check_whole(text, asked)
            given = self.processor(text=[text], images=[frames], return_tensors="pt").to(self.config.device)
            if "token_type_ids" not in inspect.signature(self.model.forward).parameters:
                given.pop("token_type_ids", None)  # of transformers 4, which `generate` refuses then
        except JudgeError:
            raise
        except (ValueError, TypeError, IndexError, RuntimeError, TemplateError) as error:
            why = " ".join(str(error).split())[:400]
            raise JudgeError(f"{self.config.model} cannot be asked about {len(frames)} frames: {why}") from error
        warm = self.config.temperature > 0
        options = (
            {"do_sample": True, "temperature": self.config.temperature, "top_k": 0} if warm else {"do_sample": False}
        )
        with torch.no_grad(), torch.random.fork_rng(devices=_devices(self.config.device)):
            torch.manual_seed(self.config.seed + number)
            out = self.model.generate(**_cast(given, self.model.dtype), max_new_tokens=self.config.tokens, **options)
        fresh = out[:, given["input_ids"].shape[1] :]
        said = self.processor.batch_decode(fresh, skip_special_tokens=True)[0]
        return said if self._ended(fresh[0].tolist()) else f"{said}{CUT}"

    def _check_whole(self, text: str, asked: Question) -> None:
        """Raise JudgeError where the chat template of the model leaves a part of the question out."""
        for what, part in (("its role", asked.system), ("the task", asked.begin), ("what to answer", asked.end)):
            if part.strip() not in text:
                raise JudgeError(
                    f"the chat template of {self.config.model} leaves out {what}, so it would be asked something else; "
                    "take a model whose template has a system role, and texts beside pictures"
                )

    def _ended(self, tokens: list[int]) -> bool:
        """Whether an answer came to its end by itself."""
        end = self.model.generation_config.eos_token_id
        ends = {end} if isinstance(end, int) else set(end or ())
        return len(tokens) < self.config.tokens or bool(ends & set(tokens))


def _cast(given: Any, dtype: Any) -> dict[str, Any]:
    """The inputs, pictures in the precision of the weights."""
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in given.items()}


def _devices(device: str) -> list[int]:
    """Of which the state of random numbers is put back."""
    import torch

    return [torch.cuda.current_device()] if device.startswith("cuda") else []


def _library() -> Any:
    prepare_torchvision()
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise JudgeError(f"transformers is not installed ({error}): {pip_install('vision')}") from error
