"""What messages say how to install is a command that works here."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from understudy.configs import extras

ROOT = Path(__file__).resolve().parents[2]


def test_a_clone_is_installed_from_its_folder():
    assert extras.pip_install("twin") == f"pip install -e '{ROOT}[twin]'"


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        ({}, "understudy[twin]"),
        ({"url": ROOT.as_uri(), "dir_info": {}}, f"{ROOT}[twin]"),
        ({"url": "file:///gone", "dir_info": {}}, "understudy[twin]"),
        (
            {"url": "https://example.org/u", "vcs_info": {"vcs": "git", "commit_id": "0"}},
            "understudy[twin] @ git+https://example.org/u",
        ),
    ],
)
def test_elsewhere_from_where_it_came(monkeypatch, origin, source):
    class Installed:
        def read_text(self, name):
            return json.dumps(origin) if name == "direct_url.json" else None

    monkeypatch.setattr(extras, "distribution", lambda name: Installed())
    assert extras._source("twin") == source


def test_every_extra_that_is_asked_for_is_one():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    files = [
        file for folder in ("configs", "eval", "hardware", "policies", "sim") for file in (ROOT / folder).rglob("*.py")
    ]
    asked = {extra for file in files for extra in re.findall(r"pip_install\(['\"](\w+)['\"]\)", file.read_text())}
    assert asked and asked <= known.keys()
