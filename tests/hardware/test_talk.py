"""What caller and guard say to each other comes over as it was."""

import multiprocessing

import numpy as np
import pytest

from understudy.hardware import talk
from understudy.hardware.envelope import Outcome, Verdict


def test_commands_readings_and_verdicts_come_back():
    target = np.array([0.1, np.nan, -np.inf, 1e300])
    command = talk.unpack_command(talk.pack_command(target, 12.5, 7))
    assert np.array_equal(command.target, target, equal_nan=True) and (command.time, command.number) == (12.5, 7)
    position, moment = talk.unpack_reading(talk.pack_reading(np.arange(6.0), 3.25))
    assert position.tolist() == list(range(6)) and moment == 3.25
    for reasons in ((), ("shoulder_pan would move at 3.00 of 2 rad/s", "größer")):
        verdict = Verdict(Outcome.bent, np.arange(6.0), reasons, written=4.5)
        back = talk.unpack_verdict(talk.pack_verdict(verdict))
        assert back.outcome is Outcome.bent and (back.reasons, back.written) == (reasons, 4.5)
        assert back.sent.tolist() == list(range(6))


def test_a_command_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="one number a joint, not of shape \\(2, 3\\)"):
        talk.pack_command(np.zeros((2, 3)), 0.0, 1)


def test_a_line_hears_messages_and_the_end():
    ours, theirs = map(talk.Line, multiprocessing.Pipe())
    assert not ours.hears(0.01)
    theirs.tell(do="engage")
    assert ours.hears(1.0) and talk.told(ours.hear()) == {"do": "engage"}
    theirs.close()
    assert ours.hears(1.0)
    with pytest.raises(EOFError):
        ours.hear()
