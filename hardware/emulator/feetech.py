"""Feetech's protocol for STS and SMS servos ("protocol 0"): bytes <-> requests and statuses.

    FF FF ID LENGTH INSTRUCTION PARAMETERS... CHECK      host
    FF FF ID LENGTH ERROR DATA... CHECK                  servo

LENGTH counts what follows it; CHECK is the complement of the sum from ID on, one byte. Two-byte values are
little-endian. Bits of ERROR: 1 voltage, 2 encoder, 4 temperature, 8 current, 32 load.
Source: Feetech, "Communication protocol of the smart bus servos" (doc.feetech.cn).
"""

from __future__ import annotations

from .packets import BROADCAST, INSTRUCTIONS, Change, Request, Span, Status

HEADER = b"\xff\xff"


class Feetech:
    """The codec. Without state: it may serve many buses."""

    def take(self, buffer: bytearray) -> Request | None:
        """See `packets.Codec`."""
        start = _header(buffer)
        del buffer[:start]
        if len(buffer) < 4 or len(buffer) < 4 + buffer[3]:
            return None

        size = 4 + buffer[3]
        packet = bytes(buffer[:size])
        del buffer[:size]
        if check(packet[2:-1]) != packet[-1]:
            return Request("corrupt", packet[2], size)
        return _request(packet)

    def status(self, status: Status) -> bytes:
        """See `packets.Codec`."""
        return pack(status.id, status.error, status.data)

    def broken(self, packet: bytes) -> bytes:
        """See `packets.Codec`."""
        return packet[:-1] + bytes([packet[-1] ^ 0x55])

    def readdressed(self, packet: bytes, id: int) -> bytes:
        """See `packets.Codec`."""
        return pack(id, packet[4], packet[5:-1])


def check(body: bytes) -> int:
    """The check of everything from the id to the last parameter."""
    return ~sum(body) & 0xFF


def pack(id: int, code: int, content: bytes = b"") -> bytes:
    """A whole packet: `code` is the instruction, or the error of a status."""
    body = bytes([id, len(content) + 2, code]) + content
    return HEADER + body + bytes([check(body)])


def _header(buffer: bytearray) -> int:
    """Where a packet may begin: at two FF that no third one follows, with a length that can be."""
    start = 0
    while (start := buffer.find(HEADER, start)) >= 0:
        rest = buffer[start + 2 : start + 4]
        if (not rest or rest[0] != 0xFF) and (len(rest) < 2 or rest[1] >= 2):
            return start
        start += 1
    return max(0, len(buffer) - buffer.endswith(b"\xff"))


def _request(packet: bytes) -> Request:
    id, kind, content = packet[2], INSTRUCTIONS.get(packet[4], "unknown"), packet[5:-1]
    request = _contents(kind, id, content)
    if request is None:
        return Request("unknown", id, len(packet))
    return Request(kind, id, len(packet), *request)


def _contents(kind: str, id: int, content: bytes) -> tuple[tuple[Span, ...], tuple[Change, ...]] | None:
    """What is read and written; None where the parameters are too few."""
    if kind == "read":
        return None if len(content) != 2 else ((Span(id, *content),), ())
    if kind in ("write", "reg_write"):
        return None if len(content) < 2 else ((), (Change(id, content[0], content[1:]),))
    if kind == "sync_read":
        return None if len(content) < 3 else (tuple(Span(one, *content[:2]) for one in content[2:]), ())
    if kind == "sync_write":
        return _sync_write(content)
    return (), ()


def _sync_write(content: bytes) -> tuple[tuple[Span, ...], tuple[Change, ...]] | None:
    if len(content) < 2:
        return None
    address, length = content[:2]
    blocks = [content[at : at + 1 + length] for at in range(2, len(content), 1 + length)]
    if not length or not all(len(block) == 1 + length for block in blocks):
        return None
    return (), tuple(Change(block[0], address, block[1:]) for block in blocks if block[0] != BROADCAST)
