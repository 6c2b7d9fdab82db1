"""The house stays one: no circle of imports, rooms use only rooms below them, and the product never needs a study.

Every import counts: at the top of a file, inside a function, under `TYPE_CHECKING`. Floors between the root folders are
in `test_packaging.py`.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("configs", "policies", "sim", "world_models", "hardware", "eval")
PLUGINS = "distributions"  # of lerobot: packages of their own, which stand on all of ours
LAYERS = {  # a room may use the rooms of the lines below it; rooms on one line do not know each other
    "policies": (
        "agent export",
        "load",
        "foreign compositions",
        "models",
        "critics",
        "learning",
        "data networks",
        "schedulers",
        "policy field hub address",
        "kinds",
    ),
    "sim": (
        "perturb",
        "memory",
        "pusht robosuite so101 gym teleop",
        "open_loop testing",
        "task",
        "decor",
        "arms experts rendering",
    ),
    "eval": (
        "studies doctor",
        "results compose",
        "compare grid bench",
        "deploy",
        "evaluate inspect demos catalog hub twin new report verify",
        "world_model",
        "rollout offline agree judge",
        "ledger",
        "statistics pages",
        "contracts",
    ),
}


def sources() -> dict[str, Path]:
    """Every module of ours by its dotted name, without `understudy.`."""
    inside = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py") if PLUGINS not in file.parts]
    files = [ROOT / "__main__.py", ROOT / "api.py", *inside]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}


def uses(name: str, file: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports, wherever in it."""
    used = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue  # imports among us are relative (test_packaging)
        base = name.split(".")[: -node.level] + (node.module or "").split(".")
        stem = ".".join(part for part in base if part)
        used |= {stem} if stem in known else {f"{stem}.{alias.name}".strip(".") for alias in node.names}
    return {module for module in used if module in known}


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = sources()
    return {name: uses(name, file, known) - {name} for name, file in known.items()}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other: leave out what uses nothing left, until nothing more can go."""
    left = {name: set(targets) for name, targets in graph.items()}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    reached = {name: _reachable(name, left) for name in left}
    groups = {tuple(sorted(n for n in reached[name] if name in reached[n])) for name in left if name in reached[name]}
    return [list(group) for group in sorted(groups)]


def _reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    seen, queue = set(), [start]
    while queue:
        new = (graph[queue.pop()] & graph.keys()) - seen
        seen |= new
        queue += new
    return seen


def room(name: str) -> str:
    """`policies.models.flow` is in the room `policies.models`; a file that stands in a root folder is its own room."""
    return ".".join(name.split(".")[:2])


def test_circles_are_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_imports_are_seen(graph):
    """The test would pass on an empty graph."""
    assert "policies.policy" in graph["policies.models.flow"] and sum(map(len, graph.values())) > 500


def test_no_circle_among_files(graph):
    assert circles(graph) == []


def test_no_circle_among_rooms(graph):
    rooms: dict[str, set[str]] = {}
    for name, targets in graph.items():
        rooms.setdefault(room(name), set()).update(map(room, targets))
    assert circles({name: targets - {name} for name, targets in rooms.items()}) == []


@pytest.mark.parametrize("folder", LAYERS)
def test_every_room_has_its_place(folder):
    planned = {name for line in LAYERS[folder] for name in line.split()}
    made = {path.stem for path in (ROOT / folder).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert made - {"__init__"} <= planned, "give the new room a place in LAYERS"


@pytest.mark.parametrize("folder", LAYERS)
def test_rooms_use_only_rooms_below(folder, graph):
    height = {name: -place for place, line in enumerate(LAYERS[folder]) for name in line.split()}
    upward = []
    for name, targets in graph.items():
        for target in targets:
            if not (name.startswith(f"{folder}.") and target.startswith(f"{folder}.")):
                continue
            above, below = room(name).split(".")[1], room(target).split(".")[1]
            if above != below and height[above] <= height[below]:
                upward.append(f"{name} uses {target}")
    assert upward == []


def test_the_product_needs_no_study(graph):
    users = {name for name, targets in graph.items() if any(t.startswith("eval.studies.") for t in targets)}
    assert {name for name in users if not name.startswith("eval.studies.")} == set()
