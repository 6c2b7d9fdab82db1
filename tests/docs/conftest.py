"""Pages are played beside the other tests, from the beginning of a session on; their tests wait for them at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from understudy.configs.cores import cores

WAIT = ("test_a_page_runs_as_printed", "test_the_first_steps_run_as_printed")  # in `test_pages.py`
PAGES = Path(__file__).with_name("test_pages.py")
STAGE = pytest.StashKey()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: getattr(item, "originalname", "") in WAIT)  # stable: the others stay in their order


def pytest_collection_finish(session):
    items = [item for item in session.items if item.path == PAGES]
    if not items or session.config.option.collectonly:
        return
    pages = [item.callspec.params["page"] for item in items if getattr(item, "originalname", "") == WAIT[0]]
    session.config.stash[STAGE] = stage = items[0].module.Stage(pages)
    if pages and cores() > 1:
        stage.begin()


def pytest_sessionfinish(session):
    stage = session.config.stash.get(STAGE, None)
    if stage is not None:
        stage.end()


@pytest.fixture(scope="session")
def stage(request):
    """Where the pages of this session are played."""
    stage = request.config.stash[STAGE]
    stage.begin()
    return stage
