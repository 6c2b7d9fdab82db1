"""The questions of `pages.yaml`: every record once, numbers looked up and never typed, commands that run as pasted."""

import json
import re
import shlex
from importlib import import_module

import pytest
import yaml

from understudy.__main__ import VERBS
from understudy.configs.parse import parse
from understudy.configs.plugins import discover
from understudy.eval.catalog.studies import settings_of
from understudy.eval.ledger.chains import Chains
from understudy.eval.ledger.study import Study
from understudy.eval.results.facts import FactError, Facts
from understudy.eval.results.page import needed
from understudy.eval.results.pages import FILE, PagesError, read_pages, record_names
from understudy.eval.results.plot import Axis, PlotError, Row, plot
from understudy.eval.results.results import RECORDS, render
from understudy.eval.results.tables import Words

GUARD = re.compile(r"^(?:\{ )?test -e \S+ \|\| (.*?)(?:; \})?$")
PAGE = {
    "question": "Is it so?",
    "answer": "In {{ cell('group/a', 'one', 'rate') | rate }} of the cases.",
    "claims": [{"text": "so", "number": "{{ cell('group/a', 'one', 'rate') | points }}", "n": "few"}],
    "plot": {"title": "So", "axis": "rate", "rows": [{"label": "one", "at": "cell('group/a', 'one', 'rate')"}]},
    "names": {"runs/x": "the first"},
    "sections": [{"title": "Plainly", "records": ["group/*"]}],
}


@pytest.fixture(scope="module")
def committed():
    return render(RECORDS)


@pytest.fixture
def root(tmp_path):
    for name in "ab":
        Study(
            title="Steering runs/x", command="understudy study x --out DIR", columns=("who", "plans", "rate"),
            rows=(("one", 10, (0.1, 0.145, 0.2)), ("runs/x", 20, 0.5)), notes=("Of both, starts 0-9",),
            provenance={"begun": "2026-02-03"},
        ).write(tmp_path / "group" / f"{name}.json")  # fmt: skip
    return tmp_path


def write(root, **changes):
    values = {"pages": {"so": PAGE | changes}, "terms": [[r"\bplans\b", "action chunks"], [r"\bstarts\b", "env seeds"]]}
    (root / FILE).write_text(yaml.safe_dump(values))
    return root


def test_a_page_says_what_it_looked_up(root):
    texts = render(write(root))
    page = texts["docs/results/so.md"]
    assert "# Is it so?\n\n**In 0.15 [0.10, 0.20] of the cases.**\n\n![So](so.svg)\n" in page
    assert page.count("Of both, env seeds 0-9.") == 1, "a note of two tables is told once"
    assert "| who | action chunks | rate |" in page and "| the first | 20 | 0.5 |" in page
    assert "- the first: `runs/x`" in page and "study x --out out/again/group/a" in page
    assert "| so | +15 [10, 20] points | few | [so](docs/results/so.md) |" in texts["RESULTS.md"]


def test_an_interval_in_points_is_read_from_a_note(root):
    note = "Mixture minus control, for further trainings (3 seeds, t): -18.5 [-27.9, +9.1] points."
    Study(
        title="t", command="understudy study x --out DIR", columns=("a",), rows=((1,),), notes=("Another", note),
        provenance={"begun": "2026-02-03"},
    ).write(root / "group" / "a.json")  # fmt: skip
    facts = Facts(root)
    assert facts.value("noted('group/a', 'Mixture minus control')") == pytest.approx((-0.279, -0.185, 0.091))
    assert facts.fill("{{ noted('group/a', 'minus control') | points(1) }}") == "-18.5 [-27.9, 9.1] points"
    with pytest.raises(FactError, match="states an interval in points behind 'Another'"):
        facts.value("noted('group/a', 'Another')")


def test_a_number_that_the_records_do_not_hold_is_told(root):
    for text, why in (
        ("cell('group/a', 'two', 'rate')", "has 0 rows with two"),
        ("cell('group/a', 'one', 'speed')", "no column 'speed'"),
        ("cell('group/c', 'one', 'rate')", "group/c.json"),
        ("note('group/a', 'p = .*')", "no note of group/a"),
        ("nothing(1)", "undefined"),
    ):
        with pytest.raises(FactError, match=re.escape(why)):
            render(write(root, answer="{{ " + text + " }}"))


