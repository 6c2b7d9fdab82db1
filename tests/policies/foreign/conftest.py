"""What the tests of the plug-ins for lerobot share: found by lerobot as installed distributions are."""

import sys
import tomllib
import types
from pathlib import Path

import pytest

DISTRIBUTIONS = Path(__file__).resolve().parents[3] / "policies" / "foreign" / "distributions"


def installed(place: Path) -> Path:
    """A folder for `sys.path` that holds the distributions as pip would leave them."""
    for source in sorted(DISTRIBUTIONS.iterdir()):
        project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
        told = place / f"{project['name']}-{project['version']}.dist-info"
        told.mkdir()
        (told / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        (place / project["name"]).symlink_to(source / project["name"])
    return place


@pytest.fixture(scope="session")
def plugged(lerobot, tmp_path_factory):
    """lerobot with our plug-ins discovered by itself; what the tests call of both."""
    place = str(installed(tmp_path_factory.mktemp("installed")))
    sys.path.insert(0, place)
    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()

    import lerobot_env_understudy
    import lerobot_policy_understudy.configuration_understudy as settings
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.envs.configs import EnvConfig
    from lerobot.policies.factory import get_policy_class, make_policy, make_pre_post_processors

    yield types.SimpleNamespace(
        dataset=lerobot,
        settings=settings,
        world=lerobot_env_understudy.UnderstudyWorld,
        config=PreTrainedConfig,
        env=EnvConfig,
        policy=make_policy,
        policy_class=get_policy_class,
        processors=make_pre_post_processors,
        path=place,
    )
    sys.path.remove(place)
