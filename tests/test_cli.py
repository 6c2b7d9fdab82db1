"""The command line: quick help, errors that name the closest known word, exit statuses."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import ClassVar

import draccus
import pytest

from understudy import __main__ as cli
from understudy.configs.help import describe
from understudy.configs.parse import parse
from understudy.configs.settings.load import load
from understudy.configs.settings.refusals import UsageError
from understudy.configs.settings.shipped import find_config
from understudy.configs.spec import Embodiment


class Colour(Enum):
    red = "red"
    blue = "blue"


@dataclass(frozen=True, kw_only=True)
class Net(draccus.ChoiceRegistry):
    width: int = 3  # of every layer


@Net.register_subclass("tall")
@dataclass(frozen=True, kw_only=True)
class Tall(Net):
    depth: int = 2  # layers


@Net.register_subclass("flat")
@dataclass(frozen=True, kw_only=True)
class Flat(Net):
    dims: tuple[int, ...] = (1, 2)  # channels


@dataclass(frozen=True, kw_only=True)
class Group:
    steps: int = 10  # how many

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


@dataclass(frozen=True, kw_only=True)
class Verb:
    """Does something."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("data",)

    data: str = ""  # a folder
    out: Path | None = None  # where to
    group: Group = Group()
    net: Net = Tall(depth=5)
    spare: Net | None = None
    colour: Colour = Colour.red
    rate: float = 1e-4  # steps/s
    fast: bool = False
    cameras: dict[str, tuple[int, int]] = field(default_factory=dict)
    robot: dict | str | None = None


COMMANDS = """
import contextlib, io, json, sys
import understudy.__main__ as cli
for words in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = cli.main(list(words))
    print(json.dumps([status, said.getvalue(), sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def after(commands: list[list[str]], **environment: str) -> list[tuple[int, str, set[str]]]:
    """(status, standard error, packages imported so far) of commands, one after the other in one process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)], capture_output=True, text=True, check=True,
        env=os.environ | environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    told = (json.loads(line) for line in done.stdout.splitlines())
    return [(status, said, set(packages)) for status, said, packages in told]


def modules_and_words(words: list[str], status: int, **environment: str) -> tuple[set[str], str]:
    """What packages a command imported, and what it said on standard error."""
    [(got, said, packages)] = after([words], **environment)
    assert got == status, said
    return packages, said


def modules_after(words: list[str], status: int) -> set[str]:
    """What packages a command imported in a process of its own that ended with this status."""
    return modules_and_words(words, status)[0]


def test_the_command_line_imports_nothing_heavy():
    for status, said, packages in after([[], ["--help"], ["--version"], ["evla"]]):
        assert status == (2 if "evla" in said else 0)
        assert not {"torch", "numpy", "mujoco", "draccus"} & packages


HEAVY = {"mix"}  # their help shows the settings of what is registered beside its network


def test_records_are_compared_without_what_acts(root, tmp_path):
    records = [str(root / "eval/records/pusht-worlds" / name) for name in ("mujoco", "arm")]
    packages = modules_after(["compare", *records, "--out", str(tmp_path / "page")], 0)
    assert (tmp_path / "page/compare.json").is_file() and not {"torch", "mujoco", "robosuite", "lerobot"} & packages


def test_the_help_of_a_verb_needs_no_torch():
    verbs = sorted(set(cli.VERBS) - HEAVY)
    for verb, (status, said, packages) in zip(verbs, after([[verb, "--help"] for verb in verbs]), strict=True):
        assert status == 0 and not {"torch", "mujoco", "lerobot"} & packages, f"{verb}: {said}"


