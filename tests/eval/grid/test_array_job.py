"""The batch script of the page on scaling: passes SIGTERM on, asks to be requeued, and is done the second time."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STANDS_FOR = """#!{python}
import pathlib, signal, sys, time
def saved(*_):
    time.sleep(0.3)
    pathlib.Path("saved").write_text(" ".join(sys.argv[1:]))
    sys.exit(143)
signal.signal(signal.SIGTERM, saved)
if pathlib.Path("saved").exists():
    sys.exit(0)
pathlib.Path("up").touch()
time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_the_batch_script_saves_asks_to_be_requeued_and_goes_on(root, tmp_path):
    """A command with the exit status of ours stands for it; what the real one does is tested in `test_grid.py`."""
    page = (root / "docs" / "scaling.md").read_text()
    script = tmp_path / "job.sh"
    script.write_text(re.search(r"```sh\n(#!/bin/bash\n#SBATCH.*?)```", page, re.DOTALL)[1])
    tools = tmp_path / "bin"
    tools.mkdir()
    _tool(tools / "understudy", STANDS_FOR.format(python=sys.executable))
    _tool(tools / "scontrol", '#!/bin/sh\necho "$@" >> requeued\n')
    words = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_JOB_ID": "77"}
    environment = os.environ | words | {"PATH": f"{tools}:{os.environ['PATH']}"}

    job = subprocess.Popen(["bash", str(script)], cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 30
    while not (tmp_path / "up").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 143
    assert (tmp_path / "saved").read_text() == "run configs/grid/lift_few.yaml --shard 2/8"
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"
    assert subprocess.run(["bash", str(script)], cwd=tmp_path, env=environment, timeout=30).returncode == 0
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"


def _tool(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
