"""What setup.sh makes and .ci/run runs: which Python is taken, what fails, and that stock lerobot starts there."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "sh", "cat", "dirname", "env", "grep", "mktemp", "nice", "rm", "sort", "tail", "tee")
FIRST = ["setup .venv ", "test .venv ", "sbom .venv ", "audit .venv "]  # what the checks ask of make, types beside


def script(path: Path, *lines: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def tools(folder: Path) -> Path:
    """A folder for PATH that holds the few tools that the scripts call, and no Python."""
    folder.mkdir(parents=True)
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name))
    return folder


def listed(tmp_path: Path) -> list[str]:
    """What `setup.sh --pythons` prints where only the interpreters below tmp_path are found."""
    found = {"PATH": str(tmp_path / "bin"), "PYENV_ROOT": str(tmp_path / "pyenv"), "HOME": str(tmp_path)}
    words = ["bash", str(ROOT / "setup.sh"), "--pythons"]
    done = subprocess.run(words, env=found, cwd=tmp_path, capture_output=True, text=True, check=True)
    return done.stdout.replace(f"{tmp_path}/", "").splitlines()


def test_the_newest_python_that_runs_is_taken(tmp_path):
    shims = tools(tmp_path / "bin")
    for version in ("3.14", "3.13", "3.12"):
        script(shims / f"python{version}", "exit 127")  # a shim of pyenv whose version is not active
    script(shims / "python3.11")
    for full in ("3.13.2", "3.13.10"):
        script(tmp_path / f"pyenv/versions/{full}/bin/python3.13")
    script(tmp_path / "pyenv/versions/3.12.1/bin/python3.12", "exit 1")

    assert listed(tmp_path) == ["3.13 pyenv/versions/3.13.10/bin/python3.13", "3.11 bin/python3.11"]


def test_the_pythons_of_uv_are_found(tmp_path):
    own = script(tmp_path / "uv/python3.12")
    script(tools(tmp_path / "bin") / "uv", f'for last; do :; done; [ "$last" = 3.12 ] && echo {own}')
    assert listed(tmp_path) == ["3.12 uv/python3.12"]


def test_without_a_python_setup_says_what_to_do(tmp_path):
    found = {"PATH": str(tools(tmp_path / "bin")), "PYENV_ROOT": str(tmp_path)}
    done = subprocess.run(
        ["bash", str(ROOT / "setup.sh"), "v"], env=found, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and "PYTHON=" in done.stderr and "apt-get install" in done.stderr


def ci(tmp_path: Path, pythons: str, broken: str = "none") -> tuple[int, list[str], str]:
    """Run .ci/run with a stand-in for make, which fails for the environment `broken`: (status, what ran, output)."""
    shutil.copytree(ROOT / ".ci", tmp_path / "checkout/.ci")
    script(tmp_path / "checkout/setup.sh", f"cat <<END\n{pythons}\nEND")
    script(tmp_path / "checkout/.venv/bin/python", "echo 3.13")
    where = f'case "$*" in *VENV=*) v=${{*##*VENV=}};; *) v=.venv;; esac; echo "$1 $v ${{PYTHON:-}}" >> {tmp_path}/ran'
    script(tools(tmp_path / "bin") / "make", where, f'[ "$v" != {broken} ]')

    found = {"PATH": str(tmp_path / "bin"), "UNDERSTUDY_DATA": str(tmp_path)}
    done = subprocess.run([tmp_path / "checkout/.ci/run"], env=found, capture_output=True, text=True)
    return done.returncode, (tmp_path / "ran").read_text().splitlines(), done.stdout + done.stderr


@pytest.mark.parametrize("broken", ["none", ".venv", ".venv-3.11"])
def test_the_checks_run_on_two_pythons_and_fail_when_either_does(tmp_path, broken):
    status, ran, said = ci(tmp_path, "3.13 /new/python3.13\n3.12 /mid/python3.12\n3.11 /old/python3.11", broken)
    second = "setup .venv-3.11 /old/python3.11"
    assert second in ran[1:-1], "beside the first one's tests"
    ours = [line for line in ran if line not in (second, "types .venv ")]
    assert ours == [*FIRST, "test .venv-3.11 /old/python3.11"] and "types .venv " in ran[2:]
    assert status == (broken != "none") and ("failed" in said) == (broken != "none")


def test_the_checks_say_that_there_is_no_second_python(tmp_path):
    status, ran, said = ci(tmp_path, "3.13 /new/python3.13")
    assert status == 0 and sorted(ran) == sorted([*FIRST, "types .venv "])
    assert "no supported Python beside 3.13" in said


def test_torch_and_torchvision_come_from_one_build():
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    code = "import torch, torchvision; print(torchvision.ops.nms(torch.rand(2, 4), torch.rand(2), 0.5).ndim)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "1\n", f"{done.stderr[-400:]}\nMake the environment with setup.sh"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["lerobot-train", "lerobot-eval", "lerobot-record"])
def test_stock_lerobot_starts_unmodified(command):
    pytest.importorskip("lerobot", reason="lerobot is not installed")
    program = Path(sys.executable).parent / command
    done = subprocess.run([program, "--help"], env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr[-1000:]
