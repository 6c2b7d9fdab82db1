"""Which files mypy checks: all but a list of older ones, which gets shorter. `make types` does the checking."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MEETING = ("configs.spec", "configs.world", "policies.policy", "policies.field", "sim.task")
MEETING += ("world_models.world", "hardware.robot", "configs.protocols", "configs.verb")
OLDER = 128  # may only be lowered


def settings() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]


def unchecked() -> list[str]:
    return [name for part in settings()["overrides"] if part.get("ignore_errors") for name in part["module"]]


def test_where_rooms_meet_types_are_checked():
    named = settings()
    for name in MEETING:
        assert f"understudy.{name.partition('.')[0]}" in named["packages"]
        assert f"understudy.{name}" not in unchecked()


def test_the_list_of_older_files_gets_shorter():
    names = unchecked()
    assert len(names) == len(set(names)) <= OLDER
    files = [ROOT.joinpath(*name.split(".")[1:]) for name in names]
    gone = [str(file) for file in files if not (file.with_suffix(".py").is_file() or (file / "__init__.py").is_file())]
    assert not gone, f"moved or gone; put its types right under its new name: {gone}"


def test_every_folder_of_the_package_is_named():
    folders = {f"understudy.{file.parent.name}" for file in ROOT.glob("*/__init__.py")} - {"understudy.tests"}
    assert folders == set(settings()["packages"])
