"""What `understudy inspect` shows of files: what is in a dataset, or in a run or checkpoint.

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
from ...configs.former import policy_settings
from ...configs.pointers import why_unread
from ...configs.spec import Embodiment
from ...policies.data.dataset import Dataset
from ...policies.data.layout import DatasetError, expand_path
from ...policies.data.open import open_dataset
from ...policies.data.tables import DatasetWarning

SHEETS = (".png", ".svg", ".pdf")  # endings of a sheet


def show(
    source: str,
    out: Path | None = None,
    embodiment: Path | None = None,
    quality: bool = False,
    reference: str = "",
    **chosen: Any,
) -> None:
    """Print what is in a dataset, a run or a checkpoint, and write the sheet of a dataset.

    Args:
        source: dataset folder or hub id, run or checkpoint folder.
        out: file of the sheet, or of the numbers where `quality`.
        quality: of a dataset, how good it is to imitate, relative to `reference`.
        chosen: of a dataset, `episodes`, `without` and `sources` of `open_dataset`.

    Raises:
        DatasetError: neither a dataset nor a run, or flags of the other.
    """
    if reference and not quality:
        raise DatasetError("--reference is for --quality; give both or none")

    folder = _checkpoint(expand_path(source))

    if quality:
        if folder is not None:
            raise DatasetError(f"{source} is a run; --quality is of a dataset")
        inspect_quality(source, reference, out, embodiment, **chosen)
    elif folder is not None:
        if out is not None:
            raise DatasetError(f"{source} is a run, which is printed and not drawn; leave out --out")
        show_checkpoint(folder)
    else:
        inspect_dataset(source, out, embodiment, **chosen)


def inspect_dataset(source: str, out: Path | None = None, embodiment: Path | None = None, **chosen: Any) -> None:
    """Print tables and warnings about a dataset and draw its sheet."""
    require_place(out or Path("inspect-.png"), SHEETS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DatasetWarning)
        dataset = open_dataset(source, embodiment=embodiment, check=False, **chosen)
    path = out or Path(f"inspect-{dataset.root.resolve().name}.png")

    from .cameras import look_at_cameras
    from .sheet import draw_sheet
    from .survey import survey

    overview, looks = survey(dataset), look_at_cameras(dataset)
    odd = [*(str(warning.message) for warning in caught), *overview.warnings]
    odd += [text for one in looks for text in one.warnings]
    console = _console()
    console.print(_facts(f"dataset {dataset.root}", _dataset_facts(dataset)))
    console.print(_dimension_table(overview.dimensions))
    for warning in odd:
        console.print(f"[yellow]warning[/]: {_plain(warning)}", soft_wrap=True)
    if not odd:
        console.print("nothing odd was found")
    draw_sheet(dataset, path, looks, overview.stored)
    console.print(f"drawn: {path}", soft_wrap=True)


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
        "episodes": f"{len(lengths)}, of {lengths.min()} to {lengths.max()} frames (median {np.median(lengths):g})",
        "frames": f"{len(dataset)} at {dataset.rate:g} Hz, {int(seconds // 60)} min {seconds % 60:.0f} s in all",
        "tasks": "; ".join(tasks[:5]) + (f" and {len(tasks) - 5} more" if len(tasks) > 5 else "") or "none named",
        "body": f"{body.name}, actions {body.mode.value} in frame '{body.frame}', rotation {body.rotation}",
        **_sources(dataset),
        "cameras": ", ".join(f"{name} {h}x{w}" for name, (h, w) in body.cameras.items()) or "none",
    }
    for key, what in ((SUCCESS, "success"), (REWARD, "best reward")):
        if key in dataset.columns:
            best = np.maximum.reduceat(dataset.columns[key][:, 0], dataset.starts)
            facts[what] = f"{best.mean():.3f} on average over episodes, {best.min():.3f} at least"
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
    return facts | {"body": f"{body.name} at {body.rate:g} Hz, actions {body.mode.value} in frame '{body.frame}'"}


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
