"""`understudy push RUN|DATA|RECORD --to hf://OWNER/NAME|FOLDER`: share a policy, a dataset or an episode record.

Of a run its best checkpoint, without the state of its training. The card says how it did, from records of that very
policy; a record of another one is refused.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .shelf import CARD, INDEX, SCHEME, SharedError, put


@dataclass(frozen=True, kw_only=True)
class Push:
    """Share a policy, a dataset or an episode record, with a card and hashes."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("what",)
    DISCOVER: ClassVar[tuple[str, ...]] = ("policies",)

    what: str  # run or checkpoint folder, dataset folder, or episode record
    to: str  # hf://OWNER/NAME (hf://datasets/OWNER/NAME), or a folder that stands for it
    record: tuple[str, ...] = ()  # episode records of the policy, whose success its card states
    private: bool = False  # on the hub: only its owner may read it
    name: str = ""  # what the card calls it; by default as the place

    def run(self) -> None:
        """Share it.

        Raises:
            SharedError, CheckpointError, DatasetError, RecordError: what is not shared, and why.
            HubError: no network, or no permission.
        """
        from ..ledger.examine import is_record

        what = Path(os.path.expandvars(self.what)).expanduser()
        if self.record and (is_record(what) or is_dataset(what)):
            raise SharedError(f"--record belongs to a policy, but {what} is none; leave it out")
        if self.private and not self.to.startswith(SCHEME):
            raise SharedError(
                f"--private hides a place on the hub; who may read {self.to} its folder says: leave it out"
            )
        place = self.to if self.to.startswith(SCHEME) else str(Path(os.path.expandvars(self.to)).expanduser())
        with _beside(what) as folder:
            staged = Path(folder) / "staged"
            if is_record(what):
                kind, card = "record", self._stage_record(what, staged)
            elif is_dataset(what):
                kind, card = "dataset", self._stage_dataset(what, staged)
            else:
                kind, card = "policy", self._stage_policy(staged)
            (staged / CARD).write_text(card, encoding="utf-8")
            print(f"{kind} shared: {put(staged, place, kind, self.private)}")

    @property
    def _title(self) -> str:
        from .card import name_of

        return self.name or name_of(self.to, Path(self.what))

    def _stage_policy(self, staged: Path) -> str:
        from ...policies.learning.checkpoint import TRAINING, find_checkpoint, fingerprint, is_of
        from ...policies.learning.integrity import DIGESTS, write_digests
        from ...policies.load import load_policy
        from ..ledger.record import read_record
        from .card import policy_card

        folder = find_checkpoint(self.what)
        policy, about = load_policy(folder)
        mark = fingerprint(folder)
        records = [read_record(path) for path in self.record]
        for record in records:
            acted = (record.manifest.get("policy") or {}).get("fingerprint")
            if not is_of(acted, folder):
                raise SharedError(f"{record.root} is a record of another policy ({acted}), not of {folder} ({mark})")
        _gather(folder, staged, TRAINING)
        if (staged / DIGESTS).is_file():
            (staged / DIGESTS).unlink()  # it may be the checkpoint's own file
            write_digests(staged)  # without the state of the training
        body = getattr(policy, "body", None)  # of lerobot's
        if body is not None and not Path(body.source).is_relative_to(folder):
            said = f"{body.source} says" if body.stated else "nobody says"
            print(
                f"note: {said} who acts, and that is not shared: who pulls it takes its numbers by position. Put an "
                f"embodiment.json into {folder} before it is evaluated"
            )
        theirs = not (folder / DIGESTS).is_file() and (folder / "policy_preprocessor.json").is_file()
        return policy_card(self._title, about | {"fingerprint": mark}, policy.embodiment, records, theirs)

    def _stage_dataset(self, what: Path, staged: Path) -> str:
        from ...policies.data.open import open_dataset
        from .card import dataset_card

        dataset = open_dataset(what)  # refuses what is damaged
        _gather(what, staged)
        return dataset_card(self._title, dataset)

    def _stage_record(self, what: Path, staged: Path) -> str:
        from ..ledger.films import film_faults
        from ..ledger.record import read_record
        from .card import record_card

        record = read_record(what)
        if fault := next(film_faults(record), None):
            raise SharedError(f"{fault}; it would be shared with a hash of its own: remove the film, or copy it again")
        _gather(what, staged)
        return record_card(self._title, record)


def _beside(what: Path) -> tempfile.TemporaryDirectory:
    """A folder for what will be shared: on the disk of the files, where they need not be copied, if one may write."""
    parent = what.resolve().parent
    if what.is_dir() and os.access(parent, os.W_OK):
        return tempfile.TemporaryDirectory(prefix=f".{what.name}.", suffix=f".{os.getpid()}.half", dir=parent)
    return tempfile.TemporaryDirectory(prefix="understudy-push-")


def _gather(source: Path, staged: Path, *without: str) -> None:
    """The files of a folder under other names of theirs (hard links), copied where the disk is another one."""

    def ignored(place: str, names: list[str]) -> set[str]:
        ours = (CARD, INDEX) if Path(place) == source else ()  # one of a part, such as a tokenizer's, goes with it
        return {name for name in names if name in (*without, *ours)}

    shutil.copytree(source, staged, ignore=ignored, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def is_dataset(path: Path) -> bool:
    """Whether a folder is a LeRobot dataset."""
    return (path / "meta" / "info.json").is_file()
