"""The files of `examples/` run as they are, as scripts, with --quick; and as plug-ins of the command line."""

import os
import subprocess
import sys

import pytest

EXAMPLES = {  # name -> what its output must hold
    "comparison": ("success, A - B", "is better: ", "out/comparison/fixed/"),
    "custom_policy": ("Rollouts of 4 episodes", "(linear, step 50)"),
    "custom_task": ("WorldEnv(mujoco/park, 1 actions, 20 Hz)", "5 of 5, Wilson 95 %", "out/park/001000.mp4"),
    "own_dataset": ("Dataset", "held-out action error", "by always taking the mean action"),
}


def run(root, name: str, folder, *words) -> str:
    """What an example prints."""
    script, environment = root / "examples" / f"{name}.py", os.environ | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(script), *map(str, words), "--quick"]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", sorted(EXAMPLES))
@pytest.mark.timeout(400)
def test_an_example_runs(name, root, tmp_path, request):
    words = [request.getfixturevalue("dataset")] if name == "own_dataset" else []
    said = run(root, name, tmp_path, *words)
    assert all(text in said for text in EXAMPLES[name]), said


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A small LeRobot dataset."""
    import understudy

    folder = tmp_path_factory.mktemp("own") / "data"
    understudy.demos("point", folder, episodes=5)
    return folder


def test_every_example_is_listed_and_run(root):
    files = {path.stem for path in (root / "examples").glob("*.py")}
    listed = (root / "examples" / "README.md").read_text()
    assert files == set(EXAMPLES) and all(f"[{name}.py]({name}.py)" in listed for name in files)


def test_an_example_is_a_plug_in_of_its_folder(root, command, monkeypatch):
    monkeypatch.chdir(root / "examples")
    status, out, err = command("list", "--plugins", "custom_policy,custom_task")
    assert status == 0, err
    assert {"linear", "park"} <= set(out.split())


def test_the_lines_of_the_page_run(root, tmp_path):
    """`docs/python.md`, with fewer steps and episodes, and one step in the environment."""
    code = (root / "docs" / "python.md").read_text().split("```python\n")[1].split("```")[0]
    for slow, quick in (("episodes=40", "episodes=4"), ("steps=1500", "steps=20"), ("episodes=100", "episodes=4")):
        assert slow in code
        code = code.replace(slow, quick)
    code = code.replace('while not info["success"]', "for _ in range(20)")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Rollouts of 4 episodes" in done.stdout
