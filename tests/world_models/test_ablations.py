"""The study that leaves parts of a dream out, on the dots: real trainings, briefly."""

import dataclasses
import json

import pytest

from understudy.__main__ import main
from understudy.eval.ledger.study import read_study
from understudy.eval.studies.dream_ablations import COLUMNS, VARIANTS, WHOLE, DreamAblations, chosen
from understudy.policies.learning.checkpoint import load_model

pytestmark = pytest.mark.timeout(900)


def test_variants_differ_in_what_is_left_out_alone(dots_run, dots_data, tmp_path, capsys):
    root, file = tmp_path / "study", tmp_path / "ablations.json"
    words = ["--config", str(dots_run.parents[1] / "dream.yaml"), "--data", str(dots_data)]
    words += ["--codec", str(dots_run.parent / "codec"), "--root", str(root), "--steps", "20"]
    words += ["--horizon", "8", "--films", "6", "--out", str(file)]
    chosen = ["--variants", json.dumps([WHOLE, "neither of the two", "a field in place of one pass"])]
    assert main(["study", "dream_ablations", *words, *chosen]) == 0

    study = read_study(file)
    assert [row[0] for row in study.rows] == [WHOLE, "neither of the two", "a field in place of one pass"]
    runs = (root / "runs" / name for name in ("as_it_is", "neither_of_the_two", "a_field_in_place_of_one_pass"))
    whole, neither, field = (load_model(run, "world")[0].config for run in runs)
    assert whole.action_maps and whole.own_after == 10 and whole.waves == 3
    assert not neither.action_maps and neither.waves == 0 and field.form.value == "field"
    cells = dict(zip(COLUMNS, study.rows[0], strict=True))
    assert cells["gate"] == "shut", "20 steps teach nobody"
    assert 0 < cells["error of states read, spreads"] < 10

    capsys.readouterr()
    assert main(["study", "dream_ablations", *words, *chosen]) == 0
    assert "$ understudy" not in capsys.readouterr().out, "all of it was there"


def test_what_is_not_in_a_dream_is_not_left_out():
    """Maps are there in the one, a drawn arm in the other."""
    pusht, arm = (
        DreamAblations(data="x", config=f"configs/train/dream_{name}.yaml") for name in ("pusht", "so101_pusht")
    )
    forgets = "what the arm covers is forgotten"
    assert set(VARIANTS) - set(chosen(pusht)) == {forgets}
    assert set(VARIANTS) - set(chosen(arm)) == {"no action maps", "neither of the two"}  # nothing twice
    with pytest.raises(ValueError, match=f"'{forgets}' changes nothing in configs/train/dream_pusht.yaml"):
        chosen(dataclasses.replace(pusht, variants=(WHOLE, forgets)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": ""}, "--data says what the dreams learn from"),
        ({"steps": 1}, "steps: 1; it must be at least 2"),
        ({"variants": ("no arms",)}, f"no arms.*of {WHOLE}"),
        ({"variants": (WHOLE, WHOLE)}, "each once"),
    ],
)
def test_settings_that_would_say_nothing_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        DreamAblations(**{"data": "x"} | changes)
    assert WHOLE in VARIANTS
