"""What is said of settings that cannot be read: unknown keys and types, with the closest known ones; wrong values."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable

import draccus

from .comments import comments_of
from .fields import is_choice, kind_of, type_at, value_at

MANY = 10  # names that are listed beside a good guess


class UsageError(ValueError):
    """The words of the command make no sense; the message says what would."""


class UnknownSettingError(UsageError):
    """No such setting; `path` is where it stands."""

    def __init__(self, message: str, path: tuple[str, ...], names: list[str]):
        super().__init__(message)
        self.path, self.names = path, names


def unknown(what: str, path: tuple[str, ...], names: list[str], everywhere: list[str] | None = None) -> UsageError:
    """Name the closest known one; a setting is compared and named with its whole path, a type by its name.

    Args:
        everywhere: all settings, also those of other groups, such as `optimize.lr` for `lr`.
    """
    wrong = ".".join(path) if what == "setting" else path[-1]
    close = _closest(wrong, names, everywhere or ())
    where = "" if what == "setting" else f" for {'.'.join(path[:-1])}"
    hint = f" Did you mean {' or '.join(repr(name) for name in dict.fromkeys(close[:3]))}?" if close else ""
    many = close and what == "setting" and len(names) > MANY
    known = "--help lists all" if many else f"Known: {', '.join(sorted(names)) or 'none'}"
    message = f"unknown {what} '{wrong}'{where}.{hint} {known}"
    return UnknownSettingError(message, path, names) if what == "setting" else UsageError(message)


def _closest(wrong: str, names: Iterable[str], everywhere: Iterable[str]) -> list[str]:
    """The known names that were most likely meant, compared by their last part; equal ones all, three at most."""
    last, beside = wrong.rpartition(".")[2], set(names)

    def likeness(name: str) -> float:
        return difflib.SequenceMatcher(None, last, name.rpartition(".")[2]).ratio() + 0.01 * (name in beside)

    scores = {name: likeness(name) for name in dict.fromkeys((*names, *everywhere))}
    best = max(scores.values(), default=0.0)
    return [name for name, score in scores.items() if best >= 0.55 and score == best][:3]


def why_undecoded(config_class: type, full: dict, error: Exception, within: tuple[str, ...] = ()) -> str:
    """What a decoding error says, without the words of the framework.

    Args:
        within: the group that was decoded.
    """
    innermost = _innermost(error)
    keys = [str(key) for key in getattr(innermost, "key_path", ())]
    cause = innermost.__cause__
    if not keys:
        return str(cause or innermost)
    keys = [*within, *keys]
    while len(keys) > 1 and type_at(config_class, full, keys) is None:  # one of several values of a field
        keys.pop()
    hint, value = type_at(config_class, full, keys), value_at(full, keys)
    if hint is None or value is None or isinstance(value, dict) and (is_choice(hint) or dataclasses.is_dataclass(hint)):
        return f"{'.'.join(keys)}: {cause or getattr(error, 'message', error)}"
    about = comments_of(config_class).get(keys[0], "") if len(keys) == 1 else ""
    return f"{'.'.join(keys)} takes {_wanted(hint)}, got {value!r}" + (f" ({keys[0]}: {about})" if about else "")


def refusal_of(error: Exception) -> BaseException | None:
    """What a class of settings complained about; None where the framework did."""
    innermost = _innermost(error)
    return None if getattr(innermost, "key_path", ()) else innermost.__cause__


def _innermost(error: BaseException) -> BaseException:
    """The error of the value itself: what may be null hides it behind one that knows the whole group only."""
    while isinstance(error.__cause__, draccus.ParsingError):
        error = error.__cause__
    return error


def _wanted(hint: object) -> str:
    """What a field takes, in words."""
    simple: dict[object, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if hint in simple:
        return simple[hint]
    example = _example(hint)
    return f"{example}" if example else kind_of(hint)


def _example(hint: object) -> str:
    """A value as one writes it, of a field that takes several."""
    inside, origin = typing.get_args(hint), typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return next((found for one in inside if (found := _example(one))), "")
    if origin is dict:
        return f"{{NAME: {_example(inside[1]) or 'VALUE'}}}"
    if origin is tuple:
        count = 2 if inside[-1] is Ellipsis else len(inside)
        return f"[{', '.join([_example(inside[0]) or 'WORD'] * count)}]"
    if origin is list:
        return f"[{_example(inside[0]) or 'WORD'}, ...]"
    return {int: "84", float: "0.5", str: "WORD"}.get(hint, "") if isinstance(hint, type) else ""
