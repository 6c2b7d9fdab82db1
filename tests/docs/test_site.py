"""The documentation as a site: its command pages say every flag, its links are checked, and it builds."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SITE = Path(__file__).resolve().parents[2] / "docs/site"


def module(name):
    """A script of the site's, which is no package."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", SITE / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("verb", ["eval", "verify", "new"])
def test_the_page_of_a_verb_says_every_flag(verb):
    from understudy.__main__ import VERBS
    from understudy.configs.help import describe

    verbs = module("verbs")
    place, line = VERBS[verb]
    text = verbs.page(verb, place, line)
    package, name = place.split(":")
    config = getattr(importlib.import_module(f"understudy.{package}"), name)
    flags = [word.split()[0] for word in describe(config, "x").splitlines() if word.startswith("  --")]
    assert flags and not [flag for flag in flags if f"`{flag}`" not in text]
    assert "understudy eval alarm" not in text


def test_every_verb_has_a_page_that_the_index_names():
    from understudy.__main__ import VERBS

    text = module("verbs").index()
    assert not [verb for verb in VERBS if f"({verb}.md)" not in text]


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#here"></a><a href="b.html#gone"></a><img src="none.png">')
    (tmp_path / "b.html").write_text('<h1 id="here"></h1><a href="https://example.org/x"></a>')
    assert list(module("build").broken_links(tmp_path)) == [
        "a.html: 'b.html#gone' has no such place",
        "a.html: 'none.png' leads nowhere",
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_site_builds_and_all_its_links_lead_somewhere(tmp_path):
    for name in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(name, reason="the site's tools are not installed: make site")
    done = subprocess.run([sys.executable, SITE / "build.py", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all links lead somewhere" in done.stdout and (tmp_path / "commands/eval.html").is_file()
