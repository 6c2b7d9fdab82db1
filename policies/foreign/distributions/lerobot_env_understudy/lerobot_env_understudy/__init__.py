"""Worlds of understudy as environments of lerobot's: `--env.type=understudy --env.task=lift`.

lerobot 0.4.4 finds this module where the plug-in of policies is installed too, or by
`--plug.discover_packages_path=lerobot_env_understudy`.
"""

from .world import UnderstudyWorld

__all__ = ["UnderstudyWorld"]
