"""Records with films whose outcome can be seen: what succeeds turns green before it ends."""

import numpy as np

from understudy.eval.ledger.record import RecordWriter
from understudy.policies.data.encode import write_mp4

STEPS, SIDE = 12, 32
RED, GREEN = (200, 40, 40), (40, 180, 40)


def film(won: bool, steps: int = STEPS) -> list[np.ndarray]:
    """Frames 0..T: red, and in the last third green where it succeeds."""
    colours = [GREEN if won and k > 2 * steps / 3 else RED for k in range(steps + 1)]
    return [np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in colours]


def row(seed: int, won: bool, **changes) -> dict:
    progress = np.linspace(0.1, 1.0 if won else 0.6, STEPS, dtype=np.float32).tolist()
    values = {
        "initial_conditions": "green", "env_seed": seed, "policy_seed": 0, "task": "green", "success": won,
        "first_success": STEPS if won else -1, "best_progress": progress[-1], "final_progress": progress[-1],
        "return": 1.5, "length": STEPS, "progress": progress, "terminated": won, "truncated": not won,
        "wall_physics": 0.3, "wall_render": 0.1, "wall_policy": 0.6, "attempt": 0, "worker": 0,
        "video": f"videos/{seed:06d}.mp4", "error": "", "labels": "{}",
    }  # fmt: skip
    return values | changes


def write_record(folder, outcomes, shown=None, dream=False, policy="runs/a", filmed=True, first=1000, broken=()):
    """A record whose films show `shown`, by default its outcomes."""
    world = {"type": "dream"} if dream else {"type": "green"}
    manifest = {
        "name": policy,
        "policy": {"path": policy, "fingerprint": policy},
        "agent": {"policy_seed": 0},
        "world": world,
        "starts": {"set": "green", "first": first, "count": len(outcomes)},
    }
    with RecordWriter(folder, manifest) as writer:
        (folder / "videos").mkdir()
        for seed, (won, seen) in enumerate(zip(outcomes, shown or outcomes, strict=True), first):
            there = filmed if isinstance(filmed, bool) else seed in filmed
            if there:
                write_mp4(folder / f"videos/{seed:06d}.mp4", film(seen), 10.0, quality=5)
            error = {"error": "the arm is gone"} if seed in broken else {}
            writer.add(row(seed, won) | ({} if there else {"video": ""}) | error)
        return writer.close(complete=True)