@pytest.mark.parametrize(
    "typed", ["0.87 of them", "it gains 24 %", "+24 points", "of 1,000 episodes", "of 250", ".5 of"]
)
def test_a_typed_number_is_refused(root, typed):
    with pytest.raises(PagesError, match="page 'so' has .* typed by hand"):
        read_pages(write(root, says=[typed]))


def test_names_settings_and_counts_may_be_typed(root):
    read_pages(write(root, says=["On SO-101, ten of 16 frames, `--alpha 0.05`, [there](../0.5.md)."]))


def test_a_record_on_no_page_or_on_two_is_refused(root):
    with pytest.raises(PagesError, match="'group/b' is on no page"):
        read_pages(write(root, sections=[{"title": "t", "records": ["group/a"]}]))
    with pytest.raises(PagesError, match="'group/a' is in 2 sections"):
        read_pages(
            write(root, sections=[{"title": "t", "records": ["group/*"]}, {"title": "u", "records": ["group/a"]}])
        )
    with pytest.raises(PagesError, match="names 'group/z', and no record"):
        read_pages(write(root, sections=[{"title": "t", "records": ["group/*", "group/z"]}]))


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "- 1",
        "pages: 3",
        "pages: {a: 3}",
        "pages: {a: {answer: b}}",
        "pages: {a: {question: q, colour: 3}}",
        "pages: {a: {question: q, says: text}}",
        "pages: {a: {question: q, sections: [{title: t}]}}",
        "pages: {a: {question: q, sections: [3]}}",
        "pages: {a: {question: q, repeat: {takes: long}}}",
        "pages: {a: {question: q, claims: [{text: t}]}}",
        "more: 1\npages: {}",
        "pages: {}\nterms: [3]",
    ],
)
def test_a_file_of_pages_that_is_none(root, text):
    (root / FILE).write_text(text)
    with pytest.raises(PagesError, match="pages.yaml") as told:
        read_pages(root)
    assert "is on no page" not in str(told.value)


def test_every_committed_record_is_on_one_page_with_its_numbers(committed):
    pages = read_pages(RECORDS).pages
    placed = [name for page in pages for section in page.sections for name in section.records]
    assert sorted(placed) == sorted(record_names(RECORDS))
    for page in pages:
        text = committed[f"docs/results/{page.name}.md"]
        for section in page.sections:
            for name in section.records:
                assert f"eval/records/{name}" in text, name
        titles = [section.title for section in page.sections]
        assert len(set(titles)) == len(titles) and not [t for t in titles if re.search(r"\b(runs|out)/", t)]


def test_claims_are_few_and_pages_have_all_their_parts(committed):
    pages = read_pages(RECORDS).pages
    assert 8 <= sum(len(page.claims) for page in pages) <= 15 and len(committed["RESULTS.md"].splitlines()) < 100
    for page in pages:
        text = committed[f"docs/results/{page.name}.md"]
        assert page.answer and (page.plot or page.matrix) and "## Repeat it" in text and "## What it cost" in text, (
            page.name
        )


def test_every_link_leads_somewhere(committed):
    root = RECORDS.parents[1]
    for name, text in committed.items():
        for target in re.findall(r"\]\(([^)#\s]+)", re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)):
            assert (root / name).parent.joinpath(target).resolve().exists(), f"{name}: {target}"


def test_the_printed_commands_are_read_and_never_clash(committed):
    """Parsed, not run: files, names and flags exist, and what is pasted twice makes no folder twice."""
    text = "\n".join(text for name, text in committed.items() if name.endswith(".md"))
    lines = [line for block in re.findall(r"```\n(.*?)\n```", text, re.DOTALL) for line in block.splitlines()]
    discover("policies", "sim")
    read = 0
    for line in dict.fromkeys(line.strip().removesuffix(" && \\") for line in lines):
        if line == "done" or line.startswith("for s in"):
            continue
        guarded = GUARD.match(line)
        program, verb, *words = shlex.split(guarded[1] if guarded else line)
        assert program == "understudy" and not re.search(r"\b(DIR|FILE|NAME)\b| \.\.\. ", line), line
        if verb in ("eval", "compare", "demos", "compose") and not guarded:
            assert "$(date +%s)" in line, line
        read += _parsed(verb, words)
    assert read > 100


