"""Scripted demonstrators of the SO-101's tasks: places for the hand in space, joints by inverse kinematics.

They are functions of the lane's present state alone, so they recover from whatever is done to them. Pushing is greedy:
of all contact points on the T the one is chosen whose straight push, by the quasi-static limit-surface model (Lynch and
Mason 1996), brings the T nearest to its goal; the stick is lifted to change sides. They know nothing of pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ..arms import Kinematics, Wish
from ..experts import register_expert
from .arm import SO101
from .tabletop import CUBE, GOAL, INSIDE, PAN, STICK, STICK_TIP, T_BOXES, T_MIDDLE

DOWN = np.array([0.0, 0.0, -1.0])


def toward(start: np.ndarray, aim: np.ndarray, step: float, part: float = 1.0) -> np.ndarray:
    """The point at most `step` m and at most `part` of the way from `start` to `aim`; less than 1 brakes early."""
    way = aim - start
    return start + way * min(part, step / max(float(np.linalg.norm(way)), 1e-9))


@register_expert("so101-reach")
class ReachExpert:
    """Straight to the ball, the hand down."""

    step = 0.010  # m of the hand in one control step

    def act(self, env) -> np.ndarray:
        angles, kinematics = env.task.joints(env.model, env.data), _kinematics((0.0, 0.0, 0.0))
        aim = toward(kinematics.forward(angles)[0], self.goal(env), self.step)
        return kinematics.inverse(Wish(position=aim, out=DOWN, out_weight=0.03), angles, iterations=8)

    def goal(self, env) -> np.ndarray:
        """(3,) m, where the hand is to come."""
        return env.data.mocap_pos[0]


@register_expert("so101-pick-place")
class PickPlaceExpert:
    """Over the cube with open fingers, down, close, lift, over the disc, down, open: one of these at each step."""

    step = 0.010  # m of the hand in one control step
    hover = 0.05  # m above the table's cube while not over it
    aside = 0.006  # m beside the wanted place that count as over it
    gap = 0.004  # m between fixed finger and cube before the moving finger closes
    wide, shut = 0.62, 0.0  # rad, gripper
    caught = 0.016  # m between hand and cube that count as held
    grip = 0.34  # rad, less than this the fingers are on the cube
    still = 0.3  # rad/s, of the moving finger: it has met the cube
    drop = 0.017  # m, height of the hand over the disc at which a cube that sits badly is let go
    carry = 0.045  # m, height of the cube on the way

    def act(self, env) -> np.ndarray:
        task, model, data = env.task, env.model, env.data
        angles, kinematics = task.joints(model, data), _kinematics((0.0, 0.0, 0.0))
        hand, turn = kinematics.forward(angles)

        # how the cube lies, and whether it is held
        body = data.body("cube")
        cube, zone = body.xpos.copy(), np.array([*data.mocap_pos[0, :2], CUBE / 2])
        across = _face(body.xmat.reshape(3, 3), cube)
        jaw = float(data.qvel[task.wiring(model).qvel[-1]])
        held = np.linalg.norm(hand - cube) < self.caught and angles[-1] < self.grip and abs(jaw) < self.still

        # let go and leave; carry; fetch
        if task.placed(data):
            aim, gripper = self._leave(hand, angles), self.wide
            across = _flat(turn[:, 2])
        elif jaw > self.still and np.linalg.norm((cube - zone)[:2]) < INSIDE:
            aim, gripper = hand, self.wide  # over the disc, opening: go on
            across = _radial(hand)
        elif held:
            aim, gripper = self._carry(hand, cube, zone)
            across = _radial(hand)
        else:
            aim, gripper = self._fetch(hand, cube, across)

        wish = Wish(position=toward(hand, aim, self.step), out=DOWN, across=across)
        command = kinematics.inverse(wish, angles, iterations=8)
        command[-1] = gripper
        return command

    def _leave(self, hand: np.ndarray, angles: np.ndarray) -> np.ndarray:
        """Stay while the fingers open, then go up."""
        return hand + [0, 0, 0.05] if angles[-1] > self.wide - 0.1 else hand

    def _carry(self, hand: np.ndarray, cube: np.ndarray, zone: np.ndarray) -> tuple[np.ndarray, float]:
        way = zone - cube
        aside = float(np.linalg.norm(way[:2]))
        if aside < INSIDE / 2 and hand[2] < self.drop and cube[2] > CUBE / 2 + 0.006:
            return hand, self.wide
        height = self.carry if aside > INSIDE / 2 else CUBE / 2 - 0.002
        if aside > INSIDE / 2 and cube[2] < self.carry - 0.015:
            way[:2] = 0  # up first
        return hand + [*way[:2], height - cube[2]], self.shut

    def _fetch(self, hand: np.ndarray, cube: np.ndarray, across: np.ndarray) -> tuple[np.ndarray, float]:
        aim = cube - self.gap * across
        aside, above = float(np.linalg.norm(aim[:2] - hand[:2])), float(hand[2] - cube[2])
        near = aside < 1.5 * self.aside and above < 0.006
        aim[2] += self.hover * np.clip(aside / self.aside - 1, 0, 1)
        return aim, self.shut if near else self.wide


@dataclass(frozen=True)
class Contact:
    """Where and whither the stick could push, in the frame of the T with its origin at the centre of mass; m."""

    point: np.ndarray  # (2,) on the edge
    normal: np.ndarray  # (2,) unit, into the T
    move: np.ndarray  # (3,) what the T does for 1 m of stick: x, y in m, angle in rad


@register_expert("so101-pusht")
class StickExpert:
    """Greedy pushes; between them the stick is lifted over the T."""

    arm = 0.022  # m that one rad of error counts
    low, high = 0.005, 0.03  # m, height of the stick's tip while pushing and while travelling
    stand = 0.006  # m between stick and T before a push
    aside = 0.003  # m beside the line of a push that count as on it
    travel, fast, slow = 0.010, 0.004, 0.0006  # m in one control step
    brake = 0.45  # part of the remaining way that the stick goes in one control step
    loyal = 0.25  # keep pushing while that helps at least this part of what the best push would

    def act(self, env) -> np.ndarray:
        task, model, data = env.task, env.model, env.data
        angles, kinematics = task.joints(model, data), _kinematics(STICK_TIP)
        tip = kinematics.forward(angles)[0]
        place, angle = task.block(model, data)
        aim = self._aim(tip, place, angle)

        rest = np.array(task.home)
        wish = Wish(position=aim, out=DOWN, out_weight=0.02, rest=rest, rest_weight=0.002)
        command = kinematics.inverse(wish, angles, iterations=8)
        command[-1] = rest[-1]
        return command

    def _aim(self, tip: np.ndarray, place: np.ndarray, angle: float) -> np.ndarray:
        """Where the stick's tip (3,) shall be after this step."""
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = place - turn @ [0, T_MIDDLE]
        error = np.array([*(turn.T @ (_goal_middle() - middle)), _wrap(GOAL[2] - angle)])
        here = turn.T @ (tip[:2] - middle)

        # which push helps most, of those in reach
        starts = middle + (_points() - _normals() * (STICK + self.stand)) @ turn.T
        reach = np.linalg.norm(starts - PAN, axis=1)
        gains = np.where((reach > 0.10) & (reach < 0.28) & (starts[:, 0] > 0.06), self._gains(error), 0)
        contacts = _contacts()
        best = int(gains.argmax())

        # go on pushing while that helps
        live = np.flatnonzero(self._behind(here)) if tip[2] < self.low + 0.006 else ()
        if len(live):
            chosen = max(live, key=lambda i: gains[i])
            if gains[chosen] > self.loyal * gains.max():
                return self._push(contacts[chosen], error, tip, middle, turn, here)

        # else to where the best push begins, over the T
        start = starts[best]
        aside = float(np.linalg.norm(start - tip[:2]))
        if aside > 3 * self.aside and tip[2] < self.high - 0.004:
            return toward(tip, np.array([*tip[:2], self.high + 0.004]), self.travel, self.brake)
        height = self.low + (self.high - self.low) * np.clip(aside / self.aside - 1, 0, 1)
        return toward(tip, np.array([*start, height]), self.travel, self.brake)

    def _gains(self, error: np.ndarray) -> np.ndarray:
        """(n,) m, how much nearer the best length of each push brings the T."""
        weights = np.array([1.0, 1.0, self.arm])
        before, moves = weights * error, weights * _moves()
        along = np.maximum(0.0, moves @ before) / (moves**2).sum(1)
        return np.linalg.norm(before) - np.linalg.norm(before - along[:, None] * moves, axis=1)

    def _behind(self, here: np.ndarray) -> np.ndarray:
        """(n,) bool, whether the stick at `here` stands ready for each push."""
        ways = _points() - here
        depth = (ways * _normals()).sum(1)
        beside = np.linalg.norm(ways - depth[:, None] * _normals(), axis=1)
        return (beside < self.aside + 0.001) & (depth > STICK - 0.003) & (depth < STICK + self.stand + 0.004)

    def _push(self, contact: Contact, error, tip, middle, turn, here) -> np.ndarray:
        weights = np.array([1.0, 1.0, self.arm])
        before, move = weights * error, weights * contact.move
        length = max(0.0, before @ move) / (move @ move)
        gap = float((contact.point - here) @ contact.normal) - STICK
        step = np.clip(max(gap, 0.0) + 0.6 * length, self.slow, self.fast)
        aim = contact.point - contact.normal * (STICK + gap - step)
        return np.array([*(middle + turn @ aim), self.low])


