"""What a message costs beside its bytes: no memory mapped anew, no thread woken for nothing, no picture copied."""

import subprocess
import sys
import threading
import time

import pytest
import torch

from understudy.configs.spec import Window
from understudy.hardware.remote.line import Watchdog
from understudy.policies.policy import Past

FAULTS = """
import numpy as np, resource
from understudy.hardware.remote.memory import keep_freed
from understudy.hardware.remote.messages import Frames
from understudy.hardware.remote.wire import _packer
assert keep_freed()
frames = Frames(lane=np.zeros(1, np.int64), tick=np.zeros(1, np.int64), jpeg=None,
                values=np.zeros((1, 480, 640, 3), np.uint8))
def once():
    data = _packer().pack({"top": frames, "wrist": frames})
    return bytearray(data) + data
for _ in range(5):
    once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    once()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_pictures_go_through_memory_that_is_there():
    said = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert float(said.stdout) < 100, "pages a message; a message of two pictures has 450"


def test_watchdog_bites_a_later_ask_that_it_was_not_woken_for():
    bitten = threading.Event()
    dog = Watchdog(bitten.set)
    try:
        dog.begin(0.2)
        time.sleep(0.05)
        dog.end()
        begun = time.monotonic()
        dog.begin(0.4)
        assert bitten.wait(5)
        assert time.monotonic() - begun >= 0.4
        bitten.clear()
        dog.begin(60)
        dog.begin(0.1)  # sooner than it would look
        assert bitten.wait(5)
    finally:
        dog.close()


def test_a_past_that_is_read_whole_is_not_copied():
    picture = torch.zeros(2, 2, 4, 4, 3, dtype=torch.uint8)
    past = Past(
        obs={"observation.images.top": picture},
        obs_times=(-1, 0),
        obs_valid=torch.ones(2, 2, dtype=torch.bool),
        actions=torch.zeros(2, 0, 6),
        action_times=(),
        action_valid=torch.zeros(2, 0, dtype=torch.bool),
        now=torch.zeros(2, dtype=torch.int64),
    )
    whole = past.at(Window(observe=(-1, 0), horizon=4))
    assert whole.obs["observation.images.top"].data_ptr() == picture.data_ptr()
    picture[:, 1] = 7
    assert (past.at(Window(observe=(0,), horizon=4)).obs["observation.images.top"] == 7).all()
