#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "When one servo of a Feetech chain misses a group read, those after it in the list keep their positions of the read
before: isAvailable() says yes and getData() gives the old number. Only the result code of the whole read tells."

environment 3.11 feetech-servo-sdk==1.0.0 pyserial==3.5
"$python" - <<'PY'
import os
import pty
import threading
import tty

import scservo_sdk as scs

PRESENT_POSITION, SYNC_READ = 56, 0x82
positions = {servo: 1000 + servo for servo in range(1, 7)}
silent = set()
ours, theirs = pty.openpty()
tty.setraw(ours)
tty.setraw(theirs)


def chain():
    """Six servos at the other end of the line: each answers a group read with its position, unless it is silent."""
    heard = b""
    while True:
        heard += os.read(ours, 256)
        while len(heard) >= 4 and len(heard) >= 4 + heard[3]:
            packet, heard = heard[: 4 + heard[3]], heard[4 + heard[3] :]
            for servo in packet[7:-1] if packet[4] == SYNC_READ else b"":
                body = bytes([servo, 4, 0]) + positions[servo].to_bytes(2, "little")
                if servo not in silent:
                    os.write(ours, b"\xff\xff" + body + bytes([~sum(body) & 0xFF]))


threading.Thread(target=chain, daemon=True).start()
scs.port_handler.LATENCY_TIMER = 1000  # milliseconds: threads of a busy machine answer later than servos
port = scs.PortHandler(os.ttyname(theirs))
port.openPort()
port.setBaudRate(1_000_000)
group = scs.GroupSyncRead(port, scs.PacketHandler(0), PRESENT_POSITION, 2)
for servo in positions:
    group.addParam(servo)


def read():
    code = group.txRxPacket()
    known = [servo for servo in positions if group.isAvailable(servo, PRESENT_POSITION, 2)]
    return code, {servo: group.getData(servo, PRESENT_POSITION, 2) for servo in known}


code, values = read()
print("all answer:             code", code, values)
assert (code, values) == (scs.COMM_SUCCESS, positions)

positions = {servo: position + 1000 for servo, position in positions.items()}
silent.add(3)
code, values = read()
print("moved by 1000, 3 silent: code", code, values)
stale = {1: 2001, 2: 2002, 4: 1004, 5: 1005, 6: 1006}
assert (code, values) == (scs.COMM_RX_TIMEOUT, stale), "the behaviour has changed"
PY
