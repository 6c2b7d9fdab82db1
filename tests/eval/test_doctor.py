"""The doctor tries things and says what to do about what fails."""

import json
import sys

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


def test_doctor_answers_in_json(command):
    status, out, err = command("doctor", "--json", "--quick", timeout=110)
    report = json.loads(out)
    assert report["works"] == (status == 0), err
    found = {finding["what"]: finding for finding in report["findings"]}
    assert {"python", "packages", "rendering egl", "video h264", "video AV1", "gpu", "machine"} <= set(found)
    assert sys.prefix in found["python"]["detail"]