LIFT = ["train", "configs/train/lift.yaml", "--data", "no/such/data"]
REFUSED = [
    (["train", "configs/train/gone.yaml"], "'understudy list configs' shows all"),
    (["train", "configs/train/lfit.yaml"], "Did you mean configs/train/lift.yaml?"),
    (["train", "configs/train/lift"], "Did you mean configs/train/lift.yaml?"),
    ([*LIFT, "--lr", "1e-3"], "unknown setting 'lr'. Did you mean 'optimize.lr'?"),
    ([*LIFT, "--policy.widht", "3"], "Did you mean 'policy.network.width'"),
    ([*LIFT, "--policy.type", "flwo"], "unknown type 'flwo' for policy. Did you mean 'flow'?"),
    ([*LIFT, "--policy.window.horizon", "x"], "policy.window.horizon takes a whole number, got 'x'"),
    ([*LIFT, "--policy.prediction_type", "w"], "policy.prediction_type cannot be 'w'. Known: epsilon, x0, v, flow"),
    ([*LIFT, "--task_spec.scale.low", "x"], "task_spec.scale.low takes [0.5, 0.5], got 'x'"),
    ([*LIFT, "--steps", "many"], "steps takes a whole number, got 'many'"),
    ([*LIFT, "--device", "gpu"], "--device cannot be 'gpu'. Known: auto (a GPU if there is one), cpu, cuda, cuda:N"),
    ([*LIFT, "--out", "."], "--data no/such/data: there is no such folder"),
    (["train", "--data", "."], "give the dataset and one thing to train"),
    (["train", "--resume", "no/run"], "no/run is not a run"),
    (["eval", "./no/run", "--world", "lift", "--out", "x/y"], "no/run' is not a run or checkpoint"),
    (["eval", "./no/run"], "give --out DIR for a new record"),
    (["eval", "a", "--policy", "b", "--out", "x"], "--policy is given twice; give it once"),
    (["eval", "a", "--out", "x/y", "--device", "tpu"], "--device cannot be 'tpu'"),
    (["compare", "./no/run", "./no/other", "--out", "x/y"], "no/run' is not a run or checkpoint"),
    (["compare", "./a", "./b", "--data", "./no/data"], "a' is not a run or checkpoint"),
    (["eval", "owner/name", "--data", "./no/data", "--out", "x/y"], "--data ./no/data: there is no such folder"),
    (["demos", "lift", "--episodes", "0", "--out", "x/y"], "--episodes 0: it must be at least 1"),
    (["compose", "./no/run", "./no/other", "--out", "x/y"], "no/run' is not a run or checkpoint"),
    (["demos", "lift"], "give --out DIR (the dataset folder to write, which must be new)"),
    (["demos", "lift", "--out", "x/y", "--cameras", "front"], "cameras takes {NAME: [84, 84]}, got 'front'"),
    (["eval", "owner/name", "--world", "nonsense", "--out", "x/y"], "unknown world 'nonsense'. Known: can, "),
    (["eval", "owner/name", "--world", "lfit", "--out", "x/y"], "Did you mean 'lift'?"),
    (["eval", "owner/name", "--wrld", "lift"], "unknown setting 'wrld'. Did you mean 'world'? --help lists all\n"),
    (["eval", "runs/nothere", "--world", "lift", "--out", "x/y"], "'runs/nothere' is not a run or checkpoint"),
    (["replay", "no/data", "--robot", "nonsense"], "unknown robot 'nonsense'. Known: "),
    (["demos", "cube", "--robot", "so1O1", "--by", "keyboard", "--out", "x/y"], "Did you mean 'so101'?"),
    (["doctor", "--robot", "nonsense"], "unknown robot 'nonsense'. Known: "),
]


VERBS = ("eval", "compare", "compose", "inspect", "run", "demos")
REFUSED += [([verb, "--no-such-flag", "1"], "unknown setting 'no_such_flag'") for verb in VERBS]
REFUSED += [([verb, "configs/eval/gone.yaml"], "'understudy list configs' shows all") for verb in VERBS]
PLUGINS = (["list", "--plugins", "no_such_package"], "(of --plugins or UNDERSTUDY_PLUGINS) cannot be imported")
REFUSED.append(PLUGINS)  # the last, for it stays in the environment
QUICK = {"torch", "mujoco", "robosuite", "lerobot", "matplotlib", "cv2", "scipy"}  # what no refusal needs


def test_names_and_paths_are_refused_in_plain_words_before_torch_is_imported():
    """All in one process: what none of them imports, each alone does not."""
    for (words, message), (status, said, packages) in zip(REFUSED, after([w for w, _ in REFUSED]), strict=True):
        assert status == 2 and message in said, f"{words}: {said}"
        assert "Traceback" not in said and not FRAMEWORK.search(said), f"{words}: {said}"
        assert not QUICK & packages, words


