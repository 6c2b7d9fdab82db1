"""A policy elsewhere plans as one in this process: to the bit, with history, pictures, critics and mixtures."""

import numpy as np
import pytest
import torch

from understudy.configs.spec import EmbodimentError
from understudy.hardware.remote.messages import Answer, Refusal
from understudy.policies.agent.agent import Agent
from understudy.policies.agent.open import instruct
from understudy.policies.critics.recall import RecallConfig

from .conftest import BODY, build, first_ask, play

CHUNKS = 5


@pytest.mark.parametrize("lanes", [1, 3])
def test_plans_are_those_of_the_policy_itself(policy, serve, connect, lanes):
    _, address = serve(policy)
    remote = connect(address)
    assert remote.embodiment == policy.embodiment and remote.window == policy.window
    here, there = (play(Agent(one, lanes=lanes, seed=3), CHUNKS, lanes) for one in (policy, remote))
    assert np.array_equal(here, there)


def test_each_picture_goes_over_once_at_the_size_that_is_read(seeing_policy, serve, connect, monkeypatch):
    from understudy.hardware.remote import planner

    sent = []
    pack = planner.pack
    monkeypatch.setattr(planner, "pack", lambda message: sent.append(message) or pack(message))
    _, address = serve(seeing_policy)
    here, there = (play(Agent(one, lanes=2, seed=1), CHUNKS, 2) for one in (seeing_policy, connect(address)))
    assert np.array_equal(here, there)
    frames = [ask.frames["observation.images.top"].values.shape for ask in sent[1:]]
    assert frames == [(2, 24, 32, 3), *[(4, 24, 32, 3)] * 2, (3, 24, 32, 3), (4, 24, 32, 3)]  # 3 are read, 1 is held


def test_pictures_may_go_as_jpeg(seeing_policy, serve, connect):
    _, address = serve(seeing_policy)
    raw, jpeg = connect(address), connect(f"{address}?pictures=jpeg&quality=95")
    one, other = (play(Agent(each, lanes=1), 2) for each in (raw, jpeg))
    assert not np.array_equal(one, other) and np.abs(one - other).max() < 0.5


def test_a_critic_on_either_side_chooses_the_same(policy, serve, connect):
    critic = RecallConfig().beside(policy)
    here = play(Agent(policy, lanes=2, candidates=5, critic=critic, seed=2), CHUNKS, 2)
    _, address = serve(policy)
    assert np.array_equal(here, play(Agent(connect(address), lanes=2, candidates=5, critic=critic, seed=2), CHUNKS, 2))
    _, chosen = serve(policy, agent={"candidates": 5, "critic": critic})
    remote = connect(chosen)
    assert np.array_equal(here, play(Agent(remote, lanes=2, seed=2), CHUNKS, 2))
    with pytest.raises(ValueError, match="a critic of the server's chooses among its own"):
        play(Agent(remote, lanes=2, candidates=5, critic=critic, seed=2), 1, 2)


def test_what_is_served_without_noise_has_none(policy, serve, connect):
    _, address = serve(policy, agent={"noiseless": True})
    silent = play(Agent(policy, lanes=2, n_action_steps=4, noiseless=True), 3, lanes=2)
    far = [play(Agent(connect(address), lanes=2, n_action_steps=4, seed=seed), 3, lanes=2) for seed in (0, 1)]
    assert np.array_equal(far[0], silent) and np.array_equal(far[1], silent)
    assert not np.array_equal(silent, play(Agent(policy, lanes=2, n_action_steps=4), 3, lanes=2))


def test_a_mixture_is_served(serve, connect):
    from understudy.policies.compositions.mixture import Mixture

    parents = [build(), build(window=build().window)]
    torch.manual_seed(5)
    for weights in parents[1].parameters():
        weights.data += 0.05 * torch.randn_like(weights)
    mixture = Mixture(parents, (0.3, 0.7)).eval()
    _, address = serve(mixture)
    assert np.array_equal(play(Agent(mixture, lanes=1), CHUNKS), play(Agent(connect(address), lanes=1), CHUNKS))


def test_eight_clients_get_their_own_plans(policy, serve, connect):
    from concurrent.futures import ThreadPoolExecutor

    server, address = serve(policy, block=4)
    remotes = [connect(address) for _ in range(8)]

    def act(number, planner):
        return play(Agent(planner, lanes=1, seed=number), CHUNKS, seed=number)

    with ThreadPoolExecutor(8) as pool:
        there = list(pool.map(act, range(8), remotes))
    for number, actions in enumerate(there):  # computed together, rows differ in the last digits
        assert np.allclose(actions, act(number, policy), atol=1e-5)
    assert server.served.asks == 8 * CHUNKS and server.served.clients == 8


def test_a_client_that_gives_no_text_is_not_planned_for_by_anothers(policy, serve, raw):
    told = []
    _, address = serve(policy, task="stack", tell=told.append)
    for task in ("push", None):
        client = raw(address)
        assert isinstance(client.say(first_ask(client.greet(), task=task)), Answer)
    assert told == ["push", "stack"]


