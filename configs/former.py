"""Names of earlier versions in saved files, read as today's: columns of records, keys of manifests, alarms, datasets.

Settings in YAML, flags and checkpoints state their own (`RENAMED`, see `settings/renamed.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import pyarrow

Value = TypeVar("Value")

FORMERLY = "formerly"  # key of who acted: the fingerprint that earlier versions gave the same files, if another
COLUMNS = {"start_set": "initial_conditions", "start": "env_seed", "seed": "policy_seed"}
AGENT = {"execute": "n_action_steps", "watch": "monitor", "plans": "proposal", "seed": "policy_seed"}
POLICY = {
    "needs": "inputs",
    "execute": "n_action_steps",
    "dose": "past_loss_window",
    "head": "prediction_type",
    "low": "sigma_min",
    "high": "sigma_max",
}
PARTS = {"network": {"expand": "mlp_ratio"}, "adapt": {"spare": "skip"}}
MANIFEST = {"duel": "sequential"}
ADDED = {"dream": {"judge": "learned"}}  # type of a world -> settings that it did not have, as it was without them
RECORDING = {"execute": "n_action_steps", "shake": "action_noise"}


def renamed(values: Mapping[str, Value], names: Mapping[str, str]) -> dict[str, Value]:
    """`values` with the keys of `names` under their new names; a key that has the new name already stays."""
    return {key if names.get(key, key) in values else names.get(key, key): value for key, value in values.items()}


def current_path(path: str) -> str:
    """A path to one of our configs, in the folder that it has now."""
    return re.sub(r"(^|/)pieces/", r"\1task_specs/", path)


def current_names(row: Mapping[str, Value]) -> dict[str, Value]:
    """An episode's row with today's columns."""
    return renamed(row, COLUMNS)


def former_schema(schema: pyarrow.Schema, held: Collection[str]) -> pyarrow.Schema:
    """`schema` with the names that the columns have in a table that holds the columns `held`."""
    import pyarrow

    former = {new: old for old, new in COLUMNS.items() if new not in held}
    return pyarrow.schema([field.with_name(former.get(field.name, field.name)) for field in schema])


def current_manifest(manifest: Mapping) -> dict:
    """A manifest with today's keys: of the agent, of the policy's and the world's settings, and of a comparison."""
    current = renamed(manifest, MANIFEST)
    if isinstance(agent := current.get("agent"), Mapping):
        current["agent"] = renamed(agent, AGENT)
    policy = current.get("policy")
    if isinstance(policy, Mapping) and isinstance(config := policy.get("config"), Mapping):
        current["policy"] = {**policy, "config": policy_settings(config)}
    world = current.get("world")
    if isinstance(world, Mapping) and isinstance(config := world.get("config"), Mapping):
        current["world"] = {**world, "config": ADDED.get(str(config.get("type")), {}) | dict(config)}
    return current


def policy_settings(config: Mapping) -> dict:
    """The settings of a policy, as a checkpoint or manifest holds them, with today's keys."""
    current = renamed(config, POLICY)
    for name, names in PARTS.items():
        if isinstance(part := current.get(name), Mapping):
            current[name] = renamed(part, names)
    return current