@cache
def _contacts() -> tuple[Contact, ...]:
    """Contact points 4 mm apart on all edges of the T, away from corners."""
    offset = np.array([0.0, T_MIDDLE])
    (bar, bar_half), (stem, stem_half) = T_BOXES
    top, under = bar[1] + bar_half[1], bar[1] - bar_half[1]
    left, right = -bar_half[0], bar_half[0]
    inner, foot = stem_half[0], stem[1] - stem_half[1]
    clear = STICK + 0.001  # the stick must fit into the corner between bar and stem

    # begin, end, normal, what is kept free at either end
    edges = [
        ((left, top), (right, top), (0, -1), 0.003, 0.003),
        ((left, under), (-inner, under), (0, 1), 0.003, clear),
        ((inner, under), (right, under), (0, 1), clear, 0.003),
        ((left, under), (left, top), (1, 0), 0.003, 0.003),
        ((right, under), (right, top), (-1, 0), 0.003, 0.003),
        ((-inner, foot), (-inner, under), (1, 0), 0.003, clear),
        ((inner, foot), (inner, under), (-1, 0), 0.003, clear),
        ((-inner, foot), (inner, foot), (0, 1), 0.003, 0.003),
    ]

    contacts = []
    for begin, end, normal, first, last in edges:
        begin, way, normal = np.array(begin), np.subtract(end, begin), np.array(normal, float)
        size = np.linalg.norm(way)
        for at in np.linspace(first, size - last, max(2, round((size - first - last) / 0.004) + 1)):
            point = begin + way / size * at + offset
            contacts.append(Contact(point, normal, _motion(point, normal)))

    return tuple(contacts)


