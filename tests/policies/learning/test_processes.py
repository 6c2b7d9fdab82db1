"""A launcher that was asked for several processes is refused, whatever became of them."""

import subprocess
import sys

import pytest

from understudy.policies.learning.processes import refuse_several


@pytest.mark.parametrize(
    "environment",
    [{}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "1", "RANK": "0"}, {"OMP_NUM_THREADS": "2"}],
)
def test_one_process_trains(environment):
    refuse_several(environment, ["bash"])
    refuse_several(environment, ["/usr/bin/python", "/x/bin/accelerate", "launch", "--num_processes", "1", "train.py"])
    refuse_several(environment, ["make", "--num_processes", "2"])


@pytest.mark.parametrize(
    ("environment", "launcher", "named"),
    [
        ({"WORLD_SIZE": "2"}, ["bash"], "WORLD_SIZE is 2"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, [], "OMPI_COMM_WORLD_SIZE is 4"),
        ({}, ["python", "/x/bin/accelerate", "launch", "--cpu", "--num_processes", "2", "t.py"], "--num_processes 2"),
        ({}, ["/x/bin/accelerate", "launch", "--num_processes=3", "t.py"], "--num_processes 3"),
        ({}, ["/x/bin/accelerate-launch", "--num-processes", "2", "t.py"], "--num-processes 2"),
    ],
)
def test_several_are_refused_by_name(environment, launcher, named):
    with pytest.raises(ValueError, match=f"{named}.* one process"):
        refuse_several(environment, launcher)


def test_accelerate_that_starts_one_of_two_is_found_out(tmp_path):
    pytest.importorskip("accelerate")
    script = tmp_path / "train.py"
    script.write_text("from understudy.policies.learning.processes import refuse_several\nrefuse_several()\n")
    words = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", str(script)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    if done.returncode == 0 and not sys.platform.startswith("linux"):
        pytest.skip("the system does not tell who started a process")
    assert done.returncode and "training here runs in one process" in done.stderr
