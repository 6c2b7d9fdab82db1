"""The machine is prepared before anything heavy is imported, cheaply, and the GL back end is remembered."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from understudy.configs import machine


@pytest.fixture
def headless(monkeypatch, tmp_path):
    """No display, an empty cache, and a count of the trials."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path))
    tried = []

    def pretend(*working):
        monkeypatch.setattr(machine, "_draws", lambda name: tried.append(name) or name in working)
        return tried

    return pretend


def test_the_first_back_end_that_draws_is_remembered(headless, tmp_path):
    tried = headless("osmesa")
    assert machine.choose_gl() == machine.choose_gl() == "osmesa"
    assert tried == ["egl", "osmesa"], "tried once"
    assert list(json.loads((tmp_path / "gl.json").read_text()).values()) == ["osmesa"]
    assert machine.choose_gl(fresh=True) == "osmesa" and len(tried) == 4


def test_nothing_that_draws_is_not_remembered(headless, tmp_path):
    tried = headless()
    assert machine.choose_gl() is None and machine.choose_gl() is None
    assert len(tried) == 4 and not (tmp_path / "gl.json").exists()


def test_a_broken_memory_is_tried_again(headless, tmp_path):
    (tmp_path / "gl.json").write_text("{half")
    headless("egl")
    assert machine.choose_gl() == "egl"


def test_a_display_leaves_the_choice_to_mujoco(headless, monkeypatch):
    tried = headless("egl")
    monkeypatch.setenv("DISPLAY", ":0")
    assert machine.choose_gl() is None and tried == []


def test_prepare_sets_the_variables_imports_nothing_heavy_and_is_quick():
    script = """
    import os, sys, time
    from understudy.configs.machine import prepare
    prepare()
    begun = time.process_time()
    prepare()
    assert time.process_time() - begun < 0.02
    assert os.environ["OMP_WAIT_POLICY"] == "passive" and os.environ["GOMP_SPINCOUNT"] == "7"
    assert not {"torch", "mujoco", "numpy"} & set(sys.modules)
    """
    environment = os.environ | {"GOMP_SPINCOUNT": "7"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, env=environment, timeout=60)


def test_versions_say_what_is_absent():
    found = machine.versions("numpy", "no-such-distribution")
    assert found["numpy"][0].isdigit() and found["no-such-distribution"] == "absent"