FRAMEWORK = re.compile(r"instantiate|decode|draccus|Missing required|Couldn't|class \w+Config")


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        (
            "horizon: 16",
            "horizn: 16",
            "stage past: unknown setting 'policy.window.horizn'. Did you mean 'policy.window.horizon'?",
        ),
        ("horizon: 16", "horizon: x", "stage past: policy.window.horizon takes a whole number, got 'x'"),
        ("steps: 5000", "data: no/such/data", "stage past: --data no/such/data: there is no such folder"),
    ],
)
def test_all_stages_of_a_config_are_looked_at_before_torch_is_imported(tmp_path, root, right, wrong, message):
    config = (root / "configs" / "train" / "memory_images.yaml").read_text().replace("../task_specs", "task_specs")
    config = config.replace("out/push-and-return_image_demos", str(tmp_path))
    before, stage, after = config.partition("  past:")
    (tmp_path / "memory.yaml").write_text(before + stage + after.replace(right, wrong))
    (tmp_path / "task_specs").symlink_to(root / "configs" / "task_specs")
    modules, said = modules_and_words(["train", str(tmp_path / "memory.yaml")], 2)
    assert message in said and "Traceback" not in said and "torch" not in modules, said


def test_a_world_that_does_not_fit_is_refused_before_torch_is_imported(tmp_path):
    body = Embodiment(
        action=("x",), action_units=("m",), limits=((-1.0, 1.0),), rate=10.0, state=("s",), state_units=("m",)
    )  # fmt: skip
    (tmp_path / "embodiment.json").write_text(body.to_json())
    (tmp_path / "config.json").write_text('{"type": "regression", "config": {"inputs": ["observation.state"]}}')
    (tmp_path / "model.safetensors").touch()
    packages, said = modules_and_words(["eval", str(tmp_path), "--world", "lift", "--out", str(tmp_path / "new")], 2)
    assert "does not fit the world 'lift': embodiments differ in action" in said and not QUICK & packages, said


