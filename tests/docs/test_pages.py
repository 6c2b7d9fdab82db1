"""The pages say what is so: their commands run as printed, their links lead somewhere, their flags exist.

Pages are played by a `Stage`, beside the other tests. A page is README.md or docs/*.md. Its `sh` and `python` blocks
run in order in a scratch folder of its own, which begins as docs/first_steps.md leaves it. HTML comments in the lines
above a block say otherwise:

    <!-- file: NAME -->             the block is saved as NAME
    <!-- slow: HOW LONG -->         run among the slow tests only
    <!-- needs: VARIABLE -->        run where this environment variable is set
    <!-- not run: REASON -->        never run; what it calls `understudy` is parsed all the same

A `text` block under a block that was run is its output: each of its lines must begin like one that was printed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from draccus.utils import DraccusException

from understudy import __main__ as cli
from understudy.configs.cores import cores
from understudy.configs.parse import parse
from understudy.configs.plugins import PLUGINS, discover
from understudy.configs.protocols import keeps
from understudy.configs.settings.decode import decode
from understudy.configs.settings.load import load
from understudy.configs.verb import Chooses, folders_of
from understudy.policies.learning.stages import STAGES, staged

ROOT = Path(__file__).resolve().parents[2]
FIRST = ROOT / "docs/first_steps.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN = [*PAGES, *sorted(ROOT.glob("[!R]*.md")), *sorted((ROOT / "docs").glob("*/**/*.md"))]
KINDS = ("sh", "python", "yaml", "text")
NOT_RUN = 22  # blocks that no test runs, at most; a new one needs a reason why none of them can go
COMMENT = re.compile(r"<!-- (file|slow|needs|not run): (.+?) -->")
BLOCK = re.compile(r"^((?:<!-- [^\n]+ -->\n)*)```(\w*)\n(.*?)^```$", re.M | re.S)
MINUTES = 60
INLINE = ", in the text"
RUNNING: set[subprocess.Popen] = set()  # blocks that run now


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str  # sh, python, yaml, text; empty where the page does not say
    text: str
    line: int
    notes: Mapping[str, str]  # file, slow, needs or not run -> what it says

    @property
    def file(self) -> str | None:
        return self.notes.get("file")

    def runs(self, slow: bool, environment: Mapping[str, str]) -> bool:
        if self.kind not in ("sh", "python") or {"file", "not run"} & self.notes.keys():
            return False
        return (slow or "slow" not in self.notes) and ("needs" not in self.notes or self.notes["needs"] in environment)


def named(page: Path) -> str:
    """A page as the names of tests have it."""
    return str(page.relative_to(ROOT))


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The fenced blocks of a page, in order. Raises ValueError: a comment that is none of the four."""
    text, found = page.read_text(), []
    for match in BLOCK.finditer(text):
        comments, kind, inside = match.groups()
        notes = [COMMENT.fullmatch(comment) for comment in comments.splitlines()]
        if None in notes:
            raise ValueError(f"{page.name}: no such comment of a block: {comments}")
        line = text.count("\n", 0, match.start(2)) + 1
        found.append(Block(kind, inside, line, dict(note.groups() for note in notes if note)))
    return tuple(found)


def surroundings() -> dict[str, str]:
    """The environment that blocks run in."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def play(page: Path, folder: Path, slow: bool, environment: Mapping[str, str]) -> None:
    """Run a page's blocks in `folder`. Raises AssertionError: one that fails, or prints otherwise than the page."""
    said = None
    for block in blocks(page):
        if block.file:
            (folder / block.file).write_text(block.text)
        elif block.kind == "text" and said is not None:
            assert_printed(block, said, page)
        if block.kind != "text":
            said = _printed(block, folder, environment, page) if block.runs(slow, environment) else None


