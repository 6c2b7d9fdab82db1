"""What the tests of learning share: a cache of decoded pictures that is nobody's."""

import pytest


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDERSTUDY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