def _parsed(verb, words):
    if verb == "lerobot-train":
        return 1
    if verb == "study":
        verb_class, words = settings_of(words[0]), words[1:]
    else:
        module, name = VERBS[verb][0].split(":")
        verb_class = getattr(import_module(f"understudy.{module}"), name)
    config = RECORDS.parents[1] / words.pop(0) if words and words[0].endswith(".yaml") else None
    parse(verb_class, config and str(config), words)
    return 1


def test_what_a_command_needs_comes_first():
    made = {
        "out/demos": "understudy demos point --out out/demos",
        "runs/a": "understudy train --data out/demos --out runs/a",
        "runs/b": "understudy train --data out/demos --out runs/b",
    }
    found = list(needed(Chains(made=made), "understudy compare runs/a runs/b/last --out out/x"))
    assert [name for name, _ in found] == ["out/demos", "runs/a", "runs/b"]


def test_words_of_older_records_are_said_as_today():
    words = Words({"runs/a": "first", "runs/a_long": "second"}, [(r"\bplans?\b", "chunk")])
    assert words("a plan of runs/a_long and runs/a; explanation") == "a chunk of second and first; explanation"
    assert words(3) == 3


@pytest.mark.parametrize(
    ("filter_", "value", "text"),
    [
        ("rate", (0.575, 0.595, 0.625), "0.60 [0.58, 0.63]"),
        ("rate(3)", 0.9956, "0.996"),
        ("points", (-0.019, 0.0, 0.019), "0 [-2, 2] points"),
        ("points(1)", (-0.068, -0.0167, 0.035), "-1.7 [-6.8, 3.5] points"),
        ("bare(1)", (13.0, 13.57, 14.4), "13.6"),
        ("percent", 0.3854, "39 %"),
        ("count", 2604364.4, "2,604,364"),
    ],
)
def test_numbers_as_texts(tmp_path, filter_, value, text):
    facts = Facts(tmp_path)
    facts._environment.globals["value"] = value
    assert facts.fill("{{ value | " + filter_ + " }}") == text


def test_a_plot_is_the_same_at_every_run_and_brings_its_own_ground():
    rows = [Row("by <task>"), Row("one", 0.5, 0.4, 0.7, "0.5"), Row("two", 2.0, kind="b")]
    text = plot("So & so", Axis("rate", 0, 1, line=0.5), rows)
    assert text == plot("So & so", Axis("rate", 0, 1, line=0.5), rows)
    assert 'fill="#ffffff"' in text and "by &lt;task&gt;" in text and text.count("<circle") == 2
    assert 'cx="464.0"' in text, "a value beyond the axis stands at its end"
    axis = Axis("x", 1, 100, log=True)
    assert axis.ticks() == [1.0, 10.0, 100.0] and axis.x(10) == (16 + 464) / 2


@pytest.mark.parametrize(
    ("axis", "rows", "why"),
    [
        (Axis("x", 0, 1), [Row("only a heading")], "nothing to draw"),
        (Axis("x", 1, 1), [Row("a", 1.0)], "the range of 'x'"),
        (Axis("x", 0, 1), [Row("a" * 60, 1.0)], "60 letters"),
        (Axis("x", 0, 1), [Row("a", 1.0, kind="z")], "no kind 'z'"),
    ],
)
def test_what_cannot_be_drawn_is_told(axis, rows, why):
    with pytest.raises(PlotError, match=why):
        plot("t", axis, rows)


def test_notes_are_printed_last_and_json_beside_them_is_no_record(root):
    (root / "notes").mkdir()
    (root / "notes" / "so.md").write_text("It took 3.5 hours.\n")
    assert render(write(root))["docs/results/so.md"].rstrip().endswith("It took 3.5 hours.")
    (root / "notes" / "odd.json").write_text(json.dumps({}))
    with pytest.raises(PagesError, match="'notes/odd' is on no page"):
        read_pages(root)
