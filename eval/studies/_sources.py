"""The small folders that `mutations.py` damages: recordings, trainings, records, settings, made by our own verbs."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..ledger.study import Study
from ._foreign import make_foreign

TRAIN = """\
policy:
  type: {kind}
  inputs: [observation.state, observation.environment_state]
  window: {{observe: [-1, 0], recall: [-1], horizon: 8}}
  n_action_steps: 4
  network: {{type: mlp, width: 32, depth: 1, mlp_ratio: 1, condition_width: 16}}
  sampler: {{steps: 3}}
data: {data}
batch: 32
steps: {steps}
validation: 0.2
validate_every: 20
save_every: 20
log_every: 10
optimize: {{lr: 1.0e-3, warmup: 5, ema: 0.9}}
device: cpu
threads: 1
"""


def make_sources(root: Path) -> Path:
    """All folders that `SUBJECTS` name, made by our own verbs."""
    root.mkdir(parents=True)

    def verb(*words: object) -> None:
        from ...__main__ import main

        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            status = main([*map(str, words)])
        if status:
            raise RuntimeError(f"understudy {' '.join(map(str, words))}: {errors.getvalue()}")

    # recordings
    states = root / "states"
    verb("demos", "point", "--episodes", 8, "--keep_failures", "true", "--out", states)
    verb("label", states, "--success", "all")
    for name in ("films", "pictures"):
        how = ("--pictures", "video" if name == "films" else "image", "--cameras", "{top: [32, 32]}")
        verb("demos", "point", "--episodes", 3, "--out", root / name, *how)
    _without_card(states, root / "bare")
    _as_v2(states, root / "v2")
    make_foreign(root)

    # trainings
    for kind, steps, name in (("diffusion", 200, "whole"), ("flow", 40, "other"), ("diffusion", 20, "half")):
        file = root / f"{name}.yaml"
        file.write_text(TRAIN.format(kind=kind, data=states, steps=steps))
        verb("train", file, "--out", root / name)
    _to_go_on(root / "half", 30)
    critic = ("--critic.type", "iql", "--critic.inputs", "[observation.state, observation.environment_state]")
    pace = ("--steps", 20, "--batch", 32, "--save_every", 20, "--validation", 0.2, "--device", "cpu", "--threads", 1)
    verb("train", "--data", states, *critic, "--critic.widths", "[16, 16]", *pace, "--out", root / "critic_run")
    shutil.copytree((root / "whole/last").resolve(), root / "checkpoint")
    shutil.copytree((root / "critic_run/last").resolve(), root / "critic")
    weights = ("--how.type", "convex", "--how.weights.weights", "[[0.6, 0.4]]")
    verb("mix", root / "whole", root / "other", *weights, "--out", root / "mixture")

    # records and what is made of them
    _records(root, verb)
    return root


def _records(root: Path, verb: Callable) -> None:
    asked = ("--world", "point", "--videos", 0)
    verb("eval", "--policy", root / "whole", *asked, "--episodes", 12, "--out", root / "record")
    verb("eval", "--policy", root / "other", *asked, "--episodes", 12, "--out", root / "record_other")
    verb("compare", root / "record", root / "record_other", "--out", root / "comparison")
    _as_killed(root / "record", root / "killed")
    calm = ("--env_seed", 0, "--episodes", 80, "--monitor", 2)
    verb("eval", "--policy", root / "whole", *asked, *calm, "--out", root / "calm")
    (root / "alarm").mkdir()
    verb("calibrate", root / "calm", "--alpha", 0.2, "--out", root / "alarm/alarm.json")
    study = Study(
        title="Any", command="understudy doctor", columns=("a", "b"), rows=((1, 0.5), (2, 0.25)), notes=("made up",),
        provenance={"begun": "2026"},
    )  # fmt: skip
    study.write(root / "study/study.json")

    settings = root / "settings"
    settings.mkdir()
    (settings / "train.yaml").write_text(TRAIN.format(kind="diffusion", data="DATA", steps=40))
    (settings / "eval.yaml").write_text("policy: RUN\nout: OUT\nworld: point\nepisodes: 20\nenv_seed: 1000\n")
    (settings / "grid.yaml").write_text(
        "name: two\nout: OUT\ntrain: {config: {data: DATA}, set: {steps: 10}}\neval: {}\nseeds: [0, 1]\n"
    )


def _without_card(source: Path, to: Path) -> None:
    """The recording as another program would have written it."""
    shutil.copytree(source, to)
    (to / "meta/embodiment.json").unlink()
    info = json.loads((to / "meta/info.json").read_text())
    for feature in info["features"].values():
        for key in ("units", "limits", "mode", "frame", "rotation"):
            feature.pop(key, None)
    (to / "meta/info.json").write_text(json.dumps(info))


def _as_v2(source: Path, to: Path) -> None:
    """The same episodes in layout v2.1: a file each."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from ...policies.data.layout import read_layout

    (to / "meta").mkdir(parents=True)
    (to / "data/chunk-000").mkdir(parents=True)
    layout = read_layout(source)
    info = json.loads((source / "meta/info.json").read_text())
    info |= {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    }
    (to / "meta/info.json").write_text(json.dumps(info))
    shutil.copy(source / "meta/embodiment.json", to / "meta/embodiment.json")
    rows = [{"episode_index": entry.id, "tasks": list(entry.tasks), "length": entry.length} for entry in layout.entries]
    (to / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (to / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": layout.entries[0].tasks[0]}) + "\n")
    for entry in layout.entries:
        table = pq.read_table(source / entry.file)
        own = table.filter(pc.equal(table["episode_index"], entry.id))
        pq.write_table(own, to / f"data/chunk-000/episode_{entry.id:06d}.parquet")


def _to_go_on(run: Path, steps: int) -> None:
    """A finished training as one that was asked for more steps and killed."""
    import yaml

    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"steps": steps}))


def _as_killed(record: Path, to: Path) -> None:
    """A record whose run was killed after its last episode."""
    from ..ledger.record import read_record

    read = read_record(record)
    table: Any = read.table
    shutil.copytree(record, to)
    (to / "episodes.parquet").unlink()
    manifest = {key: value for key, value in read.manifest.items() if key not in ("episodes", "digests")}
    (to / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    (to / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
