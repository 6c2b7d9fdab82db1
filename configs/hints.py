"""The types of a class's fields, found out once.

Python evaluates the text of every annotation anew at each question, and reading one command asks hundreds of times.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any


@cache
def hints_of(config_class: type) -> Mapping[str, Any]:
    """`typing.get_type_hints` of a class, which nobody may change."""
    return MappingProxyType(typing.get_type_hints(config_class))
