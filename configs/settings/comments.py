"""What the source says about the fields of a class: the comment of each, wherever a formatter put it."""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from functools import cache

FOR_MYPY = re.compile(r"^type: ignore(\[[^]]*\])?[ #]*")


@cache
def comments_of(config_class: type) -> dict[str, str]:
    """Field -> its comment, of a class and its bases; a field without one is not there.

    A comment stands on one of the lines of the field (a long line is broken into brackets, and the comment with it), as
    a text below it, or on lines of its own above it.
    """
    found: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        found |= _comments_in(base)
    return found


def _comments_in(config_class: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(config_class))
        body = ast.parse(source).body
    except (OSError, TypeError, SyntaxError):  # no file, as of a class made at run time
        return {}
    inside = body[0].body if body and isinstance(body[0], ast.ClassDef) else []
    words = _comments(source)
    lines = source.splitlines()

    found: dict[str, str] = {}
    for statement, following in zip(inside, [*inside[1:], None], strict=False):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        first, last = statement.lineno, statement.end_lineno or statement.lineno
        beside = [words[line] for line in range(first, last + 1) if line in words]
        above: list[str] = []
        while first - 1 in words and lines[first - 2].lstrip().startswith("#"):
            first -= 1
            above.insert(0, words[first])
        if comment := " ".join(beside) or _text(following) or " ".join(above):
            found[statement.target.id] = comment
    return found


def _comments(source: str) -> dict[int, str]:
    """Line -> the comment on it, without what it says to mypy."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {
        token.start[0]: token.string.lstrip("# ").rstrip() for token in tokens if token.type == tokenize.COMMENT
    }
    return {line: FOR_MYPY.sub("", comment) for line, comment in comments.items()}


def _text(statement: ast.stmt | None) -> str:
    """A text that stands alone."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    text = value.value if isinstance(value, ast.Constant) else None
    return " ".join(text.split()) if isinstance(text, str) else ""
