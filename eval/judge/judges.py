"""The judges that can be asked: settings, each of a registered type. What computes is in `local.py`, `endpoint.py`.

A judge of another kind is one class that registers itself and opens something that answers a `Question` in words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import urlsplit

import draccus

from ...configs.settings.decode import decode_choice
from ..ledger.labels import FAILURE, NEITHER, SUCCESS
from .prompt import Question, Rubric, enlarged, question, read_answer

LONGEST = 200  # letters of an answer that are kept
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class JudgeError(ValueError):
    """A judge that cannot be asked, or does not answer; the message says what to do."""


class Answers(Protocol):
    """What is asked about films."""

    def answer(self, asked: Question, number: int) -> str:
        """What it says. `number` tells repeated questions about one film apart. Raises JudgeError."""
        ...


@dataclass(frozen=True, kw_only=True)
class FilmJudge(draccus.ChoiceRegistry):
    """What every judge is told. The registered subclasses are the values of `type`."""

    task: str = ""  # one sentence: what the robot was to do; by default what the record or dataset says
    success: tuple[str, ...] = ()  # what counts as success, a sentence each
    failure: tuple[str, ...] = ()  # what counts as failure, a sentence each

    @property
    def name(self) -> str:
        """Whose verdicts they are, in files and tables."""
        raise NotImplementedError


@FilmJudge.register_subclass("person")
@dataclass(frozen=True, kw_only=True)
class PersonJudge(FilmJudge):
    """A person who clicks on a page."""

    seed: int = 0  # of the order in which films are shown

    @property
    def name(self) -> str:
        return "person"


@dataclass(frozen=True, kw_only=True)
class ModelJudge(FilmJudge):
    """A model that looks at some frames of a film and answers in words."""

    frames: int = 8  # of a film, at most: the first, the last, and some between
    side: int = 256  # pixels of the shorter side, to which smaller frames are enlarged
    samples: int = 1  # answers to each film, of which more than half must agree
    temperature: float = 0.0  # 0: the likeliest answer

    def __post_init__(self):
        for name, least in (("frames", 2), ("side", 1), ("samples", 1)):
            if getattr(self, name) < least:
                raise JudgeError(f"{name} of a judge is at least {least}, got {getattr(self, name)}")
        if self.temperature < 0:
            raise JudgeError(f"temperature of a judge is 0 or more, got {self.temperature:g}")
        if self.samples > 1 and not self.temperature:
            raise JudgeError(f"{self.samples} samples at temperature 0 are one and the same; give a temperature, or 1")

    def open(self) -> Answers:
        """What answers. Raises JudgeError."""
        raise NotImplementedError


@FilmJudge.register_subclass("vlm")
@dataclass(frozen=True, kw_only=True)
class VlmJudge(ModelJudge):
    """A vision-language model, of transformers here or behind an OpenAI-compatible endpoint."""

    model: str = ""  # folder or hub id of transformers; with url the name that the endpoint knows
    url: str = ""  # of an OpenAI-compatible endpoint, such as http://localhost:8000/v1; by default the model runs here
    key: str = ""  # environment variable that holds the endpoint's key, such as OPENAI_API_KEY; by default it has none
    timeout: float = 60.0  # s that an answer of the endpoint may take
    retries: int = 3  # times that the endpoint is asked again where it is busy or out of reach
    tokens: int = 8  # length of an answer at most; models that think aloud need hundreds
    seed: int = 0  # of answers at a temperature
    device: str = "cpu"  # cpu | cuda, of a model that runs here
    precision: str = "no"  # of a model that runs here: no (float32) or bf16

    def __post_init__(self):
        super().__post_init__()
        if not self.model:
            raise JudgeError("a judge of type vlm needs `model`: a folder or hub id, or with `url` the endpoint's name")
        if self.precision not in ("no", "bf16"):
            raise JudgeError(f"precision of a judge is no or bf16, got '{self.precision}'")
        if self.timeout <= 0 or self.retries < 0 or self.tokens < 1:
            raise JudgeError(
                "a judge's timeout is above 0, its retries are 0 or more, its tokens 1 or more; got "
                f"{self.timeout:g}, {self.retries}, {self.tokens}"
            )
        for name in ("device", "precision") if self.url else ("key", "timeout", "retries"):
            if getattr(self, name) != getattr(VlmJudge, name):
                where = "runs behind a url" if self.url else "runs here, without `url`"
                raise JudgeError(f"`{name}` says nothing of a judge that {where}; leave it out")
        if self.key and not VARIABLE.fullmatch(self.key):  # which is not repeated: it may be the key itself
            raise JudgeError(
                "`key` of a judge names an environment variable, such as OPENAI_API_KEY, and never holds the key itself"
            )
        if self.url:
            _check_url(self.url)

    @property
    def name(self) -> str:
        return f"vlm {self.model}"


def _check_url(url: str) -> None:
    """Refuse an address that no request can go to, or that holds a secret, which records would repeat."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise JudgeError("`url` of a judge may hold no name, password or query; name the variable of a key: `key`")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise JudgeError(f"`url` of a judge is http://... or https://..., got '{url}'")


def read_judge(source: str | Mapping) -> FilmJudge:
    """The judge that `source` describes: a type alone, or a mapping with `type` and its settings.

    Raises:
        ValueError: no such type, unknown settings, or settings that do not go together.
    """
    raw: dict[str, Any] = {"type": source} if isinstance(source, str) else dict(source)
    if "type" not in raw:
        raise JudgeError(f"a judge needs its `type`: {', '.join(sorted(FilmJudge.get_known_choices()))}")
    return decode_choice(FilmJudge, raw)


def rubric_of(config: FilmJudge, task: str, views: tuple[str, ...] = ()) -> Rubric:
    """What films are judged by; the task that a record names serves where the settings give none.

    Raises:
        JudgeError: nobody says what the robot was to do.
    """
    said = config.task or task
    if not said:
        raise JudgeError("nobody says what the robot was to do; give the judge `task`, one sentence")
    return Rubric(task=said, success=config.success, failure=config.failure, views=views)


def ask(config: ModelJudge, model: Answers, rubric: Rubric, frames: list) -> tuple[str, str]:
    """(verdict, answers) of a film, one of `labels.VERDICTS`.

    Args:
        frames: those chosen of the film, uint8 (h, w, 3).
    """
    asked = question(rubric, tuple(enlarged(frame, config.side) for frame in frames))
    said = [model.answer(asked, number) for number in range(config.samples)]
    read = [read_answer(text) for text in said]
    told = " | ".join(" ".join(text.split()) for text in said)[:LONGEST]
    for verdict, meant in ((SUCCESS, True), (FAILURE, False)):
        if 2 * read.count(meant) > len(read):
            return verdict, told
    return NEITHER, told


def settled(config: VlmJudge) -> VlmJudge:
    """The settings with `$VAR` of the model's path expanded."""
    return config if config.url else replace(config, model=os.path.expandvars(config.model))
