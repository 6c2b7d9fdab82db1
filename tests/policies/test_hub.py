"""Policies by their names on the hub: paths first, fetched once, and the record keeps name and revision."""

import json
import shutil

import pytest

from understudy.configs.spec import Embodiment
from understudy.policies import hub
from understudy.policies.agent.open import Acting, open_agent
from understudy.policies.hub import fetch_model, is_hub_id
from understudy.policies.learning.checkpoint import find_checkpoint, save_checkpoint
from understudy.policies.models.regression import RegressionConfig

REVISION = "0123456789abcdef0123456789abcdef01234567"
BODY = Embodiment(
    name="b", action=("x",), action_units=("m",), limits=((-1.0, 1.0),), rate=10.0, state=("x",), state_units=("m",)
)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A hub that holds one policy of ours under every name; what it was asked."""
    import huggingface_hub

    from understudy.policies.learning.checkpoint import blank_scales

    config = RegressionConfig()
    snapshot = tmp_path / "cache" / "models--me--it" / "snapshots" / REVISION
    model = config.build(BODY, blank_scales(BODY))
    save_checkpoint(snapshot, model, kind="policy", config=config)
    shutil.rmtree(snapshot / "training_state")
    calls = []

    def download(name, **options):
        calls.append((name, options))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    fetch_model.cache_clear()
    yield calls
    fetch_model.cache_clear()


def test_a_name_on_the_hub_acts_and_the_manifest_keeps_name_and_revision(asked):
    _, about = open_agent(Acting(policy="me/it"), lambda: BODY)
    assert about["path"] == "me/it" and about["hub"] == {"id": "me/it", "revision": REVISION}
    ((name, options),) = asked
    assert name == "me/it" and options["repo_type"] == "model" and options["revision"] is None, "fetched once"
    assert all(pattern.endswith((".json", ".safetensors")) for pattern in options["allow_patterns"])


def test_a_revision_may_be_asked_for(asked):
    _, about = open_agent(Acting(policy="me/it@v2"), lambda: BODY)
    assert asked[0][0] == "me/it" and asked[0][1]["revision"] == "v2"
    assert about["hub"] == {"id": "me/it", "revision": REVISION}


def test_paths_come_first(asked, tmp_path):
    shutil.copytree(find_checkpoint("me/it"), tmp_path / "me" / "it")
    asked.clear()
    _, about = open_agent(Acting(policy="me/it"), lambda: BODY)
    assert not asked and "hub" not in about
    with pytest.raises(FileNotFoundError, match="'me/that' is not a run or checkpoint: no such folder"):
        find_checkpoint("me/that")
    assert not asked, "a folder 'me' is here, so that its inside is meant"


@pytest.mark.parametrize(
    "name", ["lift", "/a/b", "./a/b", "../b", "a/b/c", "a b/c", "~/it", "a/", "$HOME/it", "runs/it", "out/it"]
)
def test_other_words_are_paths(asked, name):
    assert not is_hub_id(name)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_checkpoint(name)
    assert not asked


def test_without_network_it_says_what_to_do(asked, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args, **options):
        raise LocalEntryNotFoundError("cannot find the requested files in the disk cache\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    message = "'me/it' is not a run or checkpoint: 'me/it' is no folder here and could not be fetched from the hub"
    with pytest.raises(FileNotFoundError, match=message) as caught:
        find_checkpoint("me/it")
    assert "give the path of a local copy" in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, hub.HubError)


def test_a_critic_is_no_policy_wherever_it_came_from(asked):
    folder = find_checkpoint("me/it")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"kind": "critic"}))
    (folder / "digests.json").unlink()
    with pytest.raises(ValueError, match="holds a critic, not a policy"):
        open_agent(Acting(policy="me/it"), lambda: BODY)
