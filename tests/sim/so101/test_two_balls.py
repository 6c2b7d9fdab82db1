"""Both worlds of the two balls begin and look alike; only what counts as success differs."""

import numpy as np

import understudy
from understudy.configs.spec import IMAGES, SCENE, STATE

FRONT = IMAGES + "front"


def test_the_scene_does_not_tell_which_ball_is_asked_for():
    first = []
    for colour in ("red", "blue"):
        env = understudy.make(f"so101-{colour}-ball", cameras={"front": (48, 48)})
        first.append(env.reset(seed=7)[0])
        env.close()
    assert all(np.array_equal(first[0][key], first[1][key]) for key in (STATE, SCENE, FRONT))
    red, blue = first[0][SCENE].reshape(2, 3)
    assert np.abs(red - blue).max() > 0.05


def test_who_reaches_the_other_ball_has_not_succeeded():
    wanted = understudy.rollout("expert", "so101-blue-ball", episodes=3, num_envs=3)
    assert wanted.successes == 3
    from contextlib import closing

    from understudy.configs.lanes.lanes import Lanes
    from understudy.configs.world import read_world
    from understudy.eval.rollout.actors import TapeActor
    from understudy.eval.rollout.rollout import rollout

    with closing(Lanes(read_world("so101-red-ball"), 3)) as lanes:
        other = [*rollout(TapeActor(wanted.actions, 3), lanes, list(wanted.actions))]
    assert not any(result.row["success"] for result in other)