@cache
def _points() -> np.ndarray:
    return np.array([contact.point for contact in _contacts()])


@cache
def _normals() -> np.ndarray:
    return np.array([contact.normal for contact in _contacts()])


@cache
def _moves() -> np.ndarray:
    return np.array([contact.move for contact in _contacts()])


def _motion(point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """(3,) motion of the T for 1 m of a frictionless push, by an ellipsoidal limit surface."""
    lever = point[0] * normal[1] - point[1] * normal[0]
    scale = 1 / (1 + (lever / SPREAD) ** 2)
    return scale * np.array([*normal, lever / SPREAD**2])


SPREAD = 0.021  # m, greatest friction torque over greatest friction force of the T


def _goal_middle() -> np.ndarray:
    return np.array(GOAL[:2]) + T_MIDDLE * np.array([np.sin(GOAL[2]), -np.cos(GOAL[2])])


def _wrap(angle: float) -> float:
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def _face(rotation: np.ndarray, cube: np.ndarray) -> np.ndarray:
    """Outward normal of the side of the cube that looks away from the shoulder, in the plane of the table."""
    radial = _radial(cube)
    sides = [_flat(sign * rotation[:, axis]) for axis in range(3) for sign in (1, -1)]
    return max(sides, key=lambda side: float(side @ radial))


def _radial(place: np.ndarray) -> np.ndarray:
    return _flat(np.array([*(place[:2] - PAN), 0.0]))


def _flat(vector: np.ndarray) -> np.ndarray:
    """The direction of a vector in the plane of the table; zero for one that is nearly vertical."""
    flat = np.array([vector[0], vector[1], 0.0])
    size = np.linalg.norm(flat)
    return flat / size if size > 0.5 * np.linalg.norm(vector) else np.zeros(3)


@cache
def _kinematics(tool: tuple[float, float, float]) -> Kinematics:
    return Kinematics(SO101, tool)