def _printed(block: Block, folder: Path, environment: Mapping[str, str], page: Path) -> str:
    words = ["bash", "-eo", "pipefail", "-c"] if block.kind == "sh" else [sys.executable, "-c"]
    with subprocess.Popen(
        ["nice", "-n", "19", *words, block.text], cwd=folder, env=environment, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        RUNNING.add(process)
        try:
            said = "".join(process.communicate(timeout=40 * MINUTES))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            RUNNING.discard(process)
    assert process.returncode == 0, f"{page.name}:{block.line} ends with {process.returncode}\n{block.text}\n{said}"
    return said


def assert_printed(block: Block, said: str, page: Path) -> None:
    """Each line of an output on a page begins with the word of one that was printed, whatever the numbers are."""
    printed = {_beginning(line) for line in said.splitlines()}
    for line in block.text.splitlines():
        if line.strip() and not line.strip().startswith("..."):
            assert _beginning(line) in printed, f"{page.name}:{block.line}: not printed: {line}\nbut\n{said}"


def _beginning(line: str) -> str:
    return re.sub(r"\d[\d.,:e+-]*", "0", (line.split() or [""])[0])


def scratch(prepared: Path, parent: Path) -> Path:
    """A page's own folder in `parent`, as the first steps leave it, with the examples of the repository."""
    folder = shutil.copytree(prepared, parent / "page")
    if (ROOT / "examples").is_dir():
        (folder / "examples").symlink_to(ROOT / "examples")
    return folder


class Stage:
    """Quick runs of pages in threads: first the first steps, then as many at a time as there are cores.

    What they run has the lowest priority, so that whatever else is tested meanwhile has a core.
    """

    def __init__(self, pages: Sequence[Path]):
        self.pages = pages
        self._environment = surroundings()  # of now: tests beside change their own
        self._first: Future[Path] | None = None
        self._played: dict[Path, Future[None]] = {}

    def begin(self) -> None:
        """Begin, once."""
        if self._first is not None:
            return
        self._folder = Path(tempfile.mkdtemp(prefix="understudy-pages-"))
        self._pool = ThreadPoolExecutor(max(1, int(cores())))
        self._first = self._pool.submit(self._play_first)
        self._played = {page: self._pool.submit(self._play, page) for page in self.pages}

    def first(self) -> Path:
        """What the first steps leave. Raises as `play`."""
        assert self._first is not None
        return self._first.result()

    def played(self, page: Path) -> None:
        """Wait for a page. Raises as `play`."""
        self._played[page].result()

    def end(self) -> None:
        """Stop what still runs, and remove what was written."""
        if self._first is None:
            return
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in list(RUNNING):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        self._pool.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _play_first(self) -> Path:
        folder = self._folder / "first"
        folder.mkdir()
        play(FIRST, folder, slow=False, environment=self._environment)
        return folder

    def _play(self, page: Path) -> None:
        parent = self._folder / page.stem
        parent.mkdir()
        play(page, scratch(self.first(), parent), slow=False, environment=self._environment)


def has(page: Path, slow: bool) -> bool:
    """Whether a page has blocks that this kind of test runs (for slow: that the quick one leaves out)."""
    return any(block.runs(slow, os.environ) and not (slow and block.runs(False, os.environ)) for block in blocks(page))


@pytest.mark.timeout(40 * MINUTES)
@pytest.mark.parametrize("page", [page for page in PAGES if page != FIRST and has(page, False)], ids=named)
def test_a_page_runs_as_printed(page, stage):
    stage.played(page)


@pytest.mark.timeout(20 * MINUTES)
def test_the_first_steps_run_as_printed(stage):
    assert any(stage.first().iterdir())


@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES)
@pytest.mark.parametrize("page", [page for page in PAGES if has(page, True)], ids=named)
def test_a_page_runs_as_printed_with_what_takes_long(page, stage, tmp_path):
    play(page, scratch(stage.first(), tmp_path), slow=True, environment=surroundings())


def commands(text: str) -> list[list[str]]:
    """The words after each `understudy` of shell text, without what is piped, redirected or commented.

    What a scheduler would put in stands as 1.
    """
    found = []
    for line in re.sub(r"\$SLURM_\w+", "1", re.sub(r"\\\n", "", text)).splitlines():
        if "understudy" not in line:
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] | None = None
        for token in lexer:
            if set(token) <= set("|&;<>"):
                words = None
            elif words is not None:
                words.append(token)
            elif token.rpartition("/")[2] == "understudy":
                words = []
                found.append(words)
    return [words for words in found if words]


