"""The robot's end of the line, with a watchdog of its own: an answer counts, or nothing does.

An answer that comes too late, of another session, of another number, said twice or that nobody asked for ends the
line, as do a dead server, a stalled one and bytes that are no message. Each raises `RemoteError` with the reason, also
for every later ask; whoever drives an arm sends no more commands then, and its guard lets it stand.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from ...configs.extras import pip_install

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

PICTURES = ("raw", "jpeg")
OPENING = 10.0  # s to connect
LARGEST = 64 * 2**20  # bytes of one answer
Got = TypeVar("Got")


class RemoteError(ConnectionError):
    """A policy elsewhere gave no plan that counts; says why."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a policy server is, and how it is spoken to: `wss://HOST:PORT?token_file=F&patience=2`."""

    url: str  # without what is behind the question mark
    token_file: str | None = None
    ca: str | None = None  # certificate file that the server's must be signed by; None: those of this computer
    pictures: str = "raw"  # or jpeg
    quality: int = 90  # of JPEG, 1..100
    patience: float = 5.0  # s that an answer may take

    @classmethod
    def read(cls, text: str, schemes: dict[str, str]) -> Address:
        """Of a text; `schemes`: those that are known -> the websocket's. Raises ValueError."""
        parts = urlsplit(text)
        try:
            known = parts.scheme in schemes and bool(parts.hostname) and bool(parts.port)
        except ValueError:  # the port is none
            known = False
        if not known:
            raise ValueError(f"'{text}' is no address of a policy server; one is ws://HOST:PORT or wss://HOST:PORT")
        kinds: dict[str, Callable[[str], Any]] = {
            "token_file": str,
            "ca": str,
            "pictures": str,
            "quality": int,
            "patience": float,
        }
        settings: dict[str, Any] = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name not in kinds:
                raise ValueError(f"'{text}': '{name}' is not known; {', '.join(kinds)} are")
            try:
                settings[name] = kinds[name](value)
            except ValueError:
                raise ValueError(f"'{text}': {name} cannot be '{value}'") from None
        return cls(url=f"{schemes[parts.scheme]}://{parts.netloc}{parts.path}", **settings)

    def __post_init__(self) -> None:
        if self.pictures not in PICTURES:
            raise ValueError(f"pictures are sent {' or '.join(PICTURES)}, not '{self.pictures}'")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"the quality of JPEG is within 1..100, got {self.quality}")
        if not 0 < self.patience < 3600:
            raise ValueError(f"patience is in seconds, above 0, got {self.patience}")

    def token(self) -> str | None:
        """Raises OSError, ValueError: no such file, or nothing in it."""
        return None if self.token_file is None else read_token(self.token_file)


def read_token(file: str | Path) -> str:
    """The one line of a token file. Raises OSError, ValueError."""
    import os

    text = Path(os.path.expandvars(file)).expanduser().read_text(encoding="utf-8").strip()
    if len(text) < 16 or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{file} holds no token: at least 16 letters and digits in one line")
    return text


class Watchdog:
    """Calls `bite` when what was begun is not ended in time; one thread for as long as the line is there.

    The thread is woken only where it would sleep too long: it looks again when the time of an older ask is over.
    """

    def __init__(self, bite: Callable[[], None]):
        self._bite = bite
        self._changed = threading.Condition()
        self._until: float | None = None
        self._look: float | None = None  # when the thread wakes by itself; None: it does not
        self._ended = False
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def begin(self, seconds: float) -> None:
        with self._changed:
            self._until = time.monotonic() + seconds
            if self._look is None or self._look > self._until:
                self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self._until = None

    def close(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                if self._ended:
                    return
                left = None if self._until is None else self._until - time.monotonic()
                if left is None or left > 0:
                    self._look = self._until
                    self._changed.wait(left)
                    continue
                self._until = None
            self._bite()


class Line:
    """A websocket that is asked and answers, one message at a time.

    Args:
        subprotocol: whose messages are spoken.
        scheme: word before the token.
    """

    def __init__(self, address: Address, *, subprotocol: str | None, scheme: str = "Bearer"):
        self.address = address
        self.broken: str | None = None  # why nothing more is asked
        token = address.token()
        headers = {"Authorization": f"{scheme} {token}"} if token else None
        self._socket = _connect(address, headers, subprotocol)
        self._watchdog = Watchdog(self._bite)

    def ask(self, message: bytes | None, read: Callable[[bytes | str], Got]) -> Got:
        """Send a message, None: nothing, and read the next one within the address's patience.

        Raises:
            RemoteError: no answer that counts, now or before; nothing is asked any more.
        """
        if self.broken is not None:
            raise RemoteError(self.broken)
        begun = time.monotonic()
        self._watchdog.begin(self.address.patience)
        try:
            if message is not None:
                self._socket.send(message)
            answer = self._socket.recv()
        except Exception as error:  # of the websocket, the socket or TLS: all the same to an arm
            took = time.monotonic() - begun
            late = took >= self.address.patience
            raise self.give_up(
                f"no answer within {self.address.patience:g} s" if late else f"it is gone ({_reason(error)})"
            ) from error
        finally:
            self._watchdog.end()
        if time.monotonic() - begun > self.address.patience:
            raise self.give_up(f"its answer came after more than {self.address.patience:g} s")
        try:
            return read(answer)
        except ValueError as error:
            raise self.give_up(str(error)) from error

    def refuse_more(self) -> None:
        """Give up where something came that nobody asked for."""
        with suppress(Exception):  # nothing came, or the line is cut: the ask says so
            self._socket.recv(timeout=0)
            self.give_up("it said something that nobody asked for")

    def give_up(self, why: str) -> RemoteError:
        """End the line; the error to raise."""
        self.broken = f"policy server {self.address.url}: {why}. Nothing of it is executed"
        self._bite()
        self._watchdog.close()
        return RemoteError(self.broken)

    def close(self) -> None:
        """Say goodbye."""
        self._watchdog.close()
        if self.broken is None:
            self.broken = f"the line to {self.address.url} is closed"
            with suppress(Exception):
                self._socket.close()

    def _bite(self) -> None:
        """Cut the line, whatever it is doing: a send may hang on a server that does not read."""
        import socket

        with suppress(OSError):
            self._socket.socket.shutdown(socket.SHUT_RDWR)


def _connect(address: Address, headers: dict[str, str] | None, subprotocol: str | None) -> ClientConnection:
    try:
        from websockets.exceptions import InvalidHandshake, InvalidStatus
        from websockets.sync.client import connect
        from websockets.typing import Subprotocol
    except ImportError as error:
        raise ImportError(f"a policy server is spoken to by websockets ({error}): {pip_install('serve')}") from error

    tls = None
    if address.url.startswith("wss"):
        tls = ssl.create_default_context(cafile=address.ca)
    try:
        return connect(
            address.url,
            ssl=tls,
            additional_headers=headers,
            subprotocols=[Subprotocol(subprotocol)] if subprotocol else None,
            compression=None,
            max_size=LARGEST,
            proxy=None,
            open_timeout=min(OPENING, 4 * address.patience),
            close_timeout=1.0,
        )
    except InvalidStatus as error:
        said = bytes(error.response.body or b"").decode("utf-8", "replace").strip()[:200]
        raise RemoteError(
            f"policy server {address.url} refuses ({error.response.status_code}): {said or 'without a reason'}; "
            "?token_file=FILE behind the address gives the token"
        ) from error
    except (InvalidHandshake, OSError, TimeoutError, EOFError) as error:
        raise RemoteError(
            f"no policy server at {address.url} ({_reason(error)}); start one: understudy serve POLICY"
        ) from error


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
