"""robosuite is opened beside a MuJoCo that it knows."""

import pytest

from understudy.sim.robosuite.build import check_mujoco


@pytest.mark.parametrize("version", ["3.10.0", "3.12.1", "4.0.0", "4.0.0.dev3"])
def test_a_mujoco_that_robosuite_does_not_know_is_refused_by_name(version):
    with pytest.raises(ImportError, match=f"beside mujoco {version}.*understudy doctor"):
        check_mujoco(version)


@pytest.mark.parametrize("version", ["3.3.0", "3.9.0"])
def test_others_are_fine(version):
    check_mujoco(version)
