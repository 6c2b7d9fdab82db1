"""`understudy pull hf://OWNER/NAME|FOLDER OUT`: bring what was shared, every file compared with its hash.

Files that are not plain data are left where they are and named; with --code they are brought too, but nothing is run. A
pull that broke off goes on where it was.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .shelf import SCHEME, SharedError, take


@dataclass(frozen=True, kw_only=True)
class Pull:
    """Bring a shared policy, dataset or record, and verify its hashes."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("source", "out")

    source: str  # hf://OWNER/NAME (hf://datasets/OWNER/NAME), or a folder that was pushed to
    out: str  # folder to write; must not exist
    revision: str = ""  # on the hub: a branch, a tag or a commit; by default the newest
    code: bool = False  # bring files that are no plain data too (code, pickles); nothing is run in any case

    def run(self) -> None:
        """Fetch beside `out`, verify, rename.

        Raises:
            SharedError: a file that is missing or another than was pushed, by name; `out` is not written.
            FileExistsError: `out` exists. HubError, FileNotFoundError: nothing there, or no network.
        """
        out = Path(os.path.expandvars(self.out)).expanduser()
        if self.revision and not self.source.startswith(SCHEME):
            raise SharedError(f"--revision is of a place on the hub, and {self.source} is a folder: leave it out")
        if out.exists():
            raise FileExistsError(f"{out} exists; choose another folder")
        beside = out.with_name(f".{out.name}.pulled")  # kept where a pull breaks off
        index, left = take(os.path.expandvars(self.source), beside, self.revision or None, self.code)
        if index is None:
            warnings.warn(
                f"{self.source} was not pushed by understudy: it has no hashes to verify its files by", stacklevel=2
            )
        beside.rename(out)
        if left:
            print(f"left out, for they may run code: {', '.join(left[:6])}{', ...' if len(left) > 6 else ''}")
        print(f"{out}: {index.kind if index else 'files'}, {'verified' if index else 'not verified'}")
