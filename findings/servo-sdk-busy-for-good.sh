#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "A cable that is pulled while a servo is spoken to raises an exception, as one expects. Plugged in and opened again, the
port answers every call with the code of a port in use, although nobody uses it: closePort() and openPort() leave that
mark as it was. Feetech's SDK and Robotis' alike."

environment 3.11 feetech-servo-sdk==1.0.0 dynamixel-sdk==3.8.4 pyserial==3.5
"$python" - <<'PY'
import os
import pty
import threading
import tty

import dynamixel_sdk
import scservo_sdk
from serial import SerialException

SERVO, TORQUE = 1, {scservo_sdk: 40, dynamixel_sdk: 24}
HANDLERS = {scservo_sdk: scservo_sdk.PacketHandler(0), dynamixel_sdk: dynamixel_sdk.PacketHandler(1.0)}
DONE = bytes([0xFF, 0xFF, SERVO, 2, 0, ~(SERVO + 2) & 0xFF])


def plug_in(port, pulled=False):
    """A servo at the other end of a new line; it says that it is done, unless the cable is pulled before."""
    ours, theirs = pty.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)

    def live():
        os.read(ours, 256)
        if not pulled:
            os.write(ours, DONE)
            return
        os.close(theirs)
        os.close(ours)

    threading.Thread(target=live, daemon=True).start()
    port.setPortName(os.ttyname(theirs))
    assert port.openPort()


def relax(sdk, port):
    """Torque off: what comes of it."""
    try:
        return HANDLERS[sdk].write1ByteTxRx(port, SERVO, TORQUE[sdk], 0)[0]
    except (SerialException, OSError) as error:
        return type(error).__name__


for sdk in (scservo_sdk, dynamixel_sdk):
    sdk.port_handler.LATENCY_TIMER = 1000  # milliseconds: threads of a busy machine answer later than servos
    port, found = sdk.PortHandler(""), {}
    for moment in ("before", "pulled", "again"):
        plug_in(port, pulled=moment == "pulled")
        found[moment] = relax(sdk, port)
        port.closePort()
    plug_in(port)
    found["still"] = relax(sdk, port)
    port.is_using = False
    found["mark taken back"] = relax(sdk, port)
    print(f"{sdk.__name__:14}", found, "busy is", sdk.COMM_PORT_BUSY)
    busy, done = sdk.COMM_PORT_BUSY, sdk.COMM_SUCCESS
    expected = {"before": done, "pulled": "SerialException", "again": busy, "still": busy, "mark taken back": done}
    assert found == expected, "the behaviour has changed"
PY
