"""The studies of the twin refuse what they could not tell at their end, hours later."""

import numpy as np
import pytest

from understudy.eval.studies.twin_agreement import TwinAgreement
from understudy.eval.studies.twin_tracking import COLUMNS, Track, row


def test_an_outcome_that_is_none_is_refused_at_once():
    with pytest.raises(LookupError, match="progress, success"):
        TwinAgreement(by="return")


def test_a_block_that_nobody_moved_has_a_row():
    """Errors of 0 have no ratio."""
    still = [Track(np.zeros(3), np.zeros(3), 0.0, np.zeros(1))] * 2
    cells = dict(zip(COLUMNS, row(None, still, still), strict=True))
    assert cells["times nearer than open loop"] is None and cells["translation, cm"].estimate == 0