def test_a_used_folder_is_named_with_one_that_is_free_before_torch_is_imported(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    (tmp_path / "data").mkdir()
    words = ["train", "configs/train/lift.yaml", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    modules, said = modules_and_words(words, 2)
    assert f"exists; choose another --out, such as {tmp_path / 'run-2'}" in said and "torch" not in modules


def test_a_camera_that_no_dataset_has_is_refused_before_torch_is_imported(tmp_path):
    (tmp_path / "meta").mkdir()
    features = {"observation.images.front": {"dtype": "video", "shape": [4, 4, 3]}}
    info = {"codebase_version": "v3.0", "fps": 10, "data_path": "data", "features": features}
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    flags = ["--policy.type", "flow", "--policy.inputs", "[observation.images.top]", "--out", str(tmp_path / "run")]
    modules, said = modules_and_words(["train", "--data", str(tmp_path), *flags], 2)
    assert "has no camera 'top'; its cameras: front. Name one" in said and "torch" not in modules


def test_a_log_without_login_is_refused_before_anything_is_made(tmp_path):
    pytest.importorskip("wandb")
    (tmp_path / "data").mkdir()
    words = ["train", "configs/train/lift.yaml", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    modules, said = modules_and_words([*words, "--wandb"], 2, HOME=str(tmp_path), WANDB_API_KEY="", WANDB_MODE="")
    assert "--wandb: nobody is logged in" in said and not (tmp_path / "run").exists() and "torch" not in modules


def test_the_help_of_train_fits_one_screen(capsys):
    assert cli.main(["train", "--help"]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) <= 45 and "--help policy flow" in said
    line = next(line for line in said.splitlines() if line.startswith("  --policy.type"))
    assert {"diffusion", "flow"} <= set(line.split())


def test_the_help_of_train_narrows_to_a_type(capsys):
    assert cli.main(["train", "--help", "policy", "flow"]) == 0
    flow = capsys.readouterr().out
    assert "--policy.times.density" in flow and "--policy.prediction_type" not in flow
    assert cli.main(["train", "configs/train/lift.yaml", "--help"]) == 0
    config = capsys.readouterr().out
    assert "--policy.prediction_type" in config and "--policy.times" not in config and "--data" in config
    assert cli.main(["train", "--help", "all"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 150
    assert cli.main(["train", "--help", "policy", "flwo"]) == 2
    assert "Did you mean 'flow'?" in capsys.readouterr().err
    assert cli.main(["train", "--help", "optimise"]) == 2
    assert "Did you mean 'optimize'?" in capsys.readouterr().err


def test_the_configs_are_listed_by_what_they_say_of_themselves(capsys):
    assert cli.main(["list", "configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["configs/train/lift.yaml", "robosuite"] for line in lines)


def test_the_help_shows_all_verbs_by_group(capsys):
    assert cli.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for group, verbs in cli.GROUPS.items():
        place = lines.index(f"{group}:")
        assert lines[place - 1] == "" and [line.split()[0] for line in lines[place + 1 :][: len(verbs)]] == list(verbs)


def test_version_and_help_of_the_help(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("understudy 0.")
    assert cli.main(["help"]) == 0


def test_unknown_verb_names_the_closest(capsys):
    assert cli.main(["evla"]) == 2
    error = capsys.readouterr().err
    assert "unknown verb 'evla'" in error and "Did you mean 'eval'?" in error and "doctor" in error


def test_every_verb_exists_and_describes_itself():
    from importlib import import_module

    for verb, (place, _) in cli.VERBS.items():
        module, name = place.split(":")
        verb_class = getattr(import_module(f"understudy.{module}"), name)
        assert callable(verb_class.run)
        assert describe(verb_class, f"understudy {verb}").startswith(f"usage: understudy {verb}")
        assert set(getattr(verb_class, "POSITIONALS", ())) <= set(verb_class.__dataclass_fields__)


def test_a_misspelt_flag_ends_with_status_2(capsys):
    assert cli.main(["list", "--knd", "tasks"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("understudy list: unknown setting 'knd'. Did you mean 'kind'? Known: kind, ")


def test_unknown_kind_lists_the_known(capsys):
    assert cli.main(["list", "polices"]) == 2
    error = capsys.readouterr().err
    assert (
        "Did you mean 'policies'?" in error and "Known: all, configs, critics" in error and "--traceback" not in error
    )


def test_unknown_task_lists_the_known(capsys, tmp_path):
    assert cli.main(["demos", "lfit", "--out", str(tmp_path / "d")]) == 2
    error = capsys.readouterr().err
    assert "'lfit'" in error and "lift" in error and not (tmp_path / "d").exists()


def test_traceback_on_demand():
    with pytest.raises(LookupError):
        cli.main(["list", "polices", "--traceback"])


@pytest.mark.parametrize(
    ("error", "said"), [(KeyboardInterrupt(), "interrupted"), (KeyboardInterrupt("saved"), "saved")]
)
def test_ctrl_c_ends_with_status_130(monkeypatch, capsys, error, said):
    def stop(*_):
        raise error

    monkeypatch.setattr(cli, "_run", stop)
    assert cli.main(["list"]) == 130
    assert capsys.readouterr().err == f"\nunderstudy list: {said}\n"


def test_a_bug_is_not_dressed_up(monkeypatch):
    monkeypatch.setattr(cli, "_run", lambda *_: None + 1)
    with pytest.raises(TypeError):
        cli.main(["list"])


def test_a_surprise_from_below_mentions_the_traceback(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_run", lambda *_: {}["gone"])
    assert cli.main(["list"]) == 2
    assert "--traceback" in capsys.readouterr().err


def test_file_words_and_flags(tmp_path):
    (tmp_path / "pieces").mkdir()
    (tmp_path / "pieces" / "net.yaml").write_text("type: flat\ndims: [7]\n")
    (tmp_path / "c.yaml").write_text("net: !include pieces/net.yaml\ngroup: {steps: 4}\nrate: 3e-4\nout: $HOME/x\n")
    words = ["007", "--fast", "--group.steps", "5", "--cameras.front", "[96, 64]", "--colour=blue"]
    got = parse(Verb, str(tmp_path / "c.yaml"), words)
    assert got == Verb(
        data="007",
        out=Path("$HOME/x"),  # who opens a path expands it
        net=Flat(dims=(7,)),
        group=Group(steps=5),
        rate=3e-4,
        fast=True,
        cameras={"front": (96, 64)},
        colour=Colour.blue,
    )


def test_choices_by_name_file_and_default(tmp_path):
    (tmp_path / "net.yaml").write_text("type: flat\nwidth: 9\n")
    assert parse(Verb, None, ["--net", "flat"]).net == Flat()
    assert parse(Verb, None, ["--net", "flat", "--net.width", "4"]).net == Flat(width=4)
    assert parse(Verb, None, ["--net.width", "4"]).net == Tall(width=4, depth=5)
    assert parse(Verb, None, ["--spare", str(tmp_path / "net.yaml")]).spare == Flat(width=9)
    assert parse(Verb, None, ["--spare", "null"]).spare is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--group.stpes", "3"], "unknown setting 'group.stpes'. Did you mean 'group.steps'?"),
        (["--grop.steps", "3"], "unknown setting 'grop'. Did you mean 'group'?"),
        (["--net.type", "flta"], "unknown type 'flta' for net. Did you mean 'flat'? Known: flat, tall"),
        (["--net.dims", "[3]"], "unknown setting 'net.dims'"),
        (["--spare.width", "3"], "spare.type is missing. Known: flat, tall"),
        (["--colour", "green"], "colour cannot be 'green'. Known: red, blue"),
        (["a", "b"], "nothing here takes the word 'b'"),
        (["--rate", "a: b: c"], "--rate cannot read 'a: b: c'"),
        (["--rate", "1", "--rate", "2"], "--rate is given twice; give it once"),
        (["--steps", "3"], "unknown setting 'steps'. Did you mean 'group.steps'?"),
        (["--net.type", "flat", "--net", "tall"], "--net tall and --net.type are the same setting; give one of them"),
        (["--spare.width", "3", "--spare", "null"], "--spare null and --spare.width exclude each other"),
    ],
)
def test_wrong_settings_are_named(words, message):
    with pytest.raises(UsageError) as caught:
        parse(Verb, None, words)
    assert message in str(caught.value)


@pytest.mark.parametrize("words", [["--rate", "abc"], ["--fast", "maybe"], ["--group.steps", "1.5"]])
def test_wrong_values_are_named(words):
    with pytest.raises(UsageError, match=words[0].removeprefix("--")):
        parse(Verb, None, words)


def test_what_a_config_complains_about_is_the_cause():
    with pytest.raises(UsageError) as caught:
        parse(Verb, None, ["--group.steps", "0"])
    assert "steps must be at least 1" in str(caught.value)


def test_another_type_over_a_file_keeps_what_it_has_too_and_names_the_rest(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("net: {type: tall, width: 9, depth: 4}\n")
    for flag in ("--net.type", "--net"):
        assert parse(Verb, str(tmp_path / "c.yaml"), [flag, "flat", "--net.dims", "[5]"]).net == Flat(
            width=9, dims=(5,)
        )
        said = capsys.readouterr().out
        assert said.startswith(f"net.depth of {tmp_path / 'c.yaml'} does not apply") and "width" not in said
    with pytest.raises(UsageError, match="unknown setting 'net.depth'"):
        parse(Verb, str(tmp_path / "c.yaml"), ["--net.type", "flat", "--net.depth", "2"])
    capsys.readouterr()
    assert parse(Verb, str(tmp_path / "c.yaml"), ["--net.type", "tall"]).net == Tall(width=9, depth=4)
    assert not capsys.readouterr().out


def test_the_order_of_flags_does_not_matter(tmp_path):
    (tmp_path / "net.yaml").write_text("type: flat\nwidth: 9\n")
    orders = {
        ("--net.width 4", "--net.dims [5]", "--net flat"): {"net": Flat(width=4, dims=(5,))},
        ("--net.dims [5]", "--net.type flat"): {"net": Flat(dims=(5,))},
        ("--net.dims [5]", f"--net {tmp_path / 'net.yaml'}"): {"net": Flat(width=9, dims=(5,))},
        ("--group.steps 7", "--group {steps: 3}"): {"group": Group(steps=7)},
        ("--cameras.front [2, 3]", "--cameras {top: [4, 5]}"): {"cameras": {"top": (4, 5), "front": (2, 3)}},
        ("--robot.port P", "--robot.rate 3", "--robot so101"): {"robot": {"type": "so101", "port": "P", "rate": 3}},
    }
    for flags, settings in orders.items():
        for order in itertools.permutations(flags):
            words = [word for flag in order for word in flag.split(" ", 1)]
            assert parse(Verb, None, words) == Verb(**settings), order


def test_broken_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.yaml"):
        parse(Verb, str(tmp_path / "gone.yaml"), [])
    for text, message in (("- 1\n", "must hold keys and values"), ("a: [\n", "c.yaml is not valid YAML(.|\n)*line 2")):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(UsageError, match=message):
            parse(Verb, str(tmp_path / "c.yaml"), [])


def test_shipped_configs_are_found_from_any_folder(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    assert find_config("configs/train/lift.yaml").samefile(root / "configs" / "train" / "lift.yaml")
    (tmp_path / "configs" / "train").mkdir(parents=True)
    (tmp_path / "configs" / "train" / "lift.yaml").write_text("steps: 1")
    assert load("configs/train/lift.yaml") == {"steps": 1}, "a file in this folder comes first"
    with pytest.raises(FileNotFoundError, match="no config .*lyft.yaml.* Shipped: .*train/lift.yaml"):
        find_config("configs/train/lyft.yaml")


@pytest.mark.parametrize("verb", ["eval", "train", "lerobot-train"])
def test_a_flag_whose_value_is_a_file_is_no_config(verb, capsys):
    assert cli.main([verb, "--world=no/such/world.yaml"]) == 2
    assert "no config" not in capsys.readouterr().err


def test_a_world_that_is_no_file_is_called_a_world():
    from understudy.configs.world import read_world

    with pytest.raises(FileNotFoundError, match="no world 'nothing.yaml': there is no such file; a world is a name"):
        read_world("nothing.yaml")


def test_help_shows_comment_type_default_and_choice():
    text = describe(Verb, "understudy verb")
    assert "usage: understudy verb [CONFIG.yaml] DATA" in text
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  --")}
    assert "a folder" in lines["--data"] and "--data TEXT" in lines["--data"]
    assert "flat | tall" in lines["--net.type"] and "[flat]" in lines["--net.dims"]
    assert "default 0.0001" in lines["--rate"]


def test_every_committed_config_parses(root):
    from understudy.configs.plugins import discover
    from understudy.configs.settings.decode import decode
    from understudy.eval.evaluate.evaluate import Eval
    from understudy.policies.learning.stages import staged
    from understudy.policies.learning.train import Train

    discover("policies", "sim", "world_models")
    for folder, verb in (("train", Train), ("eval", Eval)):
        paths = sorted((root / "configs" / folder).glob("*.yaml"))
        assert {"lift.yaml", "pusht.yaml"} <= {path.name for path in paths}
        for path in paths:
            stages = staged(str(path), [], None, None) if verb is Train else None
            for keys in stages.stages.values() if stages else ():
                decode(verb, {"data": "given by a flag", **keys}).check()
            if not stages:
                parse(verb, str(path), [])


@dataclass(frozen=True)
class Inner:
    RENAMED: ClassVar[dict[str, str]] = {"expand": "mlp_ratio"}

    mlp_ratio: int = 2


@dataclass(frozen=True)
class Renamed:
    RENAMED: ClassVar[dict[str, str]] = {"execute": "n_action_steps"}

    n_action_steps: int = 8
    inner: Inner = Inner()


def test_former_names_of_settings_are_read(tmp_path):
    """In a file, in a group of keys and as a flag; both names at once are refused."""
    file = tmp_path / "old.yaml"
    file.write_text("execute: 4\ninner: {expand: 3}\n")
    assert (
        parse(Renamed, str(file), []) == Renamed(4, Inner(3)) == parse(Renamed, str(file), ["--inner.mlp_ratio", "3"])
    )
    assert (
        parse(Renamed, None, ["--execute", "5"])
        == Renamed(5)
        == parse(Renamed, str(file), ["--execute", "5", "--inner.expand=2"])
    )
    assert parse(Renamed, str(file), ["--inner.mlp_ratio", "5", "--n-action-steps=6"]) == Renamed(6, Inner(5))
    with pytest.raises(UsageError, match="--n_action_steps and --execute are the same setting; give one of them"):
        parse(Renamed, None, ["--execute", "5", "--n_action_steps", "6"])
    file.write_text("inner: {expand: 3, mlp_ratio: 3}")
    with pytest.raises(UsageError, match="'inner.expand' is the former name of 'mlp_ratio'; give one of them"):
        parse(Renamed, str(file), [])


def test_warnings_of_commands_are_one_plain_line(monkeypatch):
    shown, usual = [], warnings.formatwarning

    def run(words):
        shown.extend(warnings.formatwarning("black", kind, "a.py", 3) for kind in (UserWarning, RuntimeWarning))
        return 0

    monkeypatch.setattr(cli, "_main", run)
    assert cli.main(["list"]) == 0
    assert shown[0] == "warning: black\n" and "a.py:3: RuntimeWarning: black" in shown[1]
    assert warnings.formatwarning is usual
