"""Nothing that registers itself is missed where only modules with certain texts are imported (`plugins.discover`)."""

import subprocess
import sys

FOUND = """
from understudy.configs import world
from understudy.configs.plugins import discover
from understudy.hardware.open import MARK
from understudy.hardware.robot import RobotConfig

def known():
    return set(world.WORLDS), set(world.World.get_known_choices()), set(RobotConfig.get_known_choices())

discover(*world.KINDS, having=world.MARKS)
discover("hardware", having=(MARK,))
few = known()
discover(*world.KINDS)
assert few == known() and all(few), [one ^ other for one, other in zip(few, known(), strict=True)]
"""


def test_texts_find_all_that_registers():
    subprocess.run([sys.executable, "-c", FOUND], check=True)
