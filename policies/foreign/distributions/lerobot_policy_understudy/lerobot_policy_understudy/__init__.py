"""Policies of understudy as types of lerobot's, and its worlds where the plug-in of worlds is installed.

lerobot 0.4.4 looks for policies, robots, cameras and teleoperators only, so the worlds come along with the policies.
"""

import importlib.util

from . import configuration_understudy  # noqa: F401  registers the types

if importlib.util.find_spec("lerobot_env_understudy") is not None:
    import lerobot_env_understudy  # noqa: F401
