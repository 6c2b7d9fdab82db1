"""The findings are complete and listed. They are run by `make findings`, not here."""

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "findings"
SCRIPTS = sorted(path for path in FOLDER.glob("*.sh") if path.name != "common.sh")
ROWS = re.findall(r"^\| `([a-z0-9-]+)` \|(.*)\|$", (FOLDER / "README.md").read_text(), re.MULTILINE)
VERSION = r"\d+(?:\.\d+)+(?:\.post\d+)?"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_finding_is_complete(path):
    text = path.read_text()
    assert os.access(path, os.X_OK), "not executable"
    assert text.startswith("#!/usr/bin/env bash\nset -euo pipefail\n")
    assert 'behaviour "' in text, "says nothing of what happens"
    assert re.search(r"[a-z]==(\d|\$)", text), "pins no package"
    assert "changed" in text, "cannot fail"
    assert "import understudy" not in text and "from understudy" not in text


def test_the_readme_lists_every_finding_once():
    assert [name for name, _ in ROWS].count("") == 0
    assert sorted(name for name, _ in ROWS) == [path.stem for path in SCRIPTS]


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[name for name, _ in ROWS])
def test_a_row_of_the_readme_names_the_versions_of_its_script(name, row):
    what, seen_with, advice = (cell.strip() for cell in row.split(" | "))
    assert what and advice

    named = re.findall(VERSION, seen_with)
    script = (FOLDER / f"{name}.sh").read_text()
    assert named, "no version"
    assert all(version in script for version in named), f"{named}, not all in the script"


def test_make_runs_the_findings():
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^findings:\n(?:\t.*\n)+", makefile, re.MULTILINE)
    assert "make findings" in makefile
    assert re.search(r"^\.PHONY:.*\bfindings\b", makefile, re.MULTILINE), "a folder has that name"
