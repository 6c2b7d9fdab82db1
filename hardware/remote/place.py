"""Where a server listens, who is let in, and what it has done so far."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


@dataclass
class Served:
    """What a server has done so far."""

    clients: int = 0
    asks: int = 0  # answered with plans
    refused: int = 0  # messages
    strangers: int = 0  # connections without the token
    turned_away: int = 0  # connections above the limit
    slowest: float = 0.0  # s of one computation
    thought: float = 0.0  # s of all
    faults: dict[str, int] = field(default_factory=dict)  # first words of a refusal -> how often

    def refuse(self, reason: str) -> None:
        self.refused += 1
        words = " ".join(reason.split()[:6])
        if words in self.faults or len(self.faults) < 50:
            self.faults[words] = self.faults.get(words, 0) + 1

    def __str__(self) -> str:
        told = f"served {self.asks} asks of {self.clients} clients"
        if self.asks:
            told += f", {1000 * self.thought / self.asks:.1f} ms each, {1000 * self.slowest:.0f} ms at most"
        told += f"; refused {self.refused} messages"
        told += f", {self.strangers} connections without the token" if self.strangers else ""
        return told + (f", {self.turned_away} above the limit" if self.turned_away else "")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a server listens, and who is let in."""

    host: str = "127.0.0.1"
    port: int = 8765  # 0: any
    token: str | None = None
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise ValueError(
                f"--host {self.host} lets other computers in: give --token-file FILE (it is written where there is "
                "none), or listen on 127.0.0.1"
            )

    def address(self, port: int) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'ws' if self.tls is None else 'wss'}://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this computer can reach what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
