"""The command line: `understudy VERB [CONFIG.yaml] [WORD ...] [--key value ...]`.

The only place that knows all verbs. A verb is a frozen dataclass with `run()`, imported when it is chosen. Its fields
are the flags; `POSITIONALS` names those that bare words fill, `DISCOVER` the folders whose registered names it may use.
A verb whose first word says whose flags follow (`study NAME`) has `choose(words)`, and one that hands its words on has
`from_words(words)`. Registries are filled before the words are read only where a flag is a registered choice, so that
help and refusals are quick.

Exit status: 0 done; 2 an error of the user's; 3 the work is done, but some of what it said could not be written;
128 + N ended by signal N, and saved (130 Ctrl-C, 143 SIGTERM, 129 SIGHUP).
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and sys.path and os.path.realpath(sys.path[0]) == os.path.realpath(os.getcwd()):
    del sys.path[0]  # `python -m` lets any file of the current folder stand for a library's; see configs/plugins.py

import signal  # from here on every import is a library's or ours
import warnings
from contextlib import contextmanager

from .configs.ends import UNHEARD, first_signal, listening, outputs

GROUPS = {  # group of the help -> verb -> (module of ours: class, one line of help)
    "data": {
        "demos": ("eval.demos.demos:Demos", "scripted experts act; writes a LeRobot dataset"),
        "resim": ("eval.demos.resim:Resim", "replay recorded actions in a simulator to recover states and pictures"),
        "convert": (
            "policies.data.convert:Convert",
            "recordings of any format, and datasets chosen, merged or renamed, become a LeRobot dataset",
        ),
        "split": ("policies.data.split:Split", "one dataset into several, by shares or by conditions"),
        "label": ("policies.data.labels:Label", "say which episodes of a dataset succeeded, where nobody has"),
        "push": ("eval.hub.push:Push", "share a policy, a dataset or a record: on the hub, or in a folder"),
        "pull": ("eval.hub.pull:Pull", "bring what was shared, and verify its hashes"),
        "inspect": ("eval.inspect.inspect:Inspect", "what is in a dataset or a run; how policies use the past"),
    },
    "learn": {
        "train": ("policies.learning.command:TrainCommand", "train a policy or a critic on a dataset"),
        "lerobot-train": ("policies.foreign.train:LerobotTrain", "train a policy of lerobot's, by lerobot itself"),
        "export": ("policies.export:Export", "a policy in lerobot's checkpoint layout, or back"),
        "run": ("eval.grid.run:Run", "many trainings and evaluations over settings and seeds, resumable, one table"),
    },
    "judge": {
        "eval": (
            "eval.evaluate.evaluate:Eval",
            "act in a world from many initial conditions; writes a record and a report",
        ),
        "curve": ("eval.evaluate.curve:Curve", "success over training steps of a run that was judged meanwhile"),
        "compare": (
            "eval.compare.compare:Compare",
            "which policy is better: finished records, or live until decided",
        ),
        "agree": ("eval.agree.agree:Agree", "do two worlds rank policies alike; may the cheaper one choose"),
        "judge": (
            "eval.judge.judge:Judge",
            "did it succeed, by a vision-language model or a person, and how right are they",
        ),
        "estimate": (
            "eval.offline.estimate:LoggedPolicies",
            "what policies are worth by recorded episodes; nobody acts",
        ),
        "report": ("eval.report.report:Report", "one page over records and trainings, and failures to label"),
        "verify": ("eval.verify.verify:Verify", "are records what was written: rows, films and manifest, by hashes"),
        "calibrate": (
            "eval.evaluate.calibrate:Calibrate",
            "a run-time alarm with a stated false-alarm rate, from a monitored record",
        ),
    },
    "improve": {
        "compose": (
            "eval.compose.compose:Compose",
            "the best weights of a mixture of policies, by rollouts; nothing is trained",
        ),
        "mix": ("eval.compose.mix:Mix", "a mixture, AND or OR of policies by hand, without a search"),
    },
    "perform": {
        "deploy": ("eval.deploy.deploy:Deploy", "a policy acts on an arm, behind its guard; writes a LeRobot dataset"),
        "replay": ("hardware.replay:Replay", "a recorded episode again: on an arm behind its guard, or in a world"),
        "serve": ("hardware.remote.serve:Serve", "plan for robots elsewhere, over a websocket; openpi's clients, too"),
        "emulate": ("hardware.emulator.emulate:Emulate", "an arm's servos on a pseudo-terminal, to try drivers on"),
        "twin": ("eval.twin.twin:TwinVerb", "the digital twin of a scene: build, calibrate, identify, run"),
    },
    "house": {
        "list": (
            "eval.catalog.catalog:List",
            "list policies, worlds, tasks, experts, configs, studies, ...: all that has a name",
        ),
        "new": ("eval.new.new:New", "a policy, critic, task, robot or world of your own: a working file, and its test"),
        "study": ("eval.catalog.studies:StudyVerb", "run a reproducible experiment of eval/studies"),
        "bench": ("eval.bench.bench:Bench", "measure loader, training and latency beside stock lerobot"),
        "results": ("eval.results.results:Results", "write RESULTS.md and docs/results, or --check them"),
        "completion": ("eval.catalog.completion:Completion", "a script by which bash or zsh completes verbs and flags"),
        "doctor": ("eval.doctor:Doctor", "try what this machine can do, and say what to install"),
    },
}
VERBS = {verb: entry for group in GROUPS.values() for verb, entry in group.items()}
USAGE = """\
understudy {version}: learn robot policies from demonstrations, judge them before the arm moves

