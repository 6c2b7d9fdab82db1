"""understudy: learn robot policies from demonstrations, improve them at test time, judge them before the arm moves.

`import understudy` is quick: what is listed below is imported when it is first used (`api.py`).
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api import compare, demos, evaluate, load, make, open_dataset, read_record, rollout, train

__all__ = ["compare", "demos", "evaluate", "load", "make", "open_dataset", "read_record", "rollout", "train"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'understudy' has no attribute '{name}'; it offers {', '.join(__all__)}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.api"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name != "TYPE_CHECKING"), *__all__})
