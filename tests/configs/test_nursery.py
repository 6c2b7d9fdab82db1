"""A nursery loads once, and its helpers are processes like any other: they answer, end with a code, and leave."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from understudy.configs.lanes.nursery import GONE, Nursery, can_fork
from understudy.configs.lanes.process import Companion

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes are forked on Linux only")

HELPER = """
import os, random, sys, threading
loaded = []

def load(what):
    loaded.append(what)
    if what == "thread":
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    if what == "raises":
        raise ValueError("not loaded")

def work(pipe_number, pulse_number):
    from understudy.configs.lanes.process import at_work
    with at_work(pipe_number, pulse_number) as (pipe, pulse):
        try:
            while (order := pipe.recv()) != "end":
                pipe.send({"loaded": loaded, "pid": os.getpid(), "parent": os.getppid(), "draw": random.random()})
        except EOFError:
            return
    sys.exit(3)
"""


@pytest.fixture
def helpers(tmp_path, monkeypatch):
    """Starts so many helpers of a nursery that has loaded something."""
    (tmp_path / "loads_and_works.py").write_text(HELPER)
    monkeypatch.syspath_prepend(str(tmp_path))
    opened = []

    def start(what, count=2):
        nursery = Nursery("loads_and_works:load", what)
        made = [Companion("loads_and_works:work", timeout=30) for _ in range(count)]
        opened.extend([*made, nursery])
        for companion in made:
            companion.start(nursery)
        return nursery, made

    yield start
    for one in opened:
        one.close()


def say(companion, word="hello"):
    companion.pipe.send(word)
    return companion.pipe.recv()


def gone(pid):
    """Whether a process has ended, its parent having looked or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_helpers_begin_with_what_was_loaded_once_and_draw_nothing_in_common(helpers):
    _, made = helpers("models")
    first, second = (say(companion) for companion in made)
    assert first["loaded"] == second["loaded"] == ["models"]
    assert first["parent"] == second["parent"] != os.getpid() and first["pid"] != second["pid"]
    assert first["draw"] != second["draw"]
    assert [companion.pid for companion in made] == [first["pid"], second["pid"]]


@pytest.mark.parametrize(("what", "loaded"), [("thread", []), ("raises", ["raises"])])
def test_what_cannot_be_forked_is_started_fresh_and_what_cannot_be_loaded_is_left(helpers, what, loaded):
    """A fork of a process with threads may hang; a loader that raises raises again in its helpers, who can tell."""
    _, made = helpers(what)
    assert [say(companion)["loaded"] for companion in made] == [loaded, loaded]


def test_a_helper_ends_with_its_code_and_the_others_live_on(helpers):
    _, (one, two, three) = helpers("models", 3)
    assert say(one)
    one.pipe.send("end")
    assert "exit code 3" in str(one.died())
    os.kill(two.pid, signal.SIGKILL)
    death = two.died()
    assert "signal SIGKILL" in str(death) and death.outside
    assert say(three)


def test_a_nursery_that_is_gone_leaves_its_helpers_to_themselves_and_bears_no_more(helpers):
    nursery, (one,) = helpers("models", 1)
    pid = say(one)["pid"]
    nursery.close()
    assert not nursery.alive and say(one)["pid"] == pid
    other = nursery.fork("loads_and_works:work", (0, 1), 0)
    assert other.pid is None and other.wait() == GONE
    one.dismiss()
    wait_for(lambda: gone(pid))


def test_nothing_is_left_when_its_parent_is_killed(helpers, tmp_path):
    script = (
        "import sys, time; from understudy.configs.lanes.nursery import Nursery\n"
        "from understudy.configs.lanes.process import Companion\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "helper = Companion('loads_and_works:work'); nursery = Nursery('loads_and_works:load', 'models')\n"
        "helper.start(nursery); print(nursery._process.pid, helper.pid, flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    wait_for(lambda: all(gone(pid) for pid in pids))
