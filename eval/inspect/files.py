"""What `understudy inspect` shows of files: what is in a dataset, a record, or a run or checkpoint.

A checkpoint is read without building its network: JSON files, the header of the weights, and the few numbers of the
scales.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...configs.episode import REWARD, SUCCESS
from ...configs.files import replace_text
from ...configs.former import policy_settings
from ...configs.machine import cache_folder
from ...configs.pointers import why_unread
from ...configs.progress import counted
from ...configs.spec import Embodiment
from ...policies.data.corrections import helped
from ...policies.data.dataset import Dataset
from ...policies.data.layout import DatasetError, expand_path
from ...policies.data.open import open_dataset
from ...policies.data.tables import DatasetWarning
from ..ledger.record import MANIFEST, REPORT, read_record
from ..ledger.summary import summarize
from .settings import PLACE

SHEETS, PAGES = (".png", ".svg", ".pdf"), (".html", ".htm")  # endings of a sheet, of a page
FILES = (".jpg", ".jpeg", ".gif", ".webp", ".json", ".txt", ".md", ".csv", ".yaml", ".yml", ".mp4")  # of neither
INDEX = "index.html"  # the page in a folder of its own


def show(
    source: str,
    out: Path | None = None,
    embodiment: Path | None = None,
    quality: bool = False,
    reference: str = "",
    shown: int = 12,
    **chosen: Any,
) -> None:
    """Print what is in a dataset, an episode record, a run or a checkpoint, and write the page of a dataset.

    Args:
        source: dataset folder or hub id, record, run or checkpoint folder.
        out: folder or .html of the page, picture of the sheet, or file of the numbers where `quality`.
        quality: of a dataset, how good it is to imitate, relative to `reference`.
        shown: of a dataset, episodes on the page.
        chosen: of a dataset, `episodes`, `without` and `sources` of `open_dataset`.

    Raises:
        DatasetError: nothing of the kind, or flags of another.
    """
    if reference and not quality:
        raise DatasetError("--reference is for --quality; give both or none")

    path = expand_path(source)
    folder = _checkpoint(path)
    kind = "an episode record" if (path / MANIFEST).is_file() else "a run" if folder is not None else ""

    if kind and quality:
        raise DatasetError(f"{source} is {kind}; --quality is of a dataset")
    if kind and out is not None:
        raise DatasetError(f"{source} is {kind}, which is printed and not drawn; leave out --out")
    if (path / MANIFEST).is_file():
        show_record(path)
    elif folder is not None:
        show_checkpoint(folder)
    elif instead := _instead(path):
        raise DatasetError(f"{source} is {instead}")
    elif quality:
        inspect_quality(source, reference, out, embodiment, **chosen)
    else:
        inspect_dataset(source, out, embodiment, shown, **chosen)


def show_record(root: Path) -> None:
    """Print the summary of an episode record and where its report is."""
    record = read_record(root)
    print(summarize(record).text())
    report = root / REPORT
    remedy = "none; the command that made the record writes it"
    print(f"report          {report if report.is_file() else remedy}")
    print(f"next            understudy compare {root} OTHER_RECORD    which of the two is better")


def _instead(path: Path) -> str:
    """What a folder is that other verbs made, and how to look at it; "" for any other."""
    pages = (("compare.json", "compare.html"), ("agree.json", "agree.html"), ("search.json", REPORT))
    for numbers, page in pages:
        if (path / numbers).is_file():
            verb = "compose" if page == REPORT else page.split(".")[0]
            seen = f"open {path / page}" if (path / page).is_file() else f"its numbers are {path / numbers}"
            return f"what `understudy {verb}` wrote; {seen}"
    if not path.is_dir() or (path / "meta").is_dir():
        return ""
    if any(path.glob("*/*/cell.json")) or any(path.glob("*/cell.json")):
        runs = sorted(file.parent for file in (*path.glob("*/cell.json"), *path.glob("*/*/cell.json")))
        table = next((file for file in (path / "table.md", path / "table.json") if file.is_file()), None)
        read = f"; its table is {table}" if table else ""
        return (
            f"a grid of {counted(len(runs), 'training')} (`understudy run`){read}; inspect one of them, such as "
            f"{runs[0]}"
        )
    records = sorted(file.parent for file in path.glob(f"*/{MANIFEST}"))
    if records:
        return f"a folder of {counted(len(records), 'episode record')}; inspect one of them, such as {records[0]}"
    return ""


def inspect_dataset(
    source: str, out: Path | None = None, embodiment: Path | None = None, shown: int = 12, **chosen: Any
) -> None:
    """Print tables and warnings about a dataset; write its page, or its sheet where `out` is a picture."""
    if shown < 1:
        raise DatasetError(f"--shown {shown}: at least one episode is shown")
    require_out(cache_folder() / PLACE / "new" if out is None else out)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DatasetWarning)
        dataset = open_dataset(source, embodiment=embodiment, check=False, **chosen)

    from .cameras import look_at_cameras
    from .survey import survey

    overview, looks = survey(dataset), look_at_cameras(dataset)
    odd = [*(str(warning.message) for warning in caught), *overview.warnings]
    odd += [text for one in looks for text in one.warnings]
    facts = _dataset_facts(dataset)
    console = _console()
    console.print(_facts(f"dataset {dataset.root}", facts))
    console.print(_dimension_table(overview.dimensions))
    for warning in odd:
        console.print(f"[yellow]warning[/]: {_plain(warning)}", soft_wrap=True)
    if not odd:
        console.print("no warnings")

    if out is not None and out.suffix.lower() in SHEETS:
        from .sheet import draw_sheet

        draw_sheet(dataset, out, looks, overview.stored)
        console.print(f"picture: {_plain(str(out))}", soft_wrap=True)
        return

    from .recordings.page import Seen, render

    file = page_file(dataset, out)
    replace_text(file, render(dataset, Seen(facts, odd, overview, looks), shown))
    console.print(f"page: {_plain(str(file))}", soft_wrap=True)


def page_file(dataset: Dataset, out: Path | None) -> Path:
    """Where the page goes: `out`, or beside the caches, where the same dataset overwrites its own page alone."""
    if out is None:
        name = re.sub(r"[^\w.-]+", "-", dataset.root.resolve().name) or "dataset"
        return cache_folder() / PLACE / f"{name}-{dataset.fingerprint[:8]}" / INDEX
    return out if out.suffix.lower() in PAGES else out / INDEX


def require_out(out: Path) -> None:
    """Refuse what could not be written in the end, before the work begins.

    Raises:
        DatasetError: the name of another kind of file, or a place that may not be written.
        FileExistsError: there is something already.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; choose another --out")
    if out.suffix.lower() in (*SHEETS, *PAGES):
        return require_place(out, (*SHEETS, *PAGES))
    if out.suffix.lower() in FILES:
        raise DatasetError(f"--out {out}: give a folder or an .html for the page, or a picture ({', '.join(SHEETS)})")
    there = next(folder for folder in out.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise DatasetError(f"{there} may not be written; give --out a place that may")


def require_place(out: Path, endings: tuple[str, ...]) -> None:
    """Refuse a file that could not be written in the end, before the work begins.

    Raises:
        DatasetError: another ending, or a folder that does not exist or may not be written.
    """
    if out.suffix.lower() not in endings:
        raise DatasetError(f"--out {out} ends in none of {', '.join(endings)}; give a file that ends in one of them")
    folder = out.parent
    if not folder.is_dir():
        raise DatasetError(f"the folder {folder} of --out {out} does not exist; make it, or name another")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DatasetError(f"the folder {folder.resolve()} may not be written; give --out a file in another folder")


def inspect_quality(
    source: str, reference: str = "", out: Path | None = None, embodiment: Path | None = None, **chosen: Any
) -> None:
    """Print how good a dataset is to imitate, and write it to `out` as JSON if given."""
    from .quality import quality

    if out is not None and out.suffix != ".json":
        raise DatasetError(f"--quality writes its numbers, not a picture; give a .json instead of {out}")
    if out is not None:
        require_place(out, (".json",))
    dataset = open_dataset(source, embodiment=embodiment, check=False, **chosen)
    against = open_dataset(reference, embodiment=embodiment, check=False) if reference else None
    measures = quality(dataset, against)
    facts = {"episodes": len(dataset.lengths), "frames": len(dataset), "fingerprint": dataset.fingerprint}
    facts |= {"reference": against.fingerprint} if against else {}
    console = _console()
    console.print(_facts(f"quality of {dataset.root}", {key: str(value) for key, value in facts.items()}))
    console.print(_quality_table(measures))
    if out is not None:
        out.write_text(json.dumps(facts | {"measures": {m.name: m.to_dict() for m in measures}}, indent=1) + "\n")
        console.print(f"written: {out}", soft_wrap=True)


def show_checkpoint(folder: Path) -> None:
    """Print what is in a checkpoint folder, also one of lerobot's. Raises DatasetError for a damaged one."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        reason = why_unread(folder / "config.json", error)
        raise DatasetError(f"{folder}/config.json cannot be read ({reason})") from error
    if "kind" not in config and "type" in config:
        return _show_foreign(folder)
    try:
        body = Embodiment.load(folder / "embodiment.json")
        mixed = config.get("kind") == "mixture"
        tensors, scales = ({}, {}) if mixed else _weights(folder / "model.safetensors")
    except (OSError, ValueError) as error:
        raise DatasetError(f"the checkpoint {folder} is damaged ({error}); use an earlier one of the run") from error
    console = _console()
    console.print(_facts(f"checkpoint {folder}", _checkpoint_facts(folder, config, body, tensors)))
    console.print(_embodiment_table(body))
    if scales:
        console.print(_facts("scales (mean, factor)", scales))
    if mixed:
        from ...policies.learning.checkpoint import parents_of

        for parent in parents_of(folder):
            show_checkpoint(parent)


def _show_foreign(folder: Path) -> None:
    """Print what is in a checkpoint of lerobot's; lerobot itself is not needed."""
    from ...policies.foreign.body import body_of
    from ...policies.foreign.folder import Foreign
    from ...policies.foreign.scale import old_buffers

    foreign = Foreign(folder)
    body = body_of(foreign)
    config, statistics = foreign.config, old_buffers(foreign.weights)
    weights = [value for name, value in foreign.weights.items() if name not in statistics]
    features = {**config["input_features"], **config["output_features"]}
    facts = {
        "type": f"lerobot/{foreign.kind}",
        "parameters": f"{sum(value.numel() for value in weights):,}",
        "observes": ", ".join(f"{key} {tuple(features[key]['shape'])}" for key in config["input_features"]),
        "chunk": str(config.get("horizon", config.get("chunk_size", "as it says"))),
        "who acts": f"{body.embodiment.name}, by {body.source}" + (" (by position)" if body.guessed else ""),
    }
    console = _console()
    console.print(_facts(f"checkpoint {folder}", facts))
    console.print(_embodiment_table(body.embodiment))


def _checkpoint(path: Path) -> Path | None:
    """The checkpoint that `path` means: itself, the run's best, its last, or its newest; None if it is no run."""
    numbered = sorted((path / "checkpoints").glob("[0-9]*"), reverse=True)
    lerobot = [folder / "pretrained_model" for folder in (path / "checkpoints" / "last", *numbered, path)]
    for folder in (path, path / "best", path / "last", *numbered, *lerobot):
        if (folder / "config.json").is_file():
            return folder.resolve()
    if (path / "checkpoints").is_dir():
        raise DatasetError(f"the run {path} holds no checkpoint yet; wait for its first, or train it again")
    return None


def _dataset_facts(dataset: Dataset) -> dict[str, str]:
    lengths, body = dataset.lengths, dataset.embodiment
    tasks = list(dict.fromkeys(task for task in dataset.tasks if task))
    seconds = len(dataset) / dataset.rate
    facts = {
        "format": f"LeRobotDataset {dataset.version}",
        "episodes": f"{len(lengths)}, of {lengths.min()} to {counted(lengths.max(), 'frame')} (median "
        f"{np.median(lengths):g})",
        "frames": f"{len(dataset)} at {dataset.rate:g} Hz, {int(seconds // 60)} min {seconds % 60:.0f} s in all",
        "tasks": "; ".join(tasks[:5]) + (f" and {len(tasks) - 5} more" if len(tasks) > 5 else "") or "none named",
        "body": _body(body),
        **_sources(dataset),
        "cameras": ", ".join(f"{name} {h}x{w}" for name, (h, w) in body.cameras.items()) or "none",
    }
    best = {
        key: np.maximum.reduceat(dataset.columns[key][:, 0], dataset.starts)
        for key in (SUCCESS, REWARD)
        if key in dataset.columns
    }
    if SUCCESS in best:
        count = int((best[SUCCESS] > 0).sum())
        none = "" if count else " are marked so; that nobody marked it is no failure"
        facts["success"] = f"{count} of {counted(len(lengths), 'episode')}{none}{helped(dataset)}"
    if REWARD in best:
        facts["best reward"] = f"{best[REWARD].mean():.3f} on average over episodes, {best[REWARD].min():.3f} at least"
    return facts | {"fingerprint": dataset.fingerprint}


def _sources(dataset: Dataset) -> dict[str, str]:
    """Which recorded columns are read in the place of others."""
    told = {key: " + ".join(names) for key, names in dataset.layout.sources.items()}
    return {"read as": "; ".join(f"{key} from {names}" for key, names in told.items())} if told else {}


def _checkpoint_facts(folder: Path, config: dict, body: Embodiment, tensors: Mapping[str, tuple]) -> dict[str, str]:
    settings = policy_settings(config.get("config", {}))
    window = settings.get("window", {})
    weights = sum(int(np.prod(shape)) for name, shape in tensors.items() if not _is_scale(name))
    progress = folder / "training_state" / "progress.json"
    step = json.loads(progress.read_text()).get("step") if progress.is_file() else None
    facts = {
        "kind": f"{config.get('kind', '?')}, type {config.get('type', '?')}",
        "training step": str(step if step is not None else folder.name),
        "parameters": f"{weights:,}",
        "inputs": ", ".join(settings.get("inputs", ())) or "nothing",
    }
    if config.get("kind") == "mixture":
        facts = {"kind": facts["kind"], "parents": "as follows"}
    if window:
        facts["window"] = ", ".join(f"{name} {value}" for name, value in window.items())
    other = {key: value for key, value in settings.items() if key not in ("window", "inputs", "type")}
    facts |= {key: json.dumps(value) for key, value in other.items()}
    return facts | {"body": _body(body, f" at {body.rate:g} Hz")}


def _body(body: Embodiment, rate: str = "") -> str:
    """What a body's actions mean, as far as somebody stated it."""
    words = {"mode": body.mode.value, "frame": f"in frame '{body.frame}'", "rotation": f"rotation {body.rotation}"}
    stated = ", ".join(word for part, word in words.items() if body.states(part))
    return f"{body.name}{rate}, {f'actions {stated}' if stated else 'not specified what its actions mean'}"


def _weights(path: Path) -> tuple[dict[str, tuple], dict[str, str]]:
    """Shape of every tensor from the header, and the numbers of the scales in words."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            values = {name: file.get_tensor(name) for name in shapes if _is_scale(name)}
    except SafetensorError as error:
        raise DatasetError(f"{path.name}: {why_unread(path, error)}") from error
    owners = sorted({name.rsplit(".", 1)[0] for name in values})
    return shapes, {o: f"{_numbers(values[o + '.mean'])}, {_numbers(values[o + '.std'])}" for o in owners}


def _is_scale(name: str) -> bool:
    return re.search(r"scales?(\.[^.]+)?\.(mean|std)$", name) is not None


def _numbers(values: np.ndarray) -> str:
    return "[" + " ".join(f"{value:.4g}" for value in values) + "]"


def _console():
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _facts(title: str, facts: Mapping[str, str]):
    from rich.table import Table

    table = Table(title=_plain(title), title_justify="left", show_header=False, box=None, title_style="bold")
    for key, value in facts.items():
        table.add_row(_plain(key), _plain(value))
    return table


def _dimension_table(dimensions):
    from rich.table import Table

    table = Table("column", "name", "unit", *("min", "mean", "max", "std", ""), box=None, header_style="bold")
    previous = ""
    for d in dimensions:
        note = f"[red]{d.bad} NaN or infinite[/]" if d.bad else "[yellow]constant[/]" if d.constant else ""
        numbers = [f"{value:.5g}" for value in (d.low, d.mean, d.high, d.std)]
        table.add_row(_plain(d.column if d.column != previous else ""), _plain(d.name), _plain(d.unit), *numbers, note)
        previous = d.column
    return table


def _quality_table(measures):
    from rich.table import Table

    table = Table("measure", "value", "95 % interval", "unit", "meaning", box=None, header_style="bold")
    for m in measures:
        table.add_row(m.name, f"{m.value:.4g}", f"{m.low:.4g} .. {m.high:.4g}", m.unit, _plain(m.about))
    return table


def _embodiment_table(body: Embodiment):
    from rich.table import Table

    table = Table("", "name", "unit", "limits", box=None, header_style="bold")
    for name, unit, (low, high) in zip(body.action, body.action_units, body.limits, strict=True):
        table.add_row("action", _plain(name), unit, f"{low:g} .. {high:g}")
    for what, names, units in (("state", body.state, body.state_units), ("scene", body.scene, body.scene_units)):
        for name, unit in zip(names, units, strict=True):
            table.add_row(what, _plain(name), unit, "")
    return table
