"""The task as a text: vectors of whole texts, from a frozen text encoder or learnt for the known tasks.

A policy that reads language is told which text holds (`Language.instruct`); in training every window brings the number
of its episode's text. The vectors of the texts that it was trained on are saved with it, so that acting by one of these
needs no text encoder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import draccus
import torch
from torch import Tensor, nn

from ...configs.extras import pip_install


class LanguageError(ValueError):
    """A text that cannot be read; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class LanguageConfig(draccus.ChoiceRegistry):
    """How the text of a task is read; `type` in YAML picks the registered subclass."""

    texts: tuple[str, ...] = field(default=())  # tasks that are told apart; none: those of the data, filled in
    features: int = 32  # numbers that the policy reads of a text

    width: ClassVar[int | None] = None  # W, numbers of a text's vector; None where they are learnt, `features` each

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors (n, W) of texts, of about unit variance.

        Raises:
            LanguageError: the encoder is not installed or not there.
        """
        raise LanguageError(f"a learnt table knows its own tasks alone: {', '.join(self.texts)}")


@LanguageConfig.register_subclass("table")
@dataclass(frozen=True, kw_only=True)
class TableConfig(LanguageConfig):
    """A vector learnt for each known task; reads no other."""


@LanguageConfig.register_subclass("wordllama")
@dataclass(frozen=True, kw_only=True)
class WordLlamaConfig(LanguageConfig):
    """Averaged token vectors of wordllama, whose weights come with its package (MIT, 16 MB); frozen."""

    width: ClassVar[int] = 256

    def encode(self, texts: Sequence[str]) -> Tensor:
        return _unit(torch.from_numpy(_wordllama().embed(list(texts)).copy()))


@LanguageConfig.register_subclass("transformers")
@dataclass(frozen=True, kw_only=True)
class TransformersConfig(LanguageConfig):
    """The averaged last layer of a text encoder that transformers opens, from a folder or a hub id; frozen."""

    path: str  # folder ($VAR expanded) or hub id
    width: int = field()  # type: ignore[misc]  # W, its hidden size

    def encode(self, texts: Sequence[str]) -> Tensor:
        tokenizer, model = _transformer(os.path.expandvars(self.path))
        if model.config.hidden_size != self.width:
            raise LanguageError(f"{self.path} gives {model.config.hidden_size} numbers a token; set width to that")
        tokens = tokenizer(list(texts), padding=True, return_tensors="pt")
        with torch.no_grad():
            last, mask = model(**tokens).last_hidden_state, tokens["attention_mask"][..., None]
        return _unit((last * mask).sum(1) / mask.sum(1))


class Language(nn.Module):
    """Which text holds, as F numbers."""

    vectors: Tensor  # (n, W) of the texts that were trained on

    def __init__(self, config: LanguageConfig):
        super().__init__()
        if not config.texts:
            raise LanguageError("no texts are known; name them (language.texts), or train on data that has tasks")
        self.config, width = config, config.width
        if width is None:
            self.vectors = nn.Parameter(torch.randn(len(config.texts), config.features))
        else:
            self.register_buffer("vectors", torch.zeros(len(config.texts), width))
        self.project = nn.Linear(width or config.features, config.features)
        self.text: str | None = config.texts[0] if len(config.texts) == 1 else None  # what acting is told
        self._told: Tensor | None = None  # (W,) vector of a text that is none of those trained on

    @property
    def features(self) -> int:
        return self.config.features

    def fill(self) -> None:
        """Encode the texts that are trained on; once, before training."""
        if self.config.width is not None:
            with torch.no_grad():
                self.vectors.copy_(self.config.encode(self.config.texts))

    def instruct(self, text: str) -> None:
        """Act by this text from now on.

        Raises:
            LanguageError: it was not trained on and cannot be encoded as in training; lists the known ones.
        """
        known, told = self.config.texts, None
        if not text and len(known) == 1:
            text = known[0]
        if text not in known:
            if not text:
                raise LanguageError(f"the policy does several tasks; --task_text takes one of: {', '.join(known)}")
            try:
                told, again = self.config.encode([text, known[0]]).to(self.vectors.device)
            except LanguageError as error:
                raise LanguageError(
                    f"the text '{text}' was not trained on ({error}); --task_text takes one of: {', '.join(known)}"
                ) from error
            if not torch.allclose(again, self.vectors[0], rtol=1e-2, atol=1e-2):
                raise LanguageError(
                    f"the text encoder is not the one of the training: it reads '{known[0]}' otherwise. Bring that "
                    f"back, or give --task_text one of: {', '.join(known)}"
                )
        self.text, self._told = text, told

    def read(self, numbers: Tensor | None, count: int) -> Tensor:
        """(count, F) of the texts' numbers (count,), or of the text that acting was told.

        Raises:
            LanguageError: nobody said which text holds.
        """
        if numbers is not None:
            return self.project(self.vectors[numbers])
        if self.text is None:
            known = ", ".join(self.config.texts)
            raise LanguageError(
                f"the policy does several tasks and was not told which; --task_text takes one of: {known}"
            )
        vector = self.vectors[self.config.texts.index(self.text)] if self._told is None else self._told
        return self.project(vector).expand(count, -1)


def _unit(vectors: Tensor) -> Tensor:
    """Each vector (n, W) with a mean square of 1."""
    return vectors / vectors.square().mean(1, keepdim=True).sqrt().clamp_min(1e-6)


@lru_cache(maxsize=1)
def _wordllama():
    try:
        import wordllama
    except ImportError as error:
        raise LanguageError(f"wordllama is not installed ({error}): {pip_install('vision')}") from error
    # 0.4.0 looks for its own tokenizer in a folder `tokenizer` and ships `tokenizers`; as a cache it is found
    return wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)


@lru_cache(maxsize=1)
def _transformer(path: str):
    try:
        from ...configs.compat import prepare_torchvision

        prepare_torchvision()
        from transformers import AutoModel, AutoTokenizer

        return AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    except (ImportError, OSError, ValueError) as error:
        raise LanguageError(f"the text encoder {path} cannot be opened: {error}") from error
