"""Arms behind the guard of understudy as robots of lerobot's: `--robot.type=understudy_so101`, `understudy_guarded`."""

from .guarded import UnderstudyGuarded, UnderstudyGuardedConfig, UnderstudySO101, UnderstudySO101Config

__all__ = ["UnderstudyGuarded", "UnderstudyGuardedConfig", "UnderstudySO101", "UnderstudySO101Config"]
