"""What a server puts up with: sizes, rates, times and numbers; and a message that comes drop by drop."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

PING = 20.0  # s between pings, and until one must be answered
LOOK = 0.25  # s between looks at unfinished messages


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one server. What is over them is refused; nothing of it is planned."""

    clients: int = 8  # connections at a time
    message: int = 64 * 2**20  # bytes of one message
    rate: float = 500.0  # messages a second of one client; faster ones wait
    slow: float = 10.0  # s that one message may take to come, from its first byte to its last
    idle: float = 600.0  # s that a client may be silent
    faults: int = 16  # messages of one client that may be refused before it is hung up on


class Pace:
    """Lets messages of one client through at a rate, after a burst of as many as a tenth of a second brings."""

    def __init__(self, rate: float):
        self._rate, self._burst = rate, max(1.0, rate / 10)
        self._left, self._then = self._burst, time.monotonic()

    async def wait(self) -> None:
        """Until the next one may come."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._then) * self._rate) - 1
        self._then = now
        if self._left < 0:
            await asyncio.sleep(-self._left / self._rate)


def watched_connection() -> type[ServerConnection]:
    """A connection that knows since when a message is on its way."""
    from websockets.asyncio.server import ServerConnection

    class Watched(ServerConnection):
        since: float | None = None  # s, when the first byte of an unfinished message came

        def data_received(self, data: bytes) -> None:
            begun = self.since or time.monotonic()
            super().data_received(data)
            unfinished = len(self.protocol.reader.buffer) > 0 or self.protocol.current_size is not None
            self.since = begun if unfinished else None

    return Watched


async def hang_up_on_slow(connection, seconds: float) -> None:
    """Close a watched connection whose message does not come to its end."""
    while True:
        await asyncio.sleep(min(LOOK, seconds / 4))
        since = connection.since
        if since is not None and time.monotonic() - since > seconds:
            connection.transport.abort()  # its other end may not read either
            return
