"""What `python -m understudy.X words` does with a class of settings: the verbs' grammar, for studies that are no verbs.

if __name__ == "__main__":
    raise SystemExit(run_module(Study))
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from draccus.utils import ParsingError

from .machine import prepare
from .parse import describe, parse
from .plugins import discover

FAILED = 2


def run_module(config_class: type, words: Sequence[str] | None = None) -> int:
    """Parse the words (default: of the command line) and run. Returns the exit status.

    As with a verb the process is prepared (`machine.prepare`), a first word that ends in .yaml is the config, `--help`
    describes the settings, and the registries in `DISCOVER` are filled first.
    What the user got wrong (ValueError, LookupError, OSError, what draccus refuses) is one message on stderr and 2.
    """
    words = list(sys.argv[1:] if words is None else words)
    prepare()
    discover(*getattr(config_class, "DISCOVER", ()))
    if "--help" in words or "-h" in words:
        module = sys.modules[config_class.__module__]
        name = module.__spec__.name if module.__spec__ else config_class.__module__
        print(describe(config_class, f"python -m {name}"))
        return 0
    path = words.pop(0) if words and words[0].endswith((".yaml", ".yml")) else None
    try:
        parse(config_class, path, words).run()
    except (ValueError, LookupError, OSError, ParsingError) as error:
        print(error, file=sys.stderr)
        return FAILED
    return 0
