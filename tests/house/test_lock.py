"""requirements.txt: the pins of constraints.txt, each file by its hash, from no place that is named."""

import re
import subprocess

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@pytest.fixture(scope="module")
def locked(root):
    """(requirement, its hashes) of every entry."""
    text = (root / "requirements.txt").read_text().replace("\\\n", " ")
    lines = [line.split(" --hash=") for line in text.splitlines() if line]
    return [(Requirement(first.strip()), [part.strip() for part in hashes]) for first, *hashes in lines]


def pinned(root):
    lines = [line.partition("#")[0].strip() for line in (root / "constraints.txt").read_text().splitlines()]
    return [Requirement(line) for line in lines if line]


def test_every_entry_is_one_version_with_hashes(locked):
    for requirement, hashes in locked:
        (version,) = requirement.specifier
        assert version.operator == "==" and "*" not in version.version, requirement
        assert hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", one) for one in hashes), requirement


def test_no_place_is_named(root):
    text = (root / "requirements.txt").read_text()
    assert "://" not in text and not re.search(r"^\s*-", text.replace("    --hash", ""), re.MULTILINE)


def test_it_holds_the_pins_of_the_constraints(root, locked):
    allowed = {}
    for pin in pinned(root):
        allowed.setdefault(canonicalize_name(pin.name), set()).add(str(pin.specifier))
    strange = [
        str(requirement)
        for requirement, _ in locked
        if str(requirement.specifier)
        not in allowed.get(canonicalize_name(requirement.name), {str(requirement.specifier)})
    ]
    assert not strange, "make lock"


def test_what_we_ask_for_is_in_it(root, locked):
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [
        *project["dependencies"],
        *(text for name in ("sim", "lerobot", "hardware", "log", "dev") for text in extras[name]),
    ]
    names = {canonicalize_name(requirement.name) for requirement, _ in locked}
    missing = {canonicalize_name(Requirement(text).name) for text in asked} - names
    assert not missing, "make lock"
    assert {"uv", "setuptools"} <= names, "what installs and builds comes by its hash, too"
    for text in asked:
        wanted = Requirement(text)
        found = [r for r, _ in locked if canonicalize_name(r.name) == canonicalize_name(wanted.name)]
        assert any(str(s).removeprefix("==") in wanted.specifier for r in found for s in r.specifier), (
            f"{text}: make lock"
        )


def test_set_up_takes_the_tools_from_it(root, tmp_path):
    script = (root / "setup.sh").read_text()
    begin = script.index("locked() {")
    function = script[begin : script.index("\n  }\n", begin) + 5]
    done = subprocess.run(["bash", "-c", function + "locked uv"], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("uv==") and done.stdout.count("==") == 1 and "--hash=sha256:" in done.stdout
