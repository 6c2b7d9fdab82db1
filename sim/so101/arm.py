"""The SO-101 arm: its joints in the order of the action, their limits and the posture that its tasks begin in.

Written from the kinematics that TheRobotStudio publishes; joint order and names are lerobot's.
The limits are those of the joints and servos in `assets/so101.xml`; a test holds the two against each other.
"""

from __future__ import annotations

from ..arms import Arm, register_arm

SO101 = register_arm(
    Arm(
        name="so101",
        asset="so101.xml",
        joints=("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"),
        limits=(
            (-1.91986, 1.91986),
            (-1.74533, 1.74533),
            (-1.69, 1.69),
            (-1.65806, 1.65806),
            (-2.79253, 2.79253),
            (-0.17453, 1.74533),
        ),
        home=(0.0, -0.6, 0.7, 1.4708, 0.0, 0.6),
    )
)
