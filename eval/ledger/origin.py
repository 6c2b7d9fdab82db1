"""Where a record came from: its facts for a page, its date and commit, and the command that makes it again.

All of it is read from the manifest alone, so that it holds for records of any age; settings that a manifest does not
hold cannot be repeated. Commands of settings at hand are made by `configs/command.py`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping

REPEATED = ("world.config", "agent.alarm.world")  # parts of a manifest that repeat others


def command(manifest: Mapping, out: str = "out/again") -> str:
    """The command that makes the record again, a flag on each line; "" where the manifest does not say enough."""
    needed = (manifest.get("policy", {}).get("path"), manifest.get("starts"), manifest.get("world"))
    if not all(needed):
        return ""
    return on_lines(repeat_command(manifest, out))


def on_lines(line: str) -> str:
    """A command with each flag on a line of its own, still one command to a shell."""
    words = shlex.split(line)
    return "".join((" \\\n  " if word.startswith("--") else " ") + shlex.quote(word) for word in words).strip()


def facts(manifest: Mapping) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(section, [(name, value)]) of what a manifest holds."""
    loose = []
    for section, value in manifest.items():
        if isinstance(value, Mapping):
            fresh = {name: inner for name, inner in value.items() if f"{section}.{name}" not in REPEATED}
            if fresh:
                yield section, list(_flat(fresh))
        else:
            loose.append((section, _text(value)))
    if loose:
        yield "record", loose


def _flat(values: Mapping, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _text(value)


def _text(value) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def without_config(world: Mapping) -> dict:
    """A world's fingerprint, without the settings that opened it."""
    return {name: value for name, value in world.items() if name != "config"}


SAME_POLICY = ("policy_seed", "block", "monitor", "alarm")  # flags that make no other policy of one


def origin(provenance: Mapping) -> tuple[str, str]:
    """(date, short commit) of what was measured; `+` after a commit with uncommitted changes."""
    code = provenance.get("code", {})
    commit = code.get("commit", "")[:8] + ("+" if code.get("changed") else "")
    return provenance.get("begun", "")[:10] or "-", commit or code.get("understudy", "-")


def repeat_command(manifest: Mapping, out: str = "out/again") -> str:
    """The command that makes such a record again, given the same weights at the same path."""
    policy, agent, starts = (manifest.get(part, {}) for part in ("policy", "agent", "starts"))
    world, layers = dict(manifest.get("world", {}).get("config", {})), {}
    if world.get("type") == "perturbed":
        layers = {"perturb": ",".join(world["perturb"]), "perturb_level": world["level"]}
        world = dict(world["of"])
    flags = {"policy": policy.get("path"), "world": inline(world)} | layers
    flags |= {"episodes": starts.get("count"), "env_seed": starts.get("first")}
    flags |= _unusual(agent, policy.get("config", {}), manifest.get("world", {}).get("task"))
    return f"understudy eval {flag_words(flags)} --out {shlex.quote(out)}"


def how_it_acted(manifest: Mapping) -> str:
    """Flags of a record's evaluation that are not the policy's own way, such as a critic; "" where there are none."""
    policy, agent, world = (manifest.get(part) or {} for part in ("policy", "agent", "world"))
    flags = _unusual(agent, policy.get("config") or {}, world.get("task"))
    return flag_words({name: value for name, value in flags.items() if name not in SAME_POLICY})


def flag_words(flags: Mapping) -> str:
    """Flags by name as words of a command; those without a value are left out."""
    return " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in flags.items() if value not in (None, ""))


def _unusual(agent: Mapping, policy: Mapping, task: str | None) -> dict:
    """Flags of how the policy acted, where that is neither the default nor its own way."""
    sampler, own = agent.get("sampler") or {}, policy.get("sampler") or {}
    settings = {
        "task_text": (agent.get("task_text"), task if "task_text" in agent else None),
        "goal": (agent.get("goal"), None),
        "ensemble": (agent.get("ensemble"), None),
        "n_action_steps": (agent.get("n_action_steps"), policy.get("n_action_steps")),
        "candidates": (agent.get("candidates"), 1),
        "critic": (agent.get("critic"), None),
        "temperature": (agent.get("temperature"), None),
        "proposal": (agent.get("proposal"), None),
        "delay": (agent.get("delay"), None),
        "latency": (agent.get("latency"), None),
        "monitor": (None if "alarm" in agent else agent.get("monitor"), None),
        "alarm": (agent.get("alarm", {}).get("path"), None),
        "policy_seed": (agent.get("policy_seed"), 0),
        "block": (agent.get("block"), 8),
        "steps": (sampler.get("steps"), own.get("steps")),
        "solver": tuple(None if each.get("scheduler") else each.get("solver") for each in (sampler, own)),
        "scheduler": (sampler.get("scheduler"), own.get("scheduler")),
    }

    return {name: value for name, (value, usual) in settings.items() if value != usual}


def inline(values: Mapping) -> str:
    """YAML on one line, without what is empty."""
    import yaml

    kept = {name: value for name, value in values.items() if value not in (None, {}, [], "")}
    return yaml.safe_dump(kept, default_flow_style=True, width=10_000, sort_keys=False).strip()
