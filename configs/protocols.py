"""Whether a thing keeps a protocol: asked of its type first, and of its names where it comes from elsewhere.

Classes of ours name the protocols that they keep among their bases, so that `isinstance` answers. A plug-in may do the
same, or register (`Policy.register(Mine)`), or merely have what the protocol names. For the last kind `isinstance`
does not serve: since Python 3.12 it looks attributes up statically and does not see what an `nn.Module` holds as a
submodule. `keeps` gives the same answer on every Python.
"""

from __future__ import annotations

import inspect
from typing import Protocol, TypeGuard, TypeVar

Kept = TypeVar("Kept")


def keeps(thing: object, protocol: type[Kept]) -> TypeGuard[Kept]:
    """Whether `thing` is of a class that says it keeps `protocol`, or has all that this one names."""
    return isinstance(thing, protocol) or not missing(thing, protocol)


def missing(thing: object, protocol: type) -> tuple[str, ...]:
    """What `protocol` names and `thing` lacks: of the protocol itself, then of those that it widens.

    Attributes come before methods; a method that is no function, such as None, is lacking.
    """
    lacking = []
    for name, method in _members(protocol).items():
        held = callable(getattr(thing, name, None)) if method else hasattr(thing, name)
        if not held:
            lacking.append(name)
    return tuple(lacking)


def _members(protocol: type) -> dict[str, bool]:
    """Name -> whether it is a method, of everything that a protocol asks for."""
    members: dict[str, bool] = {}
    for base in protocol.__mro__:
        if base is Protocol or not getattr(base, "_is_protocol", False):
            continue
        attributes = dict.fromkeys(inspect.get_annotations(base), False)
        methods = {name: callable(value) for name, value in vars(base).items() if name not in attributes}
        for name, method in (attributes | methods).items():
            if not name.startswith("_"):
                members.setdefault(name, method)
    return members
