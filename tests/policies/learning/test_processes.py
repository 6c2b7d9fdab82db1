"""As many processes train as were asked for, by the launcher or a flag, or none."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from understudy.policies.learning.processes import check_launcher, is_main, size_of

TWO = {"WORLD_SIZE": "2", "RANK": "1"}


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))


@pytest.mark.parametrize(
    "environment",
    [{}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "1", "RANK": "0"}, {"OMP_NUM_THREADS": "2"}],
)
@pytest.mark.parametrize("asked", [None, 1])
def test_one_process_trains(environment, asked):
    for launcher in ("bash", "/usr/bin/python /x/bin/accelerate launch --num_processes 1 train.py"), ("make -j 2",):
        assert all(size_of(asked, "", environment, words.split()) == 1 for words in launcher)
    assert is_main(environment)


def test_as_many_train_as_a_launcher_started():
    assert size_of(None, "", TWO, []) == size_of(2, "", TWO, []) == 2
    assert size_of(None, "", {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}, []) == 4
    assert size_of(None, "", TWO, ["torchrun", "--nproc_per_node", "1", "--nnodes", "2"]) == 2
    assert not is_main(TWO) and is_main({"WORLD_SIZE": "2", "RANK": "0"})


@pytest.mark.parametrize(
    ("asked", "environment", "launcher", "told"),
    [
        (2, {}, "bash", "--processes asks for 2 processes, and one is here"),
        (1, TWO, "bash", "asks for 1 process, and 2 are here"),
        (3, TWO, "bash", "asks for 3 processes, and 2 are here"),
        (0, {}, "bash", "at least one trains"),
        (None, {"WORLD_SIZE": "2"}, "bash", "RANK does not say"),
        (None, {}, "python /x/bin/accelerate launch --cpu --num_processes 2 t.py", "--num_processes 2 was asked for"),
        (None, {}, "/x/bin/accelerate launch --num_processes=3 t.py", "--num_processes 3 was asked for"),
        (None, {}, "/x/bin/accelerate-launch --num-processes 2 t.py", "--num-processes 2 was asked for"),
    ],
)
def test_other_numbers_are_refused_by_name(asked, environment, launcher, told):
    with pytest.raises(ValueError, match=told) as refusal:
        size_of(asked, "--processes", environment, launcher.split())
    assert told.startswith("at least") or "accelerate launch --multi_gpu" in str(refusal.value)


def test_the_number_in_accelerates_file_counts(tmp_path):
    file = tmp_path / "four.yaml"
    file.write_text("num_processes: 4\nuse_cpu: true\n")
    with pytest.raises(ValueError, match="num_processes of .*four.yaml 4 was asked for, and one process"):
        size_of(None, "", {}, ["accelerate", "launch", "--config_file", str(file), "t.py"])


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", "--precision bf16"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "--accumulate 4"),
        ("ACCELERATE_USE_FSDP", "true", "--shard true"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "inductor"),
    ],
)
def test_what_accelerate_was_asked_for_and_training_was_not_is_refused(name, value, told):
    plain = {"precision": "no", "accumulate": 1, "shard": False}
    check_launcher(SimpleNamespace(**plain), {name: "no" if "NO" in value else "1" if "STEPS" in name else "no"})
    with pytest.raises(ValueError, match=told):
        check_launcher(SimpleNamespace(**plain), {name: value})
    asked = SimpleNamespace(precision="bf16", accumulate=4, shard=True)
    if told.startswith("--"):
        check_launcher(asked, {name: value})


def test_accelerate_that_starts_one_of_two_is_found_out(tmp_path):
    pytest.importorskip("accelerate")
    script = tmp_path / "train.py"
    script.write_text("from understudy.policies.learning.processes import size_of\nsize_of(None)\n")
    words = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", str(script)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    if done.returncode == 0 and not sys.platform.startswith("linux"):
        pytest.skip("the system does not tell who started a process")
    assert done.returncode and "--num_processes 2 was asked for, and one process was started" in done.stderr
