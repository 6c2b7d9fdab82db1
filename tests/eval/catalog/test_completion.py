"""The completion script, asked as a shell asks it."""

import shutil
import subprocess

import pytest

from understudy.__main__ import VERBS, main
from understudy.eval.catalog.completion import flags_of


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """Words typed so far -> what bash offers for the last one."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    from understudy.eval.catalog.completion import script

    file = tmp_path_factory.mktemp("completion") / "understudy.bash"
    file.write_text(script({verb: place for verb, (place, _) in VERBS.items()}))

    def ask(*words):
        asked = f"source {file}; COMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1}; _understudy"
        line = f'{asked}; printf "%s\\n" "${{COMPREPLY[@]}}"'
        return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout.split()

    return ask


def test_verbs_and_flags_are_completed(complete):
    assert complete("understudy", "ev") == ["eval"]
    assert set(complete("understudy", "")) == set(VERBS)
    assert complete("understudy", "eval", "--epis") == ["--episodes"]
    assert "--policy.type" in complete("understudy", "train", "--pol")
    assert complete("understudy", "push", "--he") == ["--help"]
    assert complete("understudy", "eval", "--plug") == ["--plugins"]
    assert complete("understudy", "study", "--tr") == ["--traceback"]


def test_files_are_completed(complete, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "walk.yaml").write_text("")
    assert complete("understudy", "eval", "wa") == ["walk.yaml"]


def test_every_verb_has_its_flags():
    assert all(flags_of(place) for verb, (place, _) in VERBS.items() if verb not in ("study", "bench"))


@pytest.mark.parametrize("joined", [True, False])
def test_plug_ins_are_taken_in_either_way(joined, tmp_path, monkeypatch, capsys):
    """`--plugins=NAME` was an unknown setting, of every verb."""
    monkeypatch.setenv("UNDERSTUDY_PLUGINS", "")
    monkeypatch.syspath_prepend(tmp_path)
    name = f"plugged_{joined}"
    (tmp_path / f"{name}.py").write_text("print('it is imported')\n")
    words = [f"--plugins={name}"] if joined else ["--plugins", name]
    assert main(["completion", *words, "bash"]) == 0
    assert "it is imported" in capsys.readouterr().out
    assert main(["completion", "bash", "--plugins="]) == 2 and "--plugins needs a value" in capsys.readouterr().err


@pytest.mark.parametrize(("shell", "status"), [("bash", 0), ("zsh", 0), ("fish", 2)])
def test_shells(shell, status, capsys):
    assert main(["completion", shell]) == status
    said = capsys.readouterr()
    assert "complete -o filenames" in said.out if status == 0 else "bash" in said.err
