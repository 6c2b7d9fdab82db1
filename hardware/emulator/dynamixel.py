"""Dynamixel's protocol 2.0: bytes <-> requests and statuses.

    FF FF FD 00 ID LENGTH(2) INSTRUCTION PARAMETERS... CRC(2)       host
    FF FF FD 00 ID LENGTH(2) 55 ERROR DATA... CRC(2)                servo

LENGTH counts what follows it. CRC is CRC-16 with the polynomial 0x8005, from 0, not reflected, of all before it. Where
FF FF FD stands between instruction and CRC, one more FD is put behind it. Values are little-endian, two's complement.
Bit 7 of ERROR: the servo has a hardware error; the low bits: 1 failed, 2 instruction, 3 CRC, 4 range, 5 length, 6
limit, 7 access. Source: ROBOTIS e-Manual, "Dynamixel protocol 2.0".
"""

from __future__ import annotations

from .packets import INSTRUCTIONS, Change, Request, Span, Status

HEADER = b"\xff\xff\xfd"
KINDS = INSTRUCTIONS | {0x92: "bulk_read", 0x93: "bulk_write"}
STATUS = 0x55
Contents = tuple[tuple[Span, ...], tuple[Change, ...]]


class Dynamixel:
    """The codec. Without state: it may serve many buses."""

    def take(self, buffer: bytearray) -> Request | None:
        """See `packets.Codec`."""
        while True:
            start = buffer.find(HEADER)
            if start < 0:
                del buffer[: max(0, len(buffer) - 2)]
                return None
            del buffer[:start]
            if len(buffer) < 7:
                return None
            size = 7 + int.from_bytes(buffer[5:7], "little")
            if buffer[3] == 0 and size >= 10:
                break
            del buffer[:1]  # these are bytes of something else

        if len(buffer) < size:
            return None
        packet = bytes(buffer[:size])
        del buffer[:size]
        if crc(packet[:-2]) != int.from_bytes(packet[-2:], "little"):
            return Request("corrupt", packet[4], size)
        return _request(packet)

    def status(self, status: Status) -> bytes:
        """See `packets.Codec`."""
        return pack(status.id, STATUS, bytes([status.error]) + status.data)

    def broken(self, packet: bytes) -> bytes:
        """See `packets.Codec`."""
        return packet[:-1] + bytes([packet[-1] ^ 0x55])

    def readdressed(self, packet: bytes, id: int) -> bytes:
        """See `packets.Codec`."""
        moved = packet[:4] + bytes([id]) + packet[5:-2]
        return moved + crc(moved).to_bytes(2, "little")


def _table() -> tuple[int, ...]:
    values = []
    for byte in range(256):
        value = byte << 8
        for _ in range(8):
            value = (value << 1 ^ 0x8005 if value & 0x8000 else value << 1) & 0xFFFF
        values.append(value)
    return tuple(values)


_CRC = _table()


def crc(data: bytes) -> int:
    """CRC-16 of `data`."""
    value = 0
    for byte in data:
        value = (value << 8 & 0xFFFF) ^ _CRC[value >> 8 ^ byte]
    return value


def pack(id: int, instruction: int, content: bytes = b"") -> bytes:
    """A whole packet."""
    body = (bytes([instruction]) + content).replace(HEADER, HEADER + b"\xfd")
    packet = HEADER + bytes([0, id]) + (len(body) + 2).to_bytes(2, "little") + body
    return packet + crc(packet).to_bytes(2, "little")


def _request(packet: bytes) -> Request:
    id, body = packet[4], packet[7:-2].replace(HEADER + b"\xfd", HEADER)
    kind, content = KINDS.get(body[0], "unknown"), body[1:]
    contents = _contents(kind, id, content)
    if contents is None:
        return Request("unknown", id, len(packet))
    return Request(kind, id, len(packet), *contents)


def _word(content: bytes, at: int = 0) -> int:
    return int.from_bytes(content[at : at + 2], "little")


def _contents(kind: str, id: int, content: bytes) -> Contents | None:
    """What is read and written; None where the parameters do not fit."""
    if kind == "read":
        return None if len(content) != 4 else ((Span(id, _word(content), _word(content, 2)),), ())
    if kind in ("write", "reg_write"):
        return None if len(content) < 3 else ((), (Change(id, _word(content), content[2:]),))
    if kind == "sync_read":
        if len(content) < 5:
            return None
        return tuple(Span(one, _word(content), _word(content, 2)) for one in content[4:]), ()
    if kind == "bulk_read":
        blocks = [content[at : at + 5] for at in range(0, len(content), 5)]
        if not blocks or len(blocks[-1]) < 5:
            return None
        return tuple(Span(block[0], _word(block, 1), _word(block, 3)) for block in blocks), ()
    if kind == "sync_write":
        return _sync_write(content)
    if kind == "bulk_write":
        return _bulk_write(content)
    return (), ()


def _sync_write(content: bytes) -> Contents | None:
    if len(content) < 4:
        return None
    address, length = _word(content), _word(content, 2)
    blocks = [content[at : at + 1 + length] for at in range(4, len(content), 1 + length)]
    if not length or not all(len(block) == 1 + length for block in blocks):
        return None
    return (), tuple(Change(block[0], address, block[1:]) for block in blocks)


def _bulk_write(content: bytes) -> Contents | None:
    changes, at = [], 0
    while at < len(content):
        length = _word(content, at + 3)
        data = content[at + 5 : at + 5 + length]
        if not length or len(data) < length:
            return None
        changes.append(Change(content[at], _word(content, at + 1), data))
        at += 5 + length
    return ((), tuple(changes)) if changes else None
