"""What makes a dream follow its actions? One part of it left out at a time, at equal optimiser steps.

    understudy study dream_ablations --data DATASET,DATASET --codec runs/dream_pusht/codec --out ablations.json

All variants imagine on one trained codec and are trained from the same seed; the same held-out films measure each
(`understudy eval --world-model`). Every step is an ordinary command and is skipped where its result is there, so the
same command goes on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...configs.command import command_of
from ...policies.learning.stages import staged
from ..ledger.record import MANIFEST
from ..ledger.study import Study, cell_of
from ._steps import DONE, Step

MODULE = "study dream_ablations"
WHOLE = "as it is"
VARIANTS: Mapping[str, Mapping] = {
    WHOLE: {},
    "no action maps": {"action_maps": []},
    "no Fourier features": {"waves": 0},
    "neither of the two": {"action_maps": [], "waves": 0},
    "no noise on what is seen": {"noise": 0.0},
    "never from its own frames": {"own": 0.0},
    "a field in place of one pass": {"form": "field"},
    "what the arm covers is forgotten": {"behind": False},
}
COLUMNS = (
    "dynamics", "true above shuffled actions, dB", "gate", "PSNR, dB", "from true frames, a chunk on, dB",
    "latent error", "error of states read, spreads",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DreamAblations:
    """Train the variants of one dream, and measure each; some minutes of a core for each."""

    root: Path = Path("out/dream_ablations")  # where runs and records lie
    config: str = "configs/train/dream_pusht.yaml"  # of `understudy train`, with stages `codec` and `video`
    data: str = ""  # datasets with pictures that it learns from, A,B; their held-out episodes measure it
    codec: str = ""  # run of a trained codec; none: that of `config` is trained
    variants: tuple[str, ...] = ()  # what is tried, by name; none: all that leave out something of `config`
    steps: int = 1000  # optimiser steps of the dynamics; the second half partly from frames of its own
    seed: int = 0  # of every training
    horizon: int = 32  # control steps of a film
    films: int = 64  # at most
    only_table: bool = False  # nothing is run
    out: Path | None = None  # JSON of the table

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("--data says what the dreams learn from: LeRobot datasets with pictures")
        for name in ("steps", "horizon", "films"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name}: {getattr(self, name)}; it must be at least 2")
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown or len(set(self.variants)) < len(self.variants):
            raise ValueError(f"variants: {unknown or list(self.variants)}; each once, of {', '.join(VARIANTS)}")

    def run(self) -> None:
        settings = dataclasses.replace(self, variants=chosen(self))
        for step in () if self.only_table else steps(settings):
            step.do(self.root / DONE)
        study = table(settings)
        study.tell(self.out)

    def record(self, variant: str) -> Path:
        """Of what was measured."""
        return self.root / "measured" / short(variant)


def short(variant: str) -> str:
    """In names of folders."""
    return variant.replace(" ", "_")


def stages_of(settings: DreamAblations) -> Mapping[str, Mapping]:
    """The stages of the training. Raises ValueError for another."""
    stages = staged(settings.config, ["--out", str(settings.root)])
    if stages is None or not {"codec", "video"} <= set(stages.stages):
        raise ValueError(f"--config {settings.config}: no training in stages `codec` and `video`")
    return stages.stages


def chosen(settings: DreamAblations) -> tuple[str, ...]:
    """The variants, each of which differs from the dream as it is. Raises ValueError for one that does not.

    Where none are named, those that differ from each other, too.
    """
    model = stages_of(settings)["video"]["world_model"]
    whole = {"waves": 3, "form": "one_pass", "action_maps": [], "behind": False} | model  # by default
    models = {name: whole | left for name, left in VARIANTS.items()}
    if wrong := [name for name in settings.variants if name != WHOLE and models[name] == whole]:
        raise ValueError(f"--variants: '{wrong[0]}' changes nothing in {settings.config}; leave it out")
    if settings.variants:
        return settings.variants
    names = list(models)
    return tuple(name for place, name in enumerate(names) if models[name] not in [models[one] for one in names[:place]])


def steps(settings: DreamAblations) -> Iterator[Step]:
    """The commands in order."""
    stages = stages_of(settings)
    codec = settings.codec or str(settings.root / "codec")
    if not settings.codec:
        yield _training(settings, dict(stages["codec"]), Path(codec))
    video = dict(stages["video"])
    for variant in settings.variants:
        model = {**video["world_model"], "run": codec, "own_after": settings.steps // 2, **VARIANTS[variant]}
        run = settings.root / "runs" / short(variant)
        yield _training(settings, {**video, "steps": settings.steps, "world_model": model}, run)
        words = ["eval", "--world-model", str(run), "--data", settings.data, "--kept", "0"]
        words += ["--horizon", str(settings.horizon), "--films", str(settings.films)]
        yield Step([*words, "--out", str(settings.record(variant))], settings.record(variant), None)


def _training(settings: DreamAblations, keys: dict, run: Path) -> Step:
    keys |= {"data": settings.data, "seed": settings.seed, "threads": 1}
    words = ["train", *(f"--{name}={_word(value)}" for name, value in keys.items()), "--out", str(run)]
    return Step(words, run / "config.yaml", ["train", "--resume", str(run)])


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def table(settings: DreamAblations) -> Study:
    """A row for each variant."""
    records = {name: json.loads((settings.record(name) / MANIFEST).read_bytes()) for name in settings.variants}
    [first, *_] = records.values()
    measures = first["measures"]
    return Study(
        title=f"Parts of a dream left out, {Path(settings.config).stem}",
        command=command_of(settings, MODULE, without=("out", "only_table", "root")),
        columns=COLUMNS,
        rows=[_row(name, record["measures"]) for name, record in records.items()],
        notes=(
            f"One training each, seed {settings.seed}, {settings.steps} steps, on one codec; "
            f"{measures['films']} films of {len(first['data']['episodes'])} episodes that trained nothing; intervals "
            "over these episodes, 95 %: a training with another seed may differ by more.",
            f"True above shuffled actions: at {measures['following']['step']} frames, over films in which something "
            f"moves, and the gate asks for {measures['following']['gate']:g} dB; all else at {measures['steps'][-1]} "
            f"frames. A copy of the first frame has {_at_end(measures, 'copy psnr')} dB there, the codec alone "
            f"{_at_end(measures, 'codec psnr')}.",
            "From true frames, a chunk on: imagined from the recorded frames a chunk before; what is lost beside it, a "
            "film loses by going on from its own.",
            "States: mean error over their dimensions, divided by their spread; read from true frames "
            f"{_states(measures, 'true')}.",
        ),
    )


def _row(name: str, measures: dict) -> tuple:
    gap = measures["following"].get("gap", {}).get("shuffled")
    ends = (cell_of(*measures["by_step"][key][-1]) for key in ("psnr true", "given psnr", "latent"))
    gate = "open" if measures["gate"] else "shut"
    return (name, gap and cell_of(*gap), gate, *ends, _states(measures, "imagined"))


def _at_end(measures: dict, name: str) -> str:
    return f"{measures['by_step'][name][-1][1]:.1f}"


def _states(measures: dict, kind: str) -> float | None:
    """Mean error of all states at the last step, in spreads; None where none are read."""
    errors = [states[kind]["relative"][-1] for states in measures["states"].values()]
    return round(sum(errors) / len(errors), 3) if errors else None
