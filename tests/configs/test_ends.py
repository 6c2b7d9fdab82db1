"""How commands end: signals save once, lost outputs stop nothing, the current folder's files are nobody's modules."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from understudy import __main__ as cli
from understudy.configs.children import calling, start
from understudy.configs.ends import UNHEARD, Output, first_signal, listening, outputs
from understudy.configs.progress import Progress, counted

US = [sys.executable, "-m", "understudy"]
POSITIONS = ["demos", "point", "--out", "data", "--block", "4"]


def wait_for(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def hangups_end():
    """As in a terminal, also where the tests themselves run under nohup, which every child inherits."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_interrupts_and_later_ones_do_not_end_the_saving(number):
    saved = []
    with listening():
        with pytest.raises(KeyboardInterrupt):
            try:
                os.kill(os.getpid(), number)
                time.sleep(5)
            finally:
                for later in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    os.kill(os.getpid(), later)
                time.sleep(0.01)
                saved.append(first_signal())
    assert saved == [number]


def test_the_innermost_answers_and_the_handlers_come_back():
    before, asked = signal.getsignal(signal.SIGTERM), []
    with listening():
        outer = signal.getsignal(signal.SIGTERM)
        with listening(lambda: asked.append("stop")):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        assert signal.getsignal(signal.SIGTERM) is outer
        os.kill(os.getpid(), signal.SIGTERM)  # was heard already
        time.sleep(0.01)
    assert asked == ["stop"] and signal.getsignal(signal.SIGTERM) is before
    with listening(), pytest.raises(KeyboardInterrupt):  # and the next work hears anew
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)


def test_an_ignored_hangup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with listening():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_the_status_names_the_signal(monkeypatch, capsys, number, status):
    def work(*_):
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr(cli, "_run", work)
    assert cli.main(["train"]) == status
    assert "understudy train: interrupted" in capsys.readouterr().err


def test_a_terminated_recording_with_workers_says_how_to_go_on(tmp_path):
    words = [*US, *POSITIONS, "--episodes", "3000", "--workers", "2"]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for((tmp_path / "data/data/chunk-000/file-003.parquet").exists)
    os.killpg(process.pid, signal.SIGTERM)  # a cluster asks the workers too
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143 and "Traceback" not in said
    assert "episodes are kept in data; the same command with --resume goes on (SIGTERM)" in said.splitlines()[-1]


class Pipe:
    """A stream whose reader is gone, or whose disk is full."""

    def __init__(self, path: str = ""):
        if path:
            self.stream = open(path, "w")
        else:
            read, write = os.pipe()
            os.close(read)
            self.stream = os.fdopen(write, "w", buffering=1)


@pytest.mark.parametrize("path", ["", pytest.param("/dev/full", marks=pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="no /dev/full here"))])  # fmt: skip
def test_an_output_that_cannot_be_written_is_dropped(path):
    output = Output(Pipe(path).stream)
    assert not output.lost
    for _ in range(3):
        print("progress", file=output, flush=True)
    output.settle()
    assert output.lost


def test_a_reader_that_has_seen_enough_loses_nothing_of_a_list():
    output = Output(Pipe().stream, spoken=True)
    print("a line", file=output, flush=True)
    assert not output.lost


def test_an_absent_stream_and_a_narrow_one():
    absent, narrow = Output(None), Output(open(os.devnull, "w", encoding="ascii"))
    assert not absent.isatty()
    print("é", file=absent)
    print("é", file=narrow)
    assert absent.lost and not narrow.lost


def test_progress_without_standard_error(monkeypatch):
    deaf = Pipe().stream
    for stream in (None, deaf):
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress("working", 2, "steps", every=0) as progress:
            progress.update(1)
            progress.update(2)
    with suppress(OSError):
        deaf.close()


def test_outputs_come_back(capsys):
    before = sys.stdout, sys.stderr
    with outputs():
        print("said")
    assert (sys.stdout, sys.stderr) == before and capsys.readouterr().out == "said\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full 2>&1", "2>&1 | true"])
def test_work_without_a_reader_goes_on_and_is_not_status_0(tmp_path, closed):
    command = f"{sys.executable} -m understudy {' '.join(POSITIONS)} --episodes 4 {closed}; echo ${{PIPESTATUS[0]}}"
    said = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert said.stdout.split()[-1] == str(UNHEARD), said
    assert len(list(tmp_path.glob("data/data/*/*.parquet"))) == 4 and "Traceback" not in said.stderr


def test_help_that_is_cut_off_is_fine(tmp_path):
    command = f"{sys.executable} -m understudy --help | true; echo ${{PIPESTATUS[0]}}"
    said = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert said.stdout == "0\n" and said.stderr == ""


LURE = (
    "from pathlib import Path\nPath(__file__).with_name('imported').write_text(__name__)\nraise ImportError(__name__)\n"
)


@pytest.fixture
def lured(tmp_path):
    """A folder of files that are called like modules which every command imports."""
    for name in ("random", "json", "torch", "numpy", "signal", "pyarrow", "wandb", "tensorboard", "understudy", "cv2"):
        (tmp_path / f"{name}.py").write_text(LURE)
    return tmp_path


def test_files_of_the_current_folder_are_nobodys_modules(lured, monkeypatch):
    monkeypatch.chdir(lured)
    log = lured / "log"
    assert start(["understudy", *POSITIONS, "--episodes", "2", "--workers", "1"], log).wait(100) == 0, log.read_text()
    asked = calling("understudy.configs.rng:rng_of", "1")
    assert "imported" not in subprocess.run(asked, capture_output=True, text=True).stderr
    assert not (lured / "imported").exists()


def test_neither_by_the_module_nor_by_the_script(lured):
    (lured / "understudy.py").unlink()  # with -m Python itself would take it
    script = f"import sys; sys.argv = ['understudy', '--version']; from {cli.__name__} import main; sys.exit(main())"
    for words in ([*US, "list", "tasks"], [sys.executable, "-P", "-c", script]):
        done = subprocess.run(words, cwd=lured, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
    assert not (lured / "imported").exists()


def test_a_plug_in_of_the_current_folder_is_found_where_it_is_named(lured):
    (lured / "understudy.py").unlink()
    (lured / "my_world.py").write_text("from my_helper import NAME\nprint(NAME)\n")
    (lured / "my_helper.py").write_text("NAME = 'it is here'\n")
    words = [*US, "list", "tasks", "--plugins", "my_world"]
    done = subprocess.run(words, cwd=lured, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "it is here" in done.stdout, done.stderr
    assert not (lured / "imported").exists()


def test_what_is_counted_agrees_with_its_number():
    said = [counted(number, what) for number in (0, 1, 2) for what in ("episode", "policy", "batch", "key")]
    assert said[4:8] == ["1 episode", "1 policy", "1 batch", "1 key"]
    assert said[8:] == ["2 episodes", "2 policies", "2 batches", "2 keys"] and said[0] == "0 episodes"
    assert (counted(1, "film", "has", "have"), counted(2, "film", "has", "have")) == ("1 film has", "2 films have")
