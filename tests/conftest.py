"""What all tests share: the machine is prepared before torch or MuJoCo are imported; caches are temporary."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

_CACHE = tempfile.mkdtemp(prefix="understudy-tests-")
os.environ["UNDERSTUDY_CACHE"] = _CACHE
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from understudy.configs.machine import prepare  # noqa: E402

prepare()

ROOT = Path(__file__).resolve().parent.parent

# What runs against the wall clock, and the pages, which are played beside it. `make test` leaves it out where tests
# share the cores, and runs it after them, one test at a time.
PACED = (
    "docs",
    "eval/bench",
    "eval/compare/test_arm.py",
    "eval/compare/test_real_arm.py",
    "eval/demos/test_arm.py",
    "eval/deploy",
    "eval/rollout/test_cluster.py",
    "hardware",
)


def pytest_configure(config):
    import torch

    torch.set_num_threads(1)  # results must not depend on the machine's cores


@pytest.fixture(autouse=True)
def one_thread():
    """A command that a test runs in this process may set torch's threads, and leaves them so for the tests behind it:
    two threads beside another process take many times as long as one."""
    import torch

    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    paced = tuple(f"{ROOT}/tests/{name}" for name in PACED)
    for item in items:
        if str(item.path).startswith(paced):
            item.add_marker(pytest.mark.paced)
    for item in items:  # full-size ones may take long on a busy machine
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))


def pytest_unconfigure(config):
    shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real recordings. Tests that read them are skipped where it is not given."""
    folder = os.environ.get("UNDERSTUDY_DATA")
    if not folder:
        pytest.skip("needs real recordings: set UNDERSTUDY_DATA to the folder that holds them")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"UNDERSTUDY_DATA names no folder: {folder}")
    return path


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout, which is the package."""
    return ROOT


@pytest.fixture
def command():
    """Run `understudy WORD...` in a subprocess: (exit status, stdout, stderr)."""
    import subprocess
    import sys

    def run(*words, timeout: float = 60, **environment) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "understudy", *map(str, words)],
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture(scope="session")
def lerobot(tmp_path_factory):
    """Stock `LeRobotDataset`, its cache in a temporary folder; skipped where lerobot is not installed."""
    from understudy.configs.compat import prepare_lerobot

    pytest.importorskip("lerobot", reason="lerobot is not installed")
    prepare_lerobot()
    import datasets.config

    patch = pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("hf")))
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    yield LeRobotDataset
    patch.undo()


@pytest.fixture(scope="session")
def torchcodec():
    """What stock lerobot decodes videos with; skipped where it, or the system's FFmpeg under it, is missing."""
    try:
        import torchcodec.decoders
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchcodec cannot be loaded: {str(error).splitlines()[0]}")
    return torchcodec


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium for pages that we write; skipped where playwright or a browser is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as play:
        names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
        found = map(shutil.which, (*names, "chromium-headless-shell"))
        path = next(filter(None, found), play.chromium.executable_path)
        if not Path(path).is_file():
            pytest.skip("no Chromium found: apt-get install chromium, or playwright install chromium")
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"] if root else [])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def contrast():
    """(one, other) -> contrast of two CSS colours "rgb(r, g, b)", by WCAG 2."""
    import re

    import numpy as np

    def luminance(colour: str) -> float:
        channels = np.array([float(part) for part in re.findall(r"[\d.]+", colour)[:3]]) / 255
        linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    def of(one: str, other: str) -> float:
        light, dark = sorted((luminance(one), luminance(other)), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    return of
