"""`understudy new`: what it writes keeps the contracts, learns and acts as it stands; nothing is ever overwritten."""

import os
import subprocess
import sys

import pytest

from understudy.eval.new.new import Kind, New, files_of

BOTH = "[observation.state, observation.environment_state]"
WALK = f"""
from understudy.__main__ import main

def run(line, *more):
    print(">", line)
    assert main([*line.split(), *more]) == 0, line

if __name__ == "__main__":
    run("demos my_world --episodes 4 --out out/demos")
    run("train --policy.type my_policy --data out/demos --steps 60 --out runs/policy", "--policy.inputs", "{BOTH}")
    run("train --critic.type my_critic --data out/demos --steps 20 --out runs/critic")
    act = "eval --policy runs/policy --world my_world --episodes 2 --videos 0 --out out/eval"
    run(act, "--candidates", "3", "--critic", "runs/critic")
    run("doctor --robot my_robot")
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """A folder with one of each kind, as the command wrote it."""
    folder = tmp_path_factory.mktemp("plugins")
    for kind in Kind:
        config = New(kind=kind, name=f"my_{kind.value}", out=folder)
        config.check_names()
        config.run()
    return folder


def run_in(folder, *words, **environment):
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip


@pytest.mark.timeout(900)
def test_the_tests_that_it_writes_pass(plugins):
    done = run_in(plugins, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0 and "7 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.timeout(900)
def test_what_it_writes_learns_and_acts_as_a_plugin(plugins):
    """What a newcomer does next, by the command line."""
    (plugins / "walk.py").write_text(WALK)
    names = ",".join(f"my_{kind.value}" for kind in Kind)
    done = run_in(plugins, "walk.py", UNDERSTUDY_PLUGINS=names)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "my_policy, step 60" in done.stdout and "of 3 candidates" in done.stdout


def test_nothing_is_overwritten(tmp_path):
    new = New(kind=Kind.policy, name="mine", out=tmp_path)
    for path in files_of("mine", tmp_path):
        path.write_text("my work")
        with pytest.raises(FileExistsError, match="nothing is overwritten"):
            new.check_names()
        path.unlink()
    (tmp_path / "test_mine.py").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        new.check_names()


def test_a_half_written_plug_in_is_not_left(tmp_path):
    """Files that came between the check and the writing are left as they are."""
    (tmp_path / "test_mine.py").write_text("my work")
    with pytest.raises(FileExistsError):
        New(kind=Kind.policy, name="mine", out=tmp_path).run()
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
    assert (tmp_path / "test_mine.py").read_text() == "my work"


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("policy", "My-Gripper", "small letters, digits and _ alone, a letter first, for example my_gripper"),
        ("policy", "../x", "for example x"),
        ("policy", "", "cannot name a plug-in"),
        ("policy", "flow", "policy 'flow' is there already"),
        ("critic", "recall", "critic 'recall' is there already"),
        ("task", "so101-reach", "small letters"),
        ("task", "lift", "task 'lift' is there already"),
        ("world", "mujoco", "name of a package of this Python"),
        ("robot", "so101", "robot 'so101' is there already"),
        ("policy", "lambda", "a word of Python's"),
        ("policy", "json", "name of a package of this Python"),
        ("policy", "test_it", "a name of tests"),
    ],
)
def test_a_bad_name_is_refused_in_words(kind, name, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        New(kind=Kind(kind), name=name, out=tmp_path).check_names()
    assert not list(tmp_path.iterdir())
