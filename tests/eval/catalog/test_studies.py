"""Studies are found by folder: what they say of themselves, their settings, and what is refused."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from understudy.__main__ import main
from understudy.configs.help import describe
from understudy.configs.parse import parse
from understudy.eval.catalog import studies as module
from understudy.eval.catalog.studies import first_sentence, settings_of, studies

TWICE = """
from dataclasses import dataclass
@dataclass
class One:
    def run(self): ...
@dataclass
class Two:
    def run(self): ...
"""


def test_every_study_says_what_it_is_and_has_settings(root):
    known = studies()
    files = {file.stem for file in (root / "eval" / "studies").glob("*.py")}
    assert set(known) == {name for name in files if not name.startswith("_")}
    for name, sentence in known.items():
        assert 20 < len(sentence) < 160 and "`understudy study" not in sentence, name
        assert f"understudy study {name}" in (root / "eval" / "studies" / f"{name}.py").read_text(), "how it is run"
        settings = settings_of(name)
        assert "--" in describe(settings, name)
        assert set(getattr(settings, "POSITIONALS", ())) <= set(settings.__dataclass_fields__)


def test_a_new_study_is_one_new_file(tmp_path, monkeypatch, capsys):
    from understudy.eval import studies as package

    (tmp_path / "brand_new.py").write_text(
        '"""What a thing costs. And more."""\nfrom dataclasses import dataclass\n'
        '@dataclass(frozen=True, kw_only=True)\nclass New:\n    """Measure it."""\n    runs: int = 3  # of it\n'
        "    def run(self):\n        print(f'ran {self.runs}')\n"
    )
    (tmp_path / "two.py").write_text(TWICE)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(package, "__path__", [str(tmp_path)])
    assert main(["list", "studies"]) == 0
    assert "brand_new            What a thing costs\n" in capsys.readouterr().out
    assert main(["study", "brand-new", "--runs", "4"]) == 0 and capsys.readouterr().out == "ran 4\n"
    assert main(["study", "brand_new", "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: understudy study brand_new") and "--runs" in said and "of it" in said
    assert main(["study", "two"]) == 2 and "one dataclass with run(), found 2" in capsys.readouterr().err
    for name in ("brand_new", "two"):
        sys.modules.pop(f"understudy.eval.studies.{name}")


def test_help_and_no_name_list_the_studies(capsys):
    for words in (["study"], ["study", "--help"]):
        assert main(words) == 0
        said = capsys.readouterr().out
        assert all(f"  {name} " in said and sentence in said for name, sentence in studies().items())


def test_unknown_names_list_the_known(capsys):
    assert main(["study", "covrage"]) == 2
    said = capsys.readouterr().err
    assert "unknown study 'covrage'. Did you mean 'coverage'?" in said and all(name in said for name in studies())
    assert main(["study", "coverage", "--runz", "3"]) == 2
    assert "unknown setting 'runz'. Did you mean 'runs'?" in capsys.readouterr().err


def test_lists_import_no_study():
    code = "import sys; from understudy.__main__ import main; main(['list', 'studies']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.splitlines()[-1].split()
    assert "torch" not in modules and not [name for name in modules if name.startswith("understudy.eval.studies")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('"""What it is, e.g.: 2510.01068 of\na paper. More."""', "What it is, e.g.: 2510.01068 of a paper"),
        ('"""No end"""', "No end"),
        ("x = 1", ""),
    ],
)
def test_the_first_sentence(tmp_path, text, sentence):
    (tmp_path / "x.py").write_text(text)
    assert first_sentence(tmp_path / "x.py") == sentence


def test_the_recorded_commands_of_studies_are_read(root):
    """Parsed, not run: names and flags of what RESULTS.md tells a reader to run exist."""
    read = set()
    for file in sorted((root / "eval" / "records").rglob("*.json")):
        command = json.loads(file.read_text()).get("command", "")
        for part in re.split(r"\n| && ", command):
            assert "python -m" not in part, file
            if part.startswith("understudy study "):
                _, _, name, *words = shlex.split(part)
                parse(settings_of(name), None, words)
                read.add(name)
    assert len(read) >= 10