usage: understudy VERB [CONFIG.yaml] [WORD ...] [--key value ...]

{verbs}

  understudy VERB --help       the flags of a verb
  --plugins PACKAGE,...        also look for policies, worlds, ... in these packages (or set UNDERSTUDY_PLUGINS)
  --traceback                  show where an error came from (or set UNDERSTUDY_TRACEBACK=1)
"""
EXPECTED = (ValueError, LookupError, OSError, ImportError, FloatingPointError)  # ours say what to do
FAILED, INTERRUPTED = 2, 130
NOTHING = dict.fromkeys(
    ("resim", "convert", "split", "export", "push", "label", "agree", "estimate", "calibrate", "mix", "curve")
    + ("results", "inspect"),
    "interrupted; nothing is written, for that comes last",
)
STOPPED = NOTHING | {  # what a verb that says nothing itself leaves when it is interrupted
    "pull": "interrupted; the same command goes on where it was",
    "train": "interrupted before the first step; where its folder is there, understudy train --resume RUN begins it",
    "eval": "interrupted before the first episode; nothing is written",
    "compare": "interrupted before the first episode; nothing is written",
    "demos": "interrupted before the first episode; nothing is written",
    "lerobot-train": "interrupted; checkpoints in its output_dir are whole; its --resume=true goes on from the last",
    "study": "interrupted; a study writes its results at the end, so there are none",
    "bench": "interrupted; what was printed is all, and nothing is written",
    "judge": "interrupted; verdicts so far are kept, and the same command goes on where it was",
}
SPOKEN = ("list", "inspect", "help", "--help", "-h", "--version")  # verbs whose output is all their work


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status, see above."""
    words = list(sys.argv[1:] if argv is None else argv)
    spoken = not words or words[0] in SPOKEN or "--help" in words or "-h" in words
    with listening():
        with outputs(spoken=spoken) as streams, _plain_warnings():
            status = _main(list(words))
            for stream in streams:
                stream.settle()
            if status == 0 and any(stream.lost for stream in streams):
                status = UNHEARD
                print(
                    f"understudy {' '.join(words[:1])}: done, but some of what it said could not be written",
                    file=sys.stderr,
                )
    return status


@contextmanager
def _plain_warnings():
    """Warnings that are meant for who runs a command are a line, without file and source."""
    usual = warnings.formatwarning

    def plain(message, category, *rest, **more):
        meant = issubclass(category, UserWarning)
        return f"warning: {message}\n" if meant else usual(message, category, *rest, **more)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _main(words: list[str]) -> int:
    verb = words.pop(0) if words else "--help"
    if verb == "help":
        verb = words.pop(0) if words else "--help"
        words = ["--help"] if verb in VERBS else []
    if verb in ("--help", "-h"):
        return _say(_usage())
    if verb == "--version":
        return _say(f"understudy {_version()}")
    if verb not in VERBS:
        return _unknown(verb)
    traceback = _flag(words, "--traceback") or os.environ.get("UNDERSTUDY_TRACEBACK", "") not in ("", "0")
    return _guarded(verb, words, traceback)


