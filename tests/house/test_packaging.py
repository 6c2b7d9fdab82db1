"""What ships, what is imported when, and what must not be in the repository."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("configs", "policies", "sim", "world_models", "hardware", "eval", "tests")
SOURCES = sorted([*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))])
SOURCES += sorted(ROOT.glob("examples/*.py"))  # scripts: not a package, and not shipped
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PLUGINS = "distributions"  # of lerobot: packages of their own, which stand on all of ours
PYTHONS = ("3.11", "3.12", "3.13")
FLOORS = {  # folder -> the folders of ours that it may import
    "configs": {"configs"},
    "policies": {"configs", "policies"},
    "sim": {"configs", "sim"},
    "world_models": {"configs", "policies", "sim", "world_models"},
    "hardware": {"configs", "policies", "sim", "hardware"},
    "eval": {"configs", "policies", "sim", "world_models", "hardware", "eval", "__main__"},
}
LIGHT = {"configs": ("torch", "mujoco", "robosuite", "lerobot", "matplotlib", "av", "diffusers"), "sim": ("torch",)}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(tree: ast.AST, path: Path, everywhere: bool) -> list[str]:
    """Absolute names of what a file imports; only at module level unless `everywhere`. Ours begin with `understudy`."""
    package = ["understudy", *path.relative_to(ROOT).parts[:-1]]
    found = []
    for node in ast.walk(tree) if everywhere else _at_import(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            found += [stem] if node.module else [f"{stem}.{alias.name}" for alias in node.names]
    return found


def _at_import(tree: ast.AST):
    """Statements that run when the module is imported (not those under TYPE_CHECKING)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _at_import(node)


def test_every_package_ships():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    made = {
        ".".join(["understudy", *path.parent.relative_to(ROOT).parts])
        for folder in FOLDERS[:-1]
        for path in (ROOT / folder).rglob("__init__.py")
        if PLUGINS not in path.parts
    }
    assert listed == made | {"understudy"}


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in SOURCES if path.relative_to(ROOT).parts[0] not in ("tests", "examples")}
    assert [name_of(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_resources_ship():
    data = PROJECT["tool"]["setuptools"]["package-data"]
    for package, patterns in data.items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        assert any(path.is_file() for pattern in patterns for path in folder.glob(pattern)) or package.endswith("sim")


def test_version_is_said_once():
    from understudy import __version__

    assert PROJECT["project"]["version"] == __version__


def test_the_root_module_imports_nothing_until_it_is_asked():
    assert imports(ast.parse((ROOT / "__init__.py").read_text()), ROOT / "__init__.py", False) == ["typing"]


def test_what_the_root_module_offers_is_said_alike():
    import understudy
    from understudy import api

    stated = ast.parse((ROOT / "__init__.py").read_text()).body
    (stubs,) = [node for node in stated if isinstance(node, ast.If)]
    names = [alias.name for alias in stubs.body[0].names]
    assert names == understudy.__all__ == api.__all__ == sorted(names)
    assert all(getattr(understudy, name).__doc__ for name in names)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_file_says_what_it_is(path):
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "a module says what it does"


@pytest.mark.parametrize("path", [p for p in SOURCES if "tests" not in p.relative_to(ROOT).parts], ids=name_of)
def test_exceptions_are_named_and_nothing_is_pickled(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), "no bare except"
        assert not (isinstance(node, ast.Import) and any(a.name in ("pickle", "dill") for a in node.names)), "no pickle"


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.relative_to(ROOT).parts[0] in FLOORS and PLUGINS not in p.parts], ids=name_of
)
def test_imports_go_down_only(path):
    folder = path.relative_to(ROOT).parts[0]
    tree = ast.parse(path.read_text())
    for name in imports(tree, path, True):
        top, *rest = name.split(".")
        assert top not in FLOORS, f"'{name}': imports between our folders are relative"
        if top == "understudy" and rest and rest[0] != "__version__":
            assert rest[0] in FLOORS[folder], f"{folder} may not import {name}"
    for name in imports(tree, path, False):
        assert name.split(".")[0] not in LIGHT.get(folder, ()), f"{name} is imported at module level of {folder}"


def test_importing_the_light_folders_does_not_import_torch():
    import subprocess
    import sys

    code = "import sys; from understudy.configs.plugins import discover; discover('configs', 'sim')"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


def test_the_lock_names_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[\w.+!-]+( ; .+)?|\s*#.*|", line), line
        assert not re.search(r"://|file:|@|/\w+/", line), line
    assert any(line.startswith("torch==") for line in lines) and not any("understudy" in line for line in lines)


@pytest.mark.parametrize("version", PYTHONS)
def test_the_lock_holds_one_build_and_one_lerobot_for_each_python(version):
    from packaging.requirements import Requirement

    mark = {"python_version": version, "python_full_version": f"{version}.0", "sys_platform": "linux"}
    mark |= {"platform_machine": "x86_64"}
    lock = [Requirement(line.replace(" ;", ";")) for line in (ROOT / "constraints.txt").read_text().splitlines()]
    held = [r for r in lock if r.marker is None or r.marker.evaluate(mark)]
    pins = {r.name: str(r.specifier).removeprefix("==") for r in held}
    assert len(pins) == len(held), "a package is pinned once for one Python"

    wanted = [Requirement(text) for text in PROJECT["project"]["optional-dependencies"]["lerobot"]]
    (lerobot,) = [r for r in wanted if r.marker.evaluate(mark)]
    assert pins["lerobot"] in lerobot.specifier and pins["draccus"].startswith("0.1")

    torch, torchvision, torchcodec = (int(pins[f"torch{part}"].split(".")[1]) for part in ("", "vision", "codec"))
    assert torchvision == torch + 15 and torchcodec >= torch, "torch 2.N, torchvision 0.N+15 and torchcodec go together"


def test_the_supported_pythons_are_named_alike_everywhere():
    from understudy.eval import doctor

    newest_first = " ".join(reversed(PYTHONS))
    assert f"supported=({newest_first})" in (ROOT / "setup.sh").read_text()
    assert doctor.PYTHONS == PYTHONS
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"


def test_no_text_names_a_place_of_one_machine():
    texts = [*SOURCES, *ROOT.glob("*.md"), *ROOT.glob("*.toml"), *ROOT.glob("*.sh"), ROOT / "Makefile"]
    texts += [path for folder in FOLDERS[:-1] for path in (ROOT / folder).rglob("*.yaml")]
    private = re.compile("|".join(("/ho" + "me/", "/ro" + "ot/", "/wo" + "rk/", "/Us" + "ers/")))
    assert [name_of(path) for path in texts if private.search(path.read_text())] == []


def test_ci_and_make_have_their_targets():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("setup", "demo", "test", "experiments", "clean"):
        assert re.search(rf"^{target}:", makefile, re.M)
    run = ROOT / ".ci" / "run"
    assert run.stat().st_mode & 0o111 and "check make test\n" in run.read_text()
