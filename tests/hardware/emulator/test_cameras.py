"""The rendered cameras of a coupled arm: in the process, over HTTP, and as stock lerobot's zmq camera."""

import cv2
import numpy as np
import pytest

from understudy.hardware.emulator.arm import find_kind, make_chain
from understudy.hardware.emulator.bus import Bus
from understudy.hardware.emulator.cameras import Cameras
from understudy.hardware.emulator.coupled import CoupledShafts
from understudy.hardware.emulator.emulate import Emulate
from understudy.hardware.emulator.feetech import Feetech

KIND = find_kind("so101")
SIZES = {"front": (48, 64), "wrist": (48, 64)}


@pytest.fixture
def bus():
    chain = make_chain(KIND, shafts=lambda zeros: CoupledShafts(KIND, zeros, "so101-pick-place"))
    with Bus(chain, Feetech()) as bus:
        yield bus


def test_pictures_are_new_and_show_the_arm_move(bus):
    with Cameras(bus, SIZES, http=None) as cameras:
        moment, before = cameras.latest("front")
        assert before.shape == (48, 64, 3) and before.dtype == np.uint8 and before.std() > 5
        with bus.held() as chain:
            chain.shafts.shafts[0].hand = chain.shafts.shafts[0].angle + 1.0
        later = moment
        while later < moment + 0.6:
            later, after = cameras.latest("front", after=later)
        assert np.abs(after.astype(int) - before).mean() > 1
        assert cameras.latest("wrist")[1].shape == (48, 64, 3)


def test_a_stream_is_opened_as_a_video(bus):
    with Cameras(bus, SIZES) as cameras:
        moment, before = cameras.latest("front")
        capture = cv2.VideoCapture(cameras.address + "front")
        found, frame = capture.read()
        capture.release()
        _, after = cameras.latest("front", after=moment)
        off = [np.abs(frame[..., ::-1].astype(int) - picture).mean() for picture in (before, after)]
        assert found and min(off) < 8, "the arm sags a little between two frames"


def test_lerobots_zmq_camera_sees_the_same(bus, lerobot_motors):
    pytest.importorskip("zmq", reason="pyzmq is not installed")
    from lerobot.cameras.zmq import ZMQCamera, ZMQCameraConfig

    with Cameras(bus, SIZES, http=None, zmq=15_732) as cameras:
        camera = ZMQCamera(ZMQCameraConfig("127.0.0.1", 15_732, "wrist", width=64, height=48, fps=30))
        camera.connect()
        assert np.abs(camera.async_read(5000).astype(int) - cameras.latest("wrist")[1]).mean() < 8
        camera.disconnect()


def test_what_cannot_be_seen(bus):
    with pytest.raises(LookupError, match="unknown camera of the scene 'left'"):
        Cameras(bus, {"left": (48, 64)})
    with Bus(make_chain(KIND), Feetech()) as free, pytest.raises(ValueError, match="nothing to see"):
        Cameras(free, SIZES)
    with pytest.raises(ValueError, match="give the arm a load"):
        Emulate(cameras={"front": (48, 64)})
    with pytest.raises(ValueError, match="which cameras"):
        Emulate(load="arm", zmq=5555)
