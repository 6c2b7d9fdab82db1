"""Small conditions on named values, such as `length > 50 and 'lift' in task`. Read, never evaluated by Python.

Names, numbers, texts, tuples and lists of them; `and or not`; `== != < <= > >= in`; `+ - * / %`; `lower(text)`,
`starts(text, part)`, `ends(text, part)`, and `has(many, one)`, which is `one in many`. Anything else is refused by name
before a value is looked at.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

LONGEST = 2000  # characters
DEEPEST = 50  # parts within parts


def _same_kind(one: Any, other: Any) -> None:
    """Raise TypeError for a text beside a number, or either beside a list: they are never equal."""
    if len({next((kind for kind in (str, tuple) if isinstance(value, kind)), float) for value in (one, other)}) > 1:
        raise TypeError(f"{one!r:.40} and {other!r:.40} are never equal")


def _equal(one: Any, other: Any) -> bool:
    _same_kind(one, other)
    return one == other


def _among(one: Any, many: Any) -> bool:
    """Whether a value is in a list, or a text in a longer one."""
    for each in many if isinstance(many, tuple) else ():
        _same_kind(one, each)
    return one in many


COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: _equal, ast.NotEq: lambda one, other: not _equal(one, other), ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.In: _among, ast.NotIn: lambda one, many: not _among(one, many),
}  # fmt: skip
ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}  # fmt: skip
FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {  # name -> (arguments, what it does)
    "lower": (1, str.lower),
    "starts": (2, str.startswith),
    "ends": (2, str.endswith),
    "has": (2, lambda many, one: _among(one, many)),  # for a command line, where a text may not begin with a quote
}


class ExpressionError(ValueError):
    """A condition that cannot be read, or that does not fit the values."""


class Expression:
    """A condition, read once and asked often.

    Args:
        text: the condition.
        names: names that it may use.

    Raises:
        ExpressionError: at construction, for what is no condition.
    """

    def __init__(self, text: str, names: Collection[str]):
        self.text, self.known = text, names
        if len(text) > LONGEST:
            raise ExpressionError(f"a condition of {len(text)} characters; {LONGEST} are enough")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ExpressionError(f"'{text}' is no condition ({getattr(error, 'msg', error)}); {_example()}") from error
        self.names: set[str] = set()
        self._check(self._tree, DEEPEST)

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the condition is met. Raises ExpressionError where its parts do not fit together."""
        try:
            found = self._value(self._tree, values)
        except (TypeError, ZeroDivisionError, OverflowError) as error:
            raise ExpressionError(f"'{self.text}' does not fit its values ({error}); {self._seen(values)}") from error
        if not isinstance(found, bool):
            raise ExpressionError(f"'{self.text}' gives {found!r:.40}, neither true nor false; {self._seen(values)}")
        return found

    def _seen(self, values: Mapping[str, Any]) -> str:
        seen = [f"{name} is {values[name]!r:.40}" for name in sorted(self.names)]
        return f"here {', '.join(seen) or 'it has no name'}"

    def _check(self, node: ast.AST, depth: int) -> None:
        """Refuse what is not in the grammar."""
        if depth < 1:
            raise ExpressionError(f"'{self.text:.60}' is nested too deeply")
        if isinstance(node, ast.Name):
            if node.id not in self.known:
                raise ExpressionError(
                    f"'{self.text}' asks for '{node.id}', which nobody knows of an episode; known:"
                    f" {', '.join(sorted(self.known))}. A text stands in quotes"
                )
            self.names.add(node.id)
            return
        if isinstance(node, ast.Constant):
            if not isinstance(node.value, (bool, int, float, str)):
                raise ExpressionError(f"'{self.text}': {ast.unparse(node):.40} is no number and no text")
            return
        for part in self._parts(node):
            self._check(part, depth - 1)

    def _parts(self, node: ast.AST) -> list[ast.expr]:
        """The parts of a node that the grammar has. Raises ExpressionError for any other."""
        if isinstance(node, ast.BoolOp):
            return node.values
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
            return [node.operand]
        if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            return [node.left, node.right]
        if isinstance(node, ast.Compare) and all(type(one) in COMPARISONS for one in node.ops):
            return [node.left, *node.comparators]
        if isinstance(node, (ast.Tuple, ast.List)):
            return node.elts
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            if FUNCTIONS.get(node.func.id, (None,))[0] == len(node.args):
                return node.args
        raise ExpressionError(f"'{self.text}': {ast.unparse(node):.40} is not read in a condition; {_example()}")

    def _value(self, node: ast.AST, values: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.Name):
            return values[node.id]
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.BoolOp):
            stop = isinstance(node.op, ast.Or)
            return stop if any(self._truth(part, values) is stop for part in node.values) else not stop
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return not self._truth(node.operand, values)
        if isinstance(node, ast.UnaryOp):
            return -self._value(node.operand, values)
        if isinstance(node, ast.BinOp):
            return self._arithmetic(node, values)
        if isinstance(node, ast.Compare):
            return self._compare(node, values)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return FUNCTIONS[node.func.id][1](*(self._value(part, values) for part in node.args))
        return tuple(self._value(part, values) for part in self._parts(node))

    def _truth(self, node: ast.AST, values: Mapping[str, Any]) -> bool:
        found = self._value(node, values)
        if not isinstance(found, bool):
            raise TypeError(f"{ast.unparse(node)} is {found!r:.40}, neither true nor false")
        return found

    def _arithmetic(self, node: ast.BinOp, values: Mapping[str, Any]) -> Any:
        one, other = self._value(node.left, values), self._value(node.right, values)
        if not all(isinstance(value, (int, float)) for value in (one, other)):
            raise TypeError(f"{ast.unparse(node)} is no sum of numbers")
        return ARITHMETIC[type(node.op)](one, other)

    def _compare(self, node: ast.Compare, values: Mapping[str, Any]) -> bool:
        left = self._value(node.left, values)
        for kind, part in zip(node.ops, node.comparators, strict=True):
            right = self._value(part, values)
            if not COMPARISONS[type(kind)](left, right):
                return False
            left = right
        return True


def _example() -> str:
    return "write for example: length > 50 and success and 'lift' in task"
