"""A vision-language model behind an OpenAI-compatible endpoint (`POST URL/chat/completions`), asked over HTTP.

Frames travel as data URLs of PNG. The key comes from the environment and goes into one header; it is in no record and
no message, and no redirection carries it elsewhere. What an endpoint may do wrong is bounded: the time of an answer,
its length, and how often it is asked again.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
import warnings
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ...policies.data.encode import png
from .judges import JudgeError
from .prompt import CUT, Question

if TYPE_CHECKING:
    from .judges import VlmJudge

AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)  # statuses after which it is asked again
FIRST, LONGEST = 0.5, 30.0  # s before it is asked again: doubled each time, at most
MOST = 4_000_000  # bytes of an answer
SHOWN = 300  # letters of an endpoint's complaint
NEAR = ("localhost", "127.0.0.1", "::1")


class _Stays(HTTPRedirectHandler):
    """Follows no redirection, which would carry films and key to another address."""

    def redirect_request(self, *_):
        return None


class _Busy(Exception):
    """Ask again, after `wait` seconds if the endpoint says so."""

    def __init__(self, why: str, wait: float | None = None):
        super().__init__(why)
        self.wait = wait


class Endpoint:
    """See `judges.Answers`. Raises JudgeError where the variable of the key is not set."""

    def __init__(self, config: VlmJudge):
        self.config, self.url = config, f"{config.url.rstrip('/')}/chat/completions"
        self._key = os.environ.get(config.key, "").strip() if config.key else ""
        if config.key and not self._key:
            raise JudgeError(f"the environment variable {config.key} (`key` of the judge) is not set, or empty")
        if self._key and not (self._key.isascii() and self._key.isprintable()):
            raise JudgeError(f"the environment variable {config.key} holds letters that no key has")
        parts = urlsplit(config.url)
        if self._key and parts.scheme == "http" and parts.hostname not in NEAR:
            warnings.warn(f"the key travels to {parts.hostname} unencrypted: its address is no https", stacklevel=2)
        self._opener = build_opener(_Stays)

    def answer(self, asked: Question, number: int) -> str:
        body = json.dumps(self._body(asked, number)).encode()
        wait = FIRST
        for attempt in range(self.config.retries + 1):
            try:
                return self._content(self._post(body))
            except _Busy as busy:
                if attempt == self.config.retries:
                    times = f"asked {attempt + 1} times" if attempt else "asked once"
                    raise JudgeError(f"{self.url} ({times}): {busy}") from busy
                time.sleep(min(LONGEST, wait if busy.wait is None else busy.wait))
                wait *= 2
        raise AssertionError("unreachable")

    def _body(self, asked: Question, number: int) -> dict[str, Any]:
        frames = [{"type": "image_url", "image_url": {"url": data_url(frame)}} for frame in asked.frames]
        content = [{"type": "text", "text": asked.begin}, *frames, {"type": "text", "text": asked.end}]
        body = {
            "model": self.config.model,
            "messages": [{"role": "system", "content": asked.system}, {"role": "user", "content": content}],
            "temperature": self.config.temperature,
            "max_tokens": self.config.tokens,
        }
        return body | ({"seed": self.config.seed + number} if self.config.temperature else {})

    def _post(self, body: bytes) -> bytes:
        """The bytes of the answer. Raises _Busy, or JudgeError where asking again is of no use."""
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        until = time.monotonic() + self.config.timeout
        try:
            with self._opener.open(Request(self.url, body, headers), timeout=self.config.timeout) as response:
                return _read(response, until)
        except HTTPError as error:
            why = f"status {error.code} {error.reason}: {self._hidden(_text(error, until))}".rstrip(": ")
            if error.code in AGAIN:
                raise _Busy(why, _retry_after(error)) from error
            raise JudgeError(f"{self.url} refuses: {why}{self._advice(error.code)}") from error
        except TimeoutError as error:
            raise _Busy(f"no answer within {self.config.timeout:g} s (`timeout` of the judge)") from error
        except URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise _Busy(f"no answer within {self.config.timeout:g} s (`timeout` of the judge)") from error
            raise _Busy(f"cannot be reached: {error.reason}") from error
        except (http.client.HTTPException, OSError) as error:
            raise _Busy(f"broke off: {type(error).__name__} {error}".strip()) from error

    def _content(self, data: bytes) -> str:
        """The text of an answer. Raises JudgeError where it is none of this protocol."""
        try:
            choice = json.loads(data)["choices"][0]
            content, cut = choice["message"]["content"], choice.get("finish_reason") == "length"
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            shown = self._hidden(data[:SHOWN].decode("utf-8", errors="replace"))
            raise JudgeError(f"{self.url} answers in another protocol than OpenAI's: {shown}") from error
        if content is None:  # nothing but thoughts, or a refusal
            return ""
        if isinstance(content, list):  # of parts
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        return f"{content}{CUT}" if cut else str(content)

    def _advice(self, code: int) -> str:
        if 300 <= code < 400:
            return "; it has moved: give the new `url` of the judge"
        if code in (401, 403):
            told = f"the key in {self.config.key}" if self.config.key else "`key`, the variable of its key"
            return f"; look at {told}"
        return "; `url` ends before /chat/completions, and `model` is a name that it knows" if code == 404 else ""

    def _hidden(self, text: str) -> str:
        """What an endpoint said, on one line, without the key, which some repeat."""
        text = text.replace(self._key, "[key]") if self._key else text
        return " ".join(text.split())[:SHOWN]


def data_url(frame) -> str:
    """A frame, uint8 (h, w, 3), as a data URL of PNG."""
    return f"data:image/png;base64,{base64.b64encode(png(frame)).decode()}"


def _read(response, until: float) -> bytes:
    """All of an answer that comes in time. Raises TimeoutError, or JudgeError for one that is too long."""
    parts, size = [], 0
    while part := response.read1(65536):
        parts.append(part)
        size += len(part)
        if size > MOST:
            raise JudgeError(f"an answer of more than {MOST} bytes is none")
        if time.monotonic() > until:
            raise TimeoutError
    if response.length:  # what was announced and never came
        raise http.client.IncompleteRead(b"".join(parts), response.length)
    return b"".join(parts)


def _text(error: HTTPError, until: float) -> str:
    """The complaint that came with a status, if one did."""
    try:
        return _read(error, until).decode("utf-8", errors="replace")
    except (OSError, http.client.HTTPException, JudgeError, AttributeError):
        return ""


def _retry_after(error: HTTPError) -> float | None:
    """The seconds that an endpoint asks to wait; it may also give a date, which is not read."""
    try:
        return max(0.0, float(error.headers.get("Retry-After", "")))
    except ValueError:
        return None
