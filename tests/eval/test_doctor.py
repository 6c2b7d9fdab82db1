"""The doctor tries things and says what to do about what fails."""

import json
import sys

import pytest

from understudy.eval import doctor
from understudy.eval.doctor import Finding, attempt


def test_attempt_reports_what_was_printed_or_the_complaint():
    assert attempt("print('fine')") == (True, "fine")
    works, detail = attempt("raise OSError('no such library')")
    assert not works and detail == "OSError: no such library"
    assert attempt("import os; os._exit(3)") == (False, "died with status 3")
    assert attempt("import os, sys; print(sys.argv[1], os.environ['A'])", "word", A="b") == (True, "word b")


def test_a_codec_that_is_not_there_is_found_out():
    works, detail = attempt(doctor._VIDEO, "no_such_encoder", "h264")
    assert not works and "no_such_encoder" in detail


def test_a_back_end_that_cannot_draw_is_found_out():
    assert not doctor.attempt(doctor._DRAW, MUJOCO_GL="no_such_back_end")[0]


def test_the_core_needs_one_way_to_draw_and_one_codec():
    draws, decodes = Finding("rendering egl", True, ""), Finding("video h264", True, "")
    assert doctor.sick([draws, decodes, Finding("rendering osmesa", False, "")]) == []
    assert doctor.sick([decodes]) == ["rendering"]
    assert doctor.sick([draws, decodes, Finding("packages", False, "", needed=True)]) == ["packages"]


def test_advice_stands_below_what_is_missing(capsys):
    line = doctor._line(Finding("rendering osmesa", False, "no library", "apt-get install libosmesa6"))
    assert line.startswith("--") and line.endswith("to have it: apt-get install libosmesa6")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"port": "/dev/ttyACM0"}, "--port of which robot"),
        ({"calibration": "arm.json"}, "--calibration of which robot"),
        ({"path": "runs/a", "robot": "so101", "port": "/dev/ttyACM0"}, "One at a time"),
    ],
)
def test_what_doctor_would_ignore_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        doctor.Doctor(**settings)


def test_doctor_answers_in_json(command):
    status, out, err = command("doctor", "--json", "--quick", timeout=110)
    report = json.loads(out)
    assert report["works"] == (status == 0), err
    found = {finding["what"]: finding for finding in report["findings"]}
    assert {"python", "packages", "rendering egl", "video h264", "video AV1", "gpu", "machine"} <= set(found)
    assert sys.prefix in found["python"]["detail"]


def test_robosuite_beside_a_mujoco_that_it_does_not_know_is_named():
    assert doctor.robosuite_version("1.5.2", "3.9.0").works
    assert not doctor.robosuite_version("absent", "3.9.0").works
    for mujoco in ("3.10.0", "3.12.1", "4.0.0"):
        finding = doctor.robosuite_version("1.5.2", mujoco)
        assert not finding.works and f"beside mujoco {mujoco}" in finding.detail and "<3.10" in finding.advice


def test_a_mujoco_that_was_upgraded_in_place_is_named_with_the_cure(monkeypatch):
    assert doctor.mujoco().works
    broken = (False, "ImportError: MuJoCo core bindings are missing or corrupted")
    monkeypatch.setattr(doctor, "attempt", lambda *words, **environment: broken)
    finding = doctor.mujoco()
    assert not finding.works and finding.needed and "corrupted" in finding.detail
    for words in ("pip uninstall -y mujoco mujoco-core mujoco-studio", "--force-reinstall"):
        assert words in finding.advice


def test_versions_that_we_are_not_tested_with_are_named(monkeypatch):
    from understudy.configs import machine

    real = machine.versions

    def newest(*names):
        new = {"av": "18.1.0", "mujoco": "4.0.0", "opencv-contrib-python": "5.0.0.93"}
        new["opencv-python-headless"] = "5.0.0.93"
        return {name: new.get(name, version) for name, version in real(*names).items()}

    monkeypatch.setattr(machine, "versions", newest)
    finding = doctor.bounds()
    assert not finding.works and not finding.needed
    for words in ("av 18.1.0 is not within <16,>=15", "mujoco 4.0.0 is not within", "both own cv2"):
        assert words in finding.detail
    assert "'av<16,>=15'" in finding.advice
    assert "opencv-python-headless 5.0.0.93 is not within" in finding.detail
    monkeypatch.setattr(machine, "versions", lambda *names: dict.fromkeys(names, "absent"))
    assert doctor.bounds().works, "absent ones have lines of their own"