def _guarded(verb: str, words: list[str], traceback: bool) -> int:
    try:
        _run(verb, words)
    except KeyboardInterrupt as stop:
        number = first_signal()
        by = "" if number in (None, signal.SIGINT) else f" ({signal.Signals(number).name})"
        print(f"\nunderstudy {verb}: {str(stop) or STOPPED.get(verb, 'interrupted')}{by}", file=sys.stderr)
        return INTERRUPTED if number is None else 128 + number
    except Exception as error:
        setting = type(error).__module__.startswith("draccus")  # not imported here: it may be absent
        if traceback or not (setting or isinstance(error, EXPECTED)):
            raise
        _report(verb, error)
        return FAILED
    return 0


def _run(verb: str, words: list[str]) -> None:
    from importlib import import_module

    from .configs.help import FLAG, describe
    from .configs.machine import prepare
    from .configs.parse import parse
    from .configs.plugins import PLUGINS, discover
    from .configs.protocols import keeps
    from .configs.settings.fields import has_choices
    from .configs.settings.shipped import find_config, is_config
    from .configs.verb import ChecksNames, Chooses, Explains, FromWords, GetsReady, folders_of

    plugins = _option(words, "--plugins")
    if plugins:
        os.environ[PLUGINS] = ",".join(filter(None, (os.environ.get(PLUGINS), plugins)))
    helps = any(word in FLAG for word in words)
    if not helps:
        if words and is_config(words[0]):
            find_config(words[0])  # refused before anything heavy is imported
        prepare()  # before torch or mujoco are imported

    module, name = VERBS[verb][0].split(":")
    config_class, command = getattr(import_module(f"{__package__}.{module}"), name), f"understudy {verb}"
    if keeps(config_class, Chooses):
        config_class, chosen = config_class.choose(words)
        command = f"{command} {chosen}".rstrip()
    folders = folders_of(config_class)
    if helps and keeps(config_class, Explains):
        _say(config_class.explain(command, [word for word in words if word not in FLAG]))
        return
    if has_choices(config_class) and (helps or not keeps(config_class, FromWords)):
        discover(*folders)
    if helps:
        _say(describe(config_class, command))
        return

    if keeps(config_class, FromWords):
        config = config_class.from_words(words)
    else:
        path = words.pop(0) if words and is_config(words[0]) else None
        config = parse(config_class, path, words)
    if keeps(config, ChecksNames):
        config.check_names()
    if keeps(config, GetsReady):
        config.get_ready()
    discover(*folders)
    config.run()


def _usage() -> str:
    width = max(map(len, VERBS))
    groups = []
    for title, verbs in GROUPS.items():
        lines = (f"  {verb:<{width}} {help_line}" for verb, (_, help_line) in verbs.items())
        groups.append("\n".join((f"{title}:", *lines)))
    return USAGE.format(version=_version(), verbs="\n\n".join(groups))


def _version() -> str:
    from . import __version__

    return __version__


def _say(text: str) -> int:
    print(text)
    return 0


def _unknown(verb: str) -> int:
    from .configs.plugins import lookup

    try:
        lookup("verb", verb, VERBS)
    except LookupError as error:
        print(f"understudy: {error}. 'understudy --help' says what they do.", file=sys.stderr)
    return FAILED


def _report(verb: str, error: BaseException) -> None:
    """One message; what a `__post_init__` complained about arrives only as the cause."""
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    cause = error.__cause__
    if cause is not None and str(cause) not in message:
        message += f" ({cause})"
    print(f"understudy {verb}: {message or type(error).__name__}", file=sys.stderr)
    if not _meant(error):
        print("(--traceback shows where this came from)", file=sys.stderr)


def _meant(error: BaseException) -> bool:
    """Did our own code raise this on purpose, or is it a surprise from below?"""
    if type(error) in (KeyError, IndexError):
        return False
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    module = step.tb_frame.f_globals.get("__name__", "") if step is not None else ""
    return module.partition(".")[0] in (__package__, "draccus")


def _flag(words: list[str], name: str) -> bool:
    given = name in words
    while name in words:
        words.remove(name)
    return given


def _option(words: list[str], name: str) -> str | None:
    place = next((place for place, word in enumerate(words) if word.partition("=")[0] == name), None)
    if place is None:
        return None
    _, equals, value = words.pop(place).partition("=")
    if not equals and place < len(words):
        value = words.pop(place)
    if not value:
        raise ValueError(f"{name} needs a value")
    return value


if __name__ == "__main__":
    sys.exit(main())
