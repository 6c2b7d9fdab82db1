"""A leader arm takes over in wall time: by being moved, and what becomes of the arm when the leader falls silent."""

import queue
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from understudy.configs.spec import STATE, Embodiment
from understudy.eval.deploy.takeover import RESTS, STILL, TakeOver
from understudy.hardware.emulator.arm import find_kind, write_calibration
from understudy.policies.data.corrections import INTERVENTION, PHASE
from understudy.policies.data.open import open_dataset
from understudy.policies.learning.checkpoint import save_checkpoint
from understudy.tests.eval.demos.test_arm import Arms
from understudy.tests.eval.deploy.test_deploy import policy_of
from understudy.tests.eval.deploy.test_takeover import envelope_kept

pytest.importorskip("daqp", reason="the guard's quadratic program")

BUSY = (
    "status packet",
    "did not answer",
    "as an answer",
    "stopped the arm",
)  # of emulated servos that a busy machine held up
BODY = Embodiment(name="a", action=("x",), action_units=("rad",), limits=((-9.0, 9.0),), rate=10.0)


class Held:
    """A leader of one joint that is where it is put."""

    pose: float | None = 0.0

    def read(self):
        if self.pose is None:
            raise ConnectionError("no answer")
        return np.array([self.pose])


def taken(poses, moved=0.2):
    """Step at which a leader with these poses takes over; None: at none."""
    leader = Held()
    takeover = TakeOver(leader, BODY, lambda: None, moved)
    for step, leader.pose in enumerate(poses):
        if takeover(np.zeros(1)) is not None:
            return step
    return None


def test_a_leader_that_has_rested_takes_over_when_it_is_moved():
    rest = [0.0] * round(RESTS * BODY.rate)
    assert taken([*rest, 0.1, 0.19, 0.21]) == len(rest) + 2
    assert taken([0.0, 0.3, 0.0, 0.3]) is None, "it has not rested"
    assert taken([*rest, 0.1, *[0.1] * len(rest), 0.25]) is None, "it rests elsewhere by then"
    assert taken([*rest, *np.arange(0, 1, 0.8 * STILL / len(rest))]) is None, "it slips under its own weight"
    assert taken([*rest, None, 0.3]) is None, "it was away: whether it was moved nobody knows"
    assert taken([*rest, None, *[0.3] * len(rest), 0.6]) == 2 * len(rest) + 1


class Deployment:
    """`understudy deploy` in a process, its lines as they come."""

    def __init__(self, words):
        how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.process = subprocess.Popen([sys.executable, "-u", "-m", "understudy", "deploy", *map(str, words)], **how)
        self.lines, self.said = queue.Queue(), []
        threading.Thread(target=lambda: [self.lines.put(line) for line in self.process.stdout], daemon=True).start()

    def until(self, words, seconds=240.0):
        """Wait until it has said so; what was said until then. Raises ConnectionError: the machine is too busy."""
        end = time.monotonic() + seconds
        while not self.says(words, 1.0):
            over = self.process.poll() is not None and self.lines.empty() or time.monotonic() > end
            assert not over, f"'{words}' was not said: {''.join(self.said)}"
        said, self.said = "".join(self.said), []
        return said

    def says(self, words, seconds):
        """Whether it says so within that time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                self.said.append(self.lines.get(timeout=left))
            except queue.Empty:
                break
            print(f"{time.monotonic():9.2f} {self.said[-1]}", end="", flush=True)
            if words in self.said[-1]:
                return True
            if any(word in self.said[-1] for word in BUSY):
                raise ConnectionError(self.said[-1])
        return False

    def tell(self, word):
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def close(self):
        self.process.kill()
        self.process.wait()


def act(words, arms):
    """The leader is moved, leads, falls silent and comes back, leads again, falls silent for good, is left."""
    arms.tell("put 0")
    run = Deployment(words)
    try:
        run.until("Lines of the terminal")
        for trial in range(8):  # again where a busy machine read it too late, and so for too few steps, to see it rest
            if run.says("the leader was moved", RESTS * (2 + 3 * trial)):
                break
            arms.tell(f"put {0.3 * (1 - trial % 2)}")
        else:
            raise AssertionError("the leader was moved and did not take over")
        run.until("you lead the arm")
        arms.tell("pull 1.5")
        assert "the arm stands until it speaks again" in run.until("the leader is silent")
        run.until("the leader speaks again")
        run.until("you lead the arm")
        arms.tell("put -0.2")
        time.sleep(2.0)
        arms.tell("pull 1000000")
        run.until("the leader is silent")
        time.sleep(1.5)
        run.tell("p")
        run.until("handed back")
        assert "it cannot take over" in run.until("the leader is silent")
        time.sleep(1.0)
        run.tell("s")
        said = run.until("with 1 take-over of")
        run.process.wait(240)
        assert run.process.returncode == 0
        return said
    finally:
        run.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_leader_on_its_own_port_takes_over_falls_silent_and_comes_back(tmp_path, monkeypatch):
    pytest.importorskip("lerobot", reason="the leader is lerobot's")
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "lerobot"))
    file, policy = tmp_path / "arm.json", policy_of(inputs=(STATE,))
    write_calibration(file, find_kind("so101").calibration())
    save_checkpoint(tmp_path / "policy", policy, kind="policy", config=policy.config)
    for trial in range(6):
        out, arms = tmp_path / f"data{trial}", Arms(tmp_path / f"leader{trial}")
        words = [tmp_path / "policy", "--robot", "so101", "--port", arms.follower, "--calibration", file]
        words += ["--limits", "arm", "--yes", "true", "--device", "cpu", "--delay", 3, "--seconds", 300, "--out", out]
        words += ["--takeover.type", "so101_leader", "--takeover.port", arms.leader, "--takeover.calibration", file]
        try:
            act([*words, "--takeover_moved", 0.2], arms)
            break
        except ConnectionError as busy:
            print(f"tried again: {busy}")
        finally:
            arms.end()
    columns = open_dataset(str(out)).columns
    phase, sent = columns[PHASE].ravel(), columns["action.sent"]
    assert np.array_equal(columns[INTERVENTION].ravel(), phase == 2)
    leads = np.flatnonzero(phase == 2)
    assert len(leads) and phase[0] == 0 and phase[-1] == 0
    runs = np.split(leads, np.flatnonzero(np.diff(leads) > 1) + 1)
    assert len(runs) == 2, "led, silent, led again"
    silent = np.arange(runs[0][-1] + 1, runs[1][0])
    assert (phase[silent] == 1).all()
    stood = np.abs(np.diff(sent[silent], axis=0)).max(1) < 1e-6
    assert stood[-3:].all(), "the arm stood while the leader was away"
    assert (phase[runs[1][-1] + 1 :] != 2).all()
    speed, bend = envelope_kept(columns)
    assert speed <= 1 + 1e-4 and bend <= 1 + 1e-4  # of float32 rows
