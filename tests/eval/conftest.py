"""What the tests of the verbs share: an evaluation that Ctrl-C ends."""

from contextlib import contextmanager

import pytest

from understudy.eval.ledger.record import RecordWriter


@pytest.fixture
def interrupted_after():
    """rows -> a context in which Ctrl-C comes as a record that holds so many rows is given the next one."""

    @contextmanager
    def interrupting(rows):
        add = RecordWriter.add

        def interrupted(self, row):
            if len(self.rows) == rows:
                raise KeyboardInterrupt
            add(self, row)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RecordWriter, "add", interrupted)
            yield

    return interrupting