def written_commands() -> list[tuple[str, list[str]]]:
    """(where, words) of all commands in blocks and inline code of pages, in examples and in the heads of configs."""
    found = []
    for page in WRITTEN:
        for block in blocks(page):
            if block.kind in ("sh", ""):
                found += [(f"{named(page)}:{block.line}", words) for words in commands(block.text)]
        if page not in PAGES:  # generated: their inline code names patterns
            continue
        inline = re.findall(r"(?<!`)`(understudy [^`]+)`(?!`)", BLOCK.sub("", page.read_text()))
        for span in inline:
            flags = [words for words in commands(" ".join(span.split())) if any("--" in word for word in words)]
            found += [(named(page) + INLINE, words) for words in flags]
    for file in sorted([*(ROOT / "configs").glob("*/*.yaml"), *ROOT.glob("examples/**/*.*")]):
        lines = "".join(f"{line.lstrip('# ')}\n" for line in file.read_text().splitlines() if line.startswith("#"))
        for line in re.sub(r"\\\n", "", lines).splitlines():
            if line.startswith("understudy "):
                found += [(file.name, words) for words in commands(re.sub(r"\s{2,}\(.*", "", line))]
    return [(where, words) for where, words in found if _whole(words)]


def _whole(words: list[str]) -> bool:
    """Whether a command is meant to be complete, and not a pattern for one."""
    return words[0] != "VERB" and not {"...", "NAME", "…"} & set(words)


def settings_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a command as the command line does, up to its settings; no file or folder that it names is looked for.

    Raises:
        ValueError, LookupError, ImportError, DraccusException: as the command would refuse it.
    """
    verb, *rest = words
    if "--help" in rest or verb not in cli.VERBS:
        assert cli.main(list(words)) == 0, "refused"
        return
    if "--plugins" in rest:
        place = rest.index("--plugins")
        monkeypatch.setenv(PLUGINS, rest[place + 1])
        del rest[place : place + 2]

    module, name = cli.VERBS[verb][0].split(":")
    config_class = getattr(import_module(f"understudy.{module}"), name)
    if keeps(config_class, Chooses):
        config_class, _ = config_class.choose(rest)
    discover(*folders_of(config_class))
    if verb == "lerobot-train":
        config_class.from_words(rest)
        return
    config = rest.pop(0) if rest and rest[0].endswith((".yaml", ".yml")) else None
    if verb == "train" and config and STAGES in load(config):
        for keys in staged(config, rest, play, play).stages.values():
            decode(config_class, dict(keys))
        return
    parse(config_class, config, rest)


@pytest.mark.timeout(5 * MINUTES)
def test_every_written_command_is_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for page in PAGES:
        for block in blocks(page):
            if block.file:
                (tmp_path / block.file).write_text(block.text)

    from understudy.eval.new.new import Kind, New

    for _, words in written_commands():
        if words[0] == "new" and len(words) >= 3 and not words[1].startswith("-"):
            New(kind=Kind(words[1]), name=words[2]).run()  # what other commands name as a plug-in

    wrong = []
    for where, words in written_commands():
        if "--resume" in words[:-1]:  # its settings are those of a folder that is not there
            del words[(place := words.index("--resume")) : place + 2]
        try:
            settings_of(words, monkeypatch)
        except (ValueError, LookupError, ImportError, AssertionError, DraccusException) as error:
            if where.endswith(INLINE) and "unknown" not in str(error):
                continue  # it need not be complete
            wrong.append(f"{where}: understudy {shlex.join(words)}\n    {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.kind for block in blocks(page))], ids=named)
def test_every_block_says_what_it_is(page):
    for block in blocks(page):
        assert block.kind in KINDS, f"{page.name}:{block.line}: a block is one of {', '.join(KINDS)}"
        if block.kind == "yaml":
            yaml.safe_load(block.text)
        if block.kind == "python":
            compile(block.text, page.name, "exec")
        if block.kind == "sh":
            subprocess.run(["bash", "-n", "-c", block.text], check=True)


def test_few_blocks_are_never_run():
    left = [
        f"{page.name}:{block.line}: {block.notes['not run']}"
        for page in PAGES
        for block in blocks(page)
        if "not run" in block.notes
    ]
    assert len(left) <= NOT_RUN, "\n".join(left)


@pytest.mark.parametrize(
    "target", sorted({t for page in PAGES for t in re.findall(r"^make (\w+)", page.read_text(), re.M)})
)
def test_make_knows_what_pages_ask_it_for(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def anchors(page: Path) -> set[str]:
    """Names that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", WRITTEN, ids=named)
def test_links_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text())
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    for link in links:
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        aim = (page.parent / path).resolve() if path else page
        assert aim.exists(), f"{page.name}: no {link}"
        assert not anchor or anchor in anchors(aim), f"{page.name}: no heading {link}"


def test_every_page_is_in_the_contents():
    contents = (ROOT / "docs/README.md").read_text()
    for page in PAGES[1:]:
        assert page.name == "README.md" or f"({page.name})" in contents, f"docs/README.md does not name {page.name}"
