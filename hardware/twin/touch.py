"""What an arm touches: contacts of one moment, the hardest of some time, and what of them is more than allowed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import mujoco

HARDER = 1.05  # in the force of standing still


class Contact(NamedTuple):
    """The arm touches something: N along the normal, the names of both, and whether the other may be moved."""

    force: float = 0.0
    names: str = ""
    moves: bool = False


@dataclass
class Felt:
    """The most that acted on the arm: torque (D,) N m, signed, and of each body of the arm and what it touched."""

    torque: np.ndarray
    contacts: dict[tuple[int, int], Contact] = field(default_factory=dict)  # by numbers of body and shape

    def add(self, torque: np.ndarray, found: Iterator[tuple[tuple[int, int], Contact]]) -> None:
        """What acts at a moment, see `contact_torque` and `contacts`."""
        self.torque = np.where(np.abs(torque) > np.abs(self.torque), torque, self.torque)
        for pair, contact in found:
            if contact.force > self.contacts.get(pair, Contact()).force:
                self.contacts[pair] = contact

    @property
    def force(self) -> float:
        """N, of the hardest."""
        return max((contact.force for contact in self.contacts.values()), default=0.0)


def contact_torque(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """(nv,) N m or N that contacts put on the joints now."""
    import mujoco

    contact = data.efc_type >= int(mujoco.mjtConstraint.mjCNSTR_CONTACT_FRICTIONLESS)
    found = np.zeros(model.nv)
    mujoco.mj_mulJacTVec(model, data, found, np.where(contact, data.efc_force, 0.0))
    return found


def contacts(
    model: mujoco.MjModel, data: mujoco.MjData, arm: np.ndarray, loose: np.ndarray
) -> Iterator[tuple[tuple[int, int], Contact]]:
    """Contacts of the arm now, by (number of its body, number of the shape that it touches).

    Args:
        arm: (nbody,) whether a body is the arm's.
        loose: numbers of the bodies that it may move.
    """
    import mujoco

    wrench = np.zeros(6)
    for number in range(data.ncon):
        geoms = data.contact.geom[number]
        bodies = model.geom_bodyid[geoms]
        ours = arm[bodies]
        if not ours.any():
            continue
        mujoco.mj_contactForce(model, data, number, wrench)
        other = int(np.argmin(ours))
        names = " and ".join(_name(model, int(geom)) for geom in geoms)
        pair = int(bodies[1 - other]), int(geoms[other])
        yield pair, Contact(float(wrench[0]), names, int(bodies[other]) in loose)


def against(
    felt: Felt,
    force: float,
    push: float,
    torque: float | tuple[float, ...] | None,
    joints: tuple[str, ...],
    still: Felt | None = None,
) -> list[str]:
    """What is more than allowed, in words; with `still`, also harder at the same place than standing still is.

    Args:
        force: N, on what stands fast. push: N, on what may be moved. torque: N m, at each joint; None: not limited.
        joints: names, in the order of torques.
    """
    stands, reasons = still or Felt(np.zeros(len(felt.torque))), []
    for word, most, moves in (("press", force, False), ("push", push, True)):
        over = []
        for pair, contact in felt.contacts.items():
            allowed = max(most, HARDER * stands.contacts.get(pair, Contact()).force)
            if contact.moves == moves and contact.force > allowed:
                over.append(contact)
        if over:
            hardest = max(over)
            reasons.append(f"{hardest.names} would {word} with {hardest.force:.1f} N")
    if torque is not None:
        over_by = np.abs(felt.torque) - np.maximum(np.asarray(torque, float), HARDER * np.abs(stands.torque))
        if (over_by > 0).any():
            joint = int(np.argmax(over_by))
            reasons.append(f"contact would put {felt.torque[joint]:.2f} N m on {joints[joint]}")
    return reasons


def _name(model: mujoco.MjModel, geom: int) -> str:
    return model.geom(geom).name or model.body(int(model.geom_bodyid[geom])).name or "world"