def test_a_client_acts_by_the_text_of_the_server_where_it_has_none(policy, serve, connect):
    """The server planned by its own text, and the record said that it was empty."""
    told = []
    _, address = serve(policy, task="stack", tell=told.append)
    remote = connect(address)
    assert instruct(remote, "") and remote.task_text == "stack"
    play(Agent(remote, lanes=1), 1)
    assert instruct(remote, "push") and remote.task_text == "push"
    play(Agent(remote, lanes=1), 1)
    assert told == ["stack", "push"]


def test_a_text_that_nobody_says_is_refused(policy, serve, connect, raw):
    """The policy of the server acted by an empty one, without a word."""
    told = []
    _, address = serve(policy, task="", tell=told.append)
    remote = connect(address)
    for act in (lambda: instruct(remote, ""), lambda: play(Agent(remote, lanes=1), 1)):
        with pytest.raises(ValueError, match=r"reads the text of its task.*--task_text here, or --task_text to its"):
            act()
    client = raw(address)  # one of before
    answer = client.say(first_ask(client.greet(), task=None))
    assert isinstance(answer, Refusal) and "reads the text of its task: send one" in answer.reason
    assert told == []


def test_a_text_that_the_policy_refuses_is_refused_each_time(policy, serve, raw):
    told = []

    def tell(text):
        told.append(text)
        if text == "fly":
            raise ValueError("it was not trained on")

    _, address = serve(policy, task="stack", tell=tell)
    client = raw(address)
    welcome = client.greet()
    for number, (task, kind) in enumerate([("stack", Answer), ("fly", Refusal), ("fly", Refusal), ("stack", Answer)]):
        assert isinstance(client.say(first_ask(welcome, number, task=task)), kind)
    assert told == ["stack", "fly", "fly", "stack"]


def test_the_ninth_client_is_turned_away(policy, serve, connect):
    from understudy.hardware.remote.limits import Limits
    from understudy.hardware.remote.line import RemoteError

    _, address = serve(policy, limits=Limits(clients=1))
    connect(address)
    with pytest.raises(RemoteError, match="1 clients are served already"):
        connect(address)


def test_a_misfit_is_refused_by_the_first_difference(policy, serve, connect):
    import dataclasses

    _, address = serve(policy)
    remote = connect(address)
    other = dataclasses.replace(BODY, rate=30.0)
    with pytest.raises(EmbodimentError, match="differ in rate: 'two joints' has 10.0, 'two joints' has 30.0"):
        remote.embodiment.check(other, remote.inputs)


def test_an_answer_says_what_it_took(policy, serve, connect, raw):
    import time

    _, address = serve(policy)
    remote = connect(address)
    remote.captured = {"observation.state": time.monotonic() - 0.5}
    play(Agent(remote, lanes=1), 1)
    assert 0 < remote.latency.thought <= remote.latency.round_trip and 0.5 < remote.latency.age
    client = raw(address)
    assert isinstance(client.say(first_ask(client.greet())), Answer)


def test_an_evaluation_takes_an_address(serve, tmp_path, capsys):
    """The record names the served policy and holds what the policy itself gives."""
    from understudy.configs.world import read_world
    from understudy.eval.evaluate.evaluate import Eval, evaluate
    from understudy.eval.ledger.table import tables_equal
    from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
    from understudy.policies.models.diffusion import DiffusionConfig

    from .conftest import NETWORK, SCENE, STATE, Window

    torch.manual_seed(0)
    body = read_world("point").embodiment()
    config = DiffusionConfig(
        window=Window(observe=(-1, 0), horizon=8), inputs=(STATE, SCENE), network=NETWORK, n_action_steps=4
    )
    planner = config.build(body, blank_scales(body)).eval()
    save_checkpoint(tmp_path / "policy", planner, kind="policy", config=config)
    _, address = serve(planner, about={"type": "diffusion", "fingerprint": "abc"})
    records = []
    for name, asked in (("here", str(tmp_path / "policy")), ("there", address)):
        settings = {"world": {"type": "point", "horizon": 12}, "episodes": 3, "block": 3, "videos": 0, "workers": 0}
        records.append(evaluate(Eval(policy=asked, out=str(tmp_path / name), **settings)))
    assert tables_equal(records[0].table, records[1].table)
    assert records[1].manifest["policy"] | {"path": ""} == {"path": "", "fingerprint": "abc", "type": "diffusion"}


def test_a_client_is_told_what_earlier_versions_called_the_policy(policy, serve):
    """Records and alarms of before were of another policy where it acted from a server."""
    from understudy.policies.agent.open import Acting, open_agent

    _, address = serve(policy, about={"type": "lerobot/act", "fingerprint": "now", "formerly": "then"})
    _, about = open_agent(Acting(policy=address), None)
    assert (about["fingerprint"], about["formerly"]) == ("now", "then")
