"""The documentation as a site: `python docs/site/build.py [FOLDER]`, or `make site`.

Pages are those of the repository as they stand, with their links; commands and the Python API are made from the code.
The build fails on a link that leads nowhere. What it needs beside understudy: the dependency group `site`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGES = (
    "README.md",
    "RESULTS.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/*.md",
    "docs/results/*.md",
    "[a-z]*/README.md",
)
PICTURES = ("docs/pictures/*", "docs/results/*.svg")
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
SECTIONS = {  # of the contents: title -> pages, without .md
    "Begin": ("docs/first_steps", "docs/install", "docs/glossary"),
    "Guides": ("docs/*",),
    "Results": ("RESULTS", "docs/results/*"),
    "Reference": ("commands/index", "api/index", "api/protocols"),
    "The project": ("examples/README", "findings/README", "CHANGELOG", "CONTRIBUTING"),
}
PROTOCOLS = {  # what plug-ins and scripts meet: title -> module
    "Who acts, and what is seen": "configs.spec",
    "Worlds": "configs.world",
    "One environment": "configs.lanes.lane",
    "Tasks in MuJoCo": "sim.task",
    "Experts": "sim.experts",
    "Policies and critics": "policies.policy",
    "Their settings": "policies.kinds",
    "Robots": "hardware.robot",
    "World models": "world_models.world",
    "Checks for plug-ins": "eval.contracts",
}


def main() -> int:
    """Build; 1 where a link leads nowhere or Sphinx finds a fault."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("folder", nargs="?", type=Path, default=ROOT / "out/site", help="where the site goes")
    out = words.parse_args().folder.resolve()
    with tempfile.TemporaryDirectory(prefix="understudy-site-") as made:
        source = Path(made)
        stage(source)
        command = [sys.executable, "-m", "sphinx", "-b", "html", "-c", str(HERE), "-E", "-q", "-W", "--keep-going"]
        status = subprocess.run([*command, "-d", f"{made}/.doctrees", made, str(out)]).returncode
    if status:
        return 1
    shutil.copyfile(out / "README.html", out / "index.html")
    broken = list(broken_links(out))
    print(
        "\n".join(broken)
        or f"{out / 'index.html'}: {sum(1 for _ in out.rglob('*.html'))} pages, all links lead somewhere"
    )
    return 1 if broken else 0


def stage(source: Path) -> None:
    """Write what Sphinx reads: pages and pictures, what pages link to, and what is made from the code."""
    sys.path.insert(0, str(HERE))
    import verbs

    pages = sorted({path for pattern in PAGES for path in ROOT.glob(pattern)})
    for path in pages:
        _write(source / path.relative_to(ROOT), _page(path, set(pages), source))
    for path in (path for pattern in PICTURES for path in ROOT.glob(pattern)):
        _copy(path, source)
    for name, text in verbs.pages().items():
        _write(source / "commands" / name, text)
    _write(source / "api/index.md", api())
    _write(source / "api/protocols.md", protocols())
    with (source / "README.md").open("a", encoding="utf-8") as file:
        file.write("".join(contents(source)))


def _page(path: Path, pages: set[Path], source: Path) -> str:
    """A page whose links to other files come along; one to a folder, which no site has, is its text alone."""

    def kept(link: re.Match) -> str:
        target = (path.parent / unquote(link[2].partition("#")[0])).resolve()
        if "://" in link[2] or link[2].startswith(("#", "mailto:")) or target in pages:
            return link[0]
        if target.is_dir():
            return link[1]
        if target.is_file():
            _copy(target, source)
        return link[0]

    return LINK.sub(kept, path.read_text(encoding="utf-8"))


def contents(source: Path) -> Iterator[str]:
    """The contents at the side, a hidden list for each section."""
    seen: set[str] = set()
    for title, patterns in SECTIONS.items():
        names = [
            path.relative_to(source).with_suffix("").as_posix()
            for pattern in patterns
            for path in sorted(source.glob(f"{pattern}.md"))
        ]
        fresh = [name for name in dict.fromkeys(names) if name not in seen]
        seen |= set(fresh)
        yield f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(fresh) + "\n```\n"


def api() -> str:
    """The page of `import understudy`."""
    import understudy

    parts = ["# Python: `import understudy`\n", "What these return is described in [python](../docs/python.md).\n"]
    parts += [f"```{{eval-rst}}\n.. autofunction:: understudy.{name}\n```\n" for name in understudy.__all__]
    return "\n".join(parts)


def protocols() -> str:
    """The page of what plug-ins meet."""
    parts = ["# Types and protocols\n", "What a [plug-in](../docs/plugins.md) has, and what it is given.\n"]
    for title, module in PROTOCOLS.items():
        parts.append(
            f"## {title}\n\n```{{eval-rst}}\n.. automodule:: understudy.{module}\n   :ignore-module-all:\n```\n"
        )
    return "\n".join(parts)


class Links(HTMLParser):
    """What a page links to, and the names that it can be linked by."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.names |= {values[key] or "" for key in ("id", "name") if values.get(key)}
        self.targets += [values[key] or "" for key in ("href", "src") if values.get(key)]


def broken_links(site: Path) -> Iterator[str]:
    """Links of the built pages that lead to no file of the site, or to no place in it."""
    pages = {}
    for path in sorted(site.rglob("*.html")):
        pages[path] = Links()
        pages[path].feed(path.read_text(encoding="utf-8"))
    for path, links in pages.items():
        for target in dict.fromkeys(links.targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = place / "index.html" if place.is_dir() else place
            if not place.is_file():
                yield f"{path.relative_to(site)}: '{target}' leads nowhere"
            elif parts.fragment and place in pages and unquote(parts.fragment) not in pages[place].names:
                yield f"{path.relative_to(site)}: '{target}' has no such place"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _copy(path: Path, source: Path) -> None:
    to = source / path.relative_to(ROOT)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


if __name__ == "__main__":
    sys.exit(main())
