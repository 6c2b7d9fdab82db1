"""The Markdown of one page, and of RESULTS.md, which leads to them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..ledger.chains import CODE, CONFIG, Chains, used, used_by_config
from ..ledger.study import table
from .facts import Facts, bare, rate
from .matrix import render_heat, render_matrix
from .pages import Page, Pages
from .plot import Axis, Row, plot
from .tables import Words, sections, steps

MADE = "<!-- Made from eval/records/ by `understudy results`; do not edit. -->\n"
NOTES = "notes"  # folder beside the records: a page's notes in Markdown
HEAD = """\
# Results

One page a question: its answer, a plot, the table, what it cost and one command to repeat it (what was trained up to
2026-11-27 needs [two flags more](#how-to-read-the-numbers)). `understudy results`
makes them from [eval/records/](eval/records) and looks every number up there; only the notes at the end of a page were
written by hand.
"""
TRAINED = """\
What is there already is not made again. Policies of records up to 2026-11-27 had neither the linear skip nor the input
bound. For their very numbers add `--policy.linear_skip false --policy.input_bound null` to each `understudy train` of a
policy (one-step and regression: the second alone; critics: `--critic.input_bound null`), and the same keys to
`train.set` in the file of an `understudy run`; without them the commands train what is the default today."""
READ = """\
## How to read the numbers

- **Success** is the share of the episodes that reach the goal; **progress** the mean over the episodes of the best
  progress (0 to 1). Brackets are 95 % intervals: Wilson's for a rate, Student's t for a mean.
- An interval of one checkpoint says how sure one may be of *that checkpoint* on fresh episodes. Another training seed
  differs by more; "over trainings" counts that in.
- Env seeds 0-999 serve to choose among policies, 1000 and up to report; demonstrations come from 100000 and up.
- A commit with `+` had uncommitted changes: it alone does not make the number again. No more of these are taken.
- How policies, critics and data were made, from public data on: [chains.yaml](eval/records/chains.yaml).
- Policies of records up to 2026-11-27 were trained without the linear skip and the input bound, the default since. To
  train them again as they were: `--policy.linear_skip false --policy.input_bound null` (one-step policies and
  regression take the second alone, critics `--critic.input_bound null`).
"""


def render_page(page: Page, pages: Pages, root: Path, up: str, facts: Facts, chains: Chains) -> str:
    """One page; `up` leads from its folder to that of the records."""
    words = Words(page.names, pages.terms)
    fill = facts.fill
    parts = [MADE, f"# {fill(page.question)}\n"]
    if page.answer:
        parts.append(f"**{fill(page.answer)}**\n")
    if picture := page.plot or page.matrix:
        parts.append(f"![{fill(picture['title'])}]({page.name}.svg)\n")
    if page.matrix:
        parts += render_matrix(page, pages, facts, chains)
    if page.table:
        rows = [[fill(cell) for cell in row] for row in page.table["rows"]]
        parts.append(table(page.table["columns"], rows) + "\n")
    parts += [f"{fill(text)}\n" for text in page.says]
    parts += _listed("What did not work", page.failed, fill)
    parts += _listed("What it cost", page.cost, fill)
    parts += _repeat(page, fill, chains)
    if page.sections:
        parts.append("## The records\n")
    if page.names:
        names = "\n".join(f"- {label.strip()}: `{path}`" for path, label in page.names.items())
        parts.append(f"<details><summary>What the names in the tables stand for</summary>\n\n{names}\n\n</details>\n")
    parts += sections(page, root, up, words)
    parts += _notes(page, root)
    return "\n".join(parts)


def render_plot(page: Page, facts: Facts, chains: Chains) -> str:
    """The picture of a page."""
    if page.matrix:
        return render_heat(page, facts, chains)
    asked = page.plot
    low, high = (facts.value(str(asked.get(end, usual))) for end, usual in (("low", 0), ("high", 1)))
    axis = Axis(facts.fill(asked["axis"]), low, high, asked.get("log", False), asked.get("line"))
    rows = []
    for row in asked["rows"]:
        label, kind = facts.fill(row["label"]), row.get("kind", "a")
        value = facts.value(row["at"]) if "at" in row else None
        rows.append(Row(label) if value is None else _plotted(label, value, kind, asked.get("digits", 2)))
    return plot(facts.fill(asked["title"]), axis, rows)


def _plotted(label: str, value, kind: str, digits: int) -> Row:
    if isinstance(value, tuple):
        low, middle, high = value
        return Row(label, middle, low, high, rate(value, digits), kind)
    return Row(label, float(value), text=bare(value, digits), kind=kind)


def render_index(pages: Pages, facts: Facts, folder: str) -> str:
    """RESULTS.md: the claims, the contents, the negative results."""
    claims, contents, failed = [], [], []
    for page in pages.pages:
        question, link = facts.fill(page.question), f"{folder}/{page.name}.md"
        for claim in page.claims:
            text, number, n = (facts.fill(str(claim[part])) for part in ("text", "number", "n"))
            claims.append((text, number, n, f"[{page.name}]({link})"))
        contents.append(f"- [{question}]({link})")
        failed += [f"- {facts.fill(text)} ([{page.name}]({link}))" for text in page.failed]
    parts = [MADE, HEAD]
    if claims:
        parts += ["## In short\n", table(("what", "number, 95 % interval", "n", "page"), claims) + "\n"]
    parts += ["## The questions\n", "\n".join(contents) + "\n"]
    if failed:
        parts += ["## What did not work\n", "\n".join(failed) + "\n"]
    return "\n".join([*parts, READ])


def _listed(title: str, texts: Sequence[str], fill) -> list[str]:
    return [f"## {title}\n", "\n".join(f"- {fill(text)}" for text in texts) + "\n"] if texts else []


def _repeat(page: Page, fill, chains: Chains) -> list[str]:
    if not page.repeat:
        return []
    command = " ".join(str(page.repeat["command"]).split())
    block = f"```\n{steps(command, list(needed(chains, command)))}\n```\n"
    texts = [f"{fill(page.repeat['takes'])}\n"] if "takes" in page.repeat else []
    texts += [f"{TRAINED}\n"] if "understudy train" in block or "understudy run" in block else []
    return ["## Repeat it\n", *texts, block]


def needed(chains: Chains, command: str, seen: set[str] | None = None) -> Iterator[tuple[str, str]]:
    """(artefact, its command) of all that a command uses, in the order in which they can be made."""
    seen = set() if seen is None else seen
    given = "--data" in command  # instead of what the configuration names
    configs = [part for config in CONFIG.findall(command) for part in _data_of(config) if not given]
    for path in dict.fromkeys([*used(command), *configs]):
        name = chains.maker(path)
        if name is None or name in seen:
            continue
        seen.add(name)
        how = " ".join(chains.made[name].split())
        yield from needed(chains, how, seen)
        yield name, how


def _data_of(config: str) -> list[str]:
    """The artefacts that a configuration reads; not the data of files that it builds on where it names its own."""
    text = "\n".join(line.partition("#")[0] for line in (CODE / config).read_text().splitlines())
    below = [part for other in CONFIG.findall(text) if other != config for part in used_by_config(other)]
    named = re.search(r"\bdata:|\bdataset\.root:", text)
    return [part for part in used_by_config(config) if part in text or not (part in below and named)]


def _notes(page: Page, root: Path) -> Iterator[str]:
    """What was written beside the records when they were made, with what no record holds."""
    path = root / NOTES / f"{page.name}.md"
    if path.is_file():
        yield "## Notes\n"
        yield "Written when the records were made. A number that is in no table above has no record of its own.\n"
        yield path.read_text().strip() + "\n"
