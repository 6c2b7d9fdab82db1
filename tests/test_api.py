"""understudy in Python: each function beside the verb that it stands for, and what it refuses."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import understudy
from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import read_world
from understudy.eval.ledger.table import INCIDENTAL
from understudy.policies.agent.observation import ObservationError, read_observation
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig

WORLD = {"type": "point", "horizon": 30}
WINDOW = Window(observe=(-3, -1, 0), recall=(-2, -1), horizon=8)


def save(folder, seed: int, **changes):
    """A run with one checkpoint of an untrained policy for the point task."""
    import torch

    torch.manual_seed(seed)
    body = read_world("point").embodiment()
    config = DiffusionConfig(
        **{"window": WINDOW, "inputs": (STATE, SCENE), "network": MLPConfig(width=16, depth=1, condition_width=8)}
        | {"n_action_steps": 4}
        | changes
    )
    checkpoint = folder / "checkpoints" / "00000040"
    checkpoint.parent.mkdir(parents=True)
    save_checkpoint(checkpoint, config.build(body, blank_scales(body)), kind="policy", config=config)
    (folder / "last").symlink_to("checkpoints/00000040")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two untrained policies that read the past."""
    root = tmp_path_factory.mktemp("runs")
    return save(root / "a", 0), save(root / "b", 1)


def told(row: dict) -> dict:
    """A row without what may differ between equal runs; numbers as a table keeps them."""
    kept = {name: value for name, value in row.items() if name not in (*INCIDENTAL, "video")}
    return {name: np.float32(v).tolist() if name == "progress" or type(v) is float else v for name, v in kept.items()}


def act(policy, env, seed, **seen):
    """The actions (T, ...) of one episode."""
    obs, info = env.reset(seed=seed)
    policy.reset(env_seed=seed)
    actions, ended, sent = [], False, None
    while not ended:
        action = policy.select_action(obs, sent=sent)
        obs, _, terminated, truncated, info = env.step(action)
        sent, ended = info["action.sent"], np.all(terminated | truncated)
        actions.append(action)
    return np.stack(actions), info


def test_importing_is_light_and_offers_the_names():
    code = (
        "import sys, understudy; light = 'numpy' not in sys.modules and 'yaml' not in sys.modules;"
        "from understudy import load, rollout; print(light, 'torch' in sys.modules, 'mujoco' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]
    assert {"load", "make", "rollout", "train", "compare", "evaluate"} <= set(dir(understudy)) & set(understudy.__all__)
    with pytest.raises(AttributeError, match="no attribute 'laod'; it offers compare, "):
        understudy.laod  # noqa: B018


@pytest.mark.parametrize("world", [WORLD, WORLD | {"delay": 2}])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_action_steps": 3},
        {"ensemble": 0.1, "n_action_steps": 2},
        {"delay": 2, "latency": "blend"},
        {"delay": 1},  # the environment stands until the plan is there
        {"delay": 2, "latency": "past"},
    ],
)
def test_one_environment_gives_the_episodes_of_an_evaluation(runs, tmp_path, world, settings):
    record = understudy.evaluate(runs[0], world, tmp_path / "r", episodes=3, block=1, videos=0, **settings)
    policy, env = understudy.load(runs[0], **settings), understudy.make(world)
    rolled = understudy.rollout(policy, world, episodes=3, num_envs=1)
    for row, tried in zip(record.rows, rolled.rows, strict=True):
        actions, info = act(policy, env, row["env_seed"])
        assert (actions == rolled.actions[row["env_seed"]]).all() and len(actions) == row["length"]
        assert told(tried) == told(row) and np.float32(info["progress"]) == np.float32(row["final_progress"])
    env.close()


def test_a_batch_gives_the_episodes_of_an_evaluation(runs, tmp_path):
    record = understudy.evaluate(runs[0], WORLD, tmp_path / "r", episodes=5, block=5, videos=0)
    policy, envs = understudy.load(str(runs[0])), understudy.make(WORLD, num_envs=5)
    rolled = understudy.rollout(runs[0], WORLD, episodes=5, num_envs=5)
    actions, info = act(policy, envs, 1000)
    for slot, row in enumerate(record.rows):
        assert (actions[: row["length"], slot] == rolled.actions[row["env_seed"]]).all()
        assert np.float32(info["progress"][slot]) == np.float32(row["final_progress"])
    assert list(map(told, record.rows)) == list(map(told, rolled.rows))
    envs.close()


def test_a_composition_acts_as_in_an_evaluation(runs, tmp_path):
    from understudy.policies.compositions.mixture import Mixture
    from understudy.policies.load import load_policy, save_mixture

    mixture = Mixture([load_policy(run)[0] for run in runs], (0.3, 0.7))
    save_mixture(tmp_path / "mix", mixture, runs)
    record = understudy.evaluate(tmp_path / "mix", WORLD, tmp_path / "r", episodes=2, block=2, videos=0)
    rolled = understudy.rollout(tmp_path / "mix", WORLD, episodes=2, num_envs=2)
    actions, _ = act(understudy.load(tmp_path / "mix"), understudy.make(WORLD, num_envs=2), 1000)
    assert list(map(told, record.rows)) == list(map(told, rolled.rows))
    assert (actions[: record.rows[1]["length"], 1] == rolled.actions[1001]).all()

    made = understudy.load(mixture.eval(), n_action_steps=4, world=WORLD)  # never saved
    assert (act(made, understudy.make(WORLD, num_envs=2), 1000)[0] == actions).all()
    with pytest.raises(ValueError, match="a record names the checkpoint"):
        understudy.evaluate(made, WORLD, tmp_path / "none")


def test_a_chunk_begins_with_what_is_done_next(runs):
    policy, env = understudy.load(runs[0]), understudy.make(WORLD)
    obs, _ = env.reset(seed=1003)
    policy.reset(env_seed=1003)
    for step in range(12):
        chunk = policy.predict_action_chunk(obs)
        assert chunk.shape == (8, 2) and (chunk == policy.predict_action_chunk(obs)).all(), "asking changes nothing"
        action = policy.select_action(obs)
        if step % 4 == 0:
            promised = chunk[:4]
        assert (action == promised[step % 4]).all(), step
        obs = env.step(action)[0]
    env.close()


def test_without_seeds_each_episode_has_noise_of_its_own(runs):
    policy = understudy.load(runs[0])
    obs = {STATE: np.zeros(2, np.float32), SCENE: np.ones(2, np.float32)}
    first = policy.select_action(obs)
    policy.reset()
    second = policy.select_action(obs)
    again = understudy.load(runs[0])
    assert (first != second).any() and (again.select_action(obs) == first).all()


def test_answers_come_as_the_question_did(runs):
    import torch

    policy = understudy.load(runs[0])
    obs = {STATE: torch.zeros(3, 2, dtype=torch.float64), SCENE: torch.ones(3, 2), "task": ["x"] * 3}
    action = policy.select_action(obs)
    assert isinstance(action, torch.Tensor) and action.shape == (3, 2) and action.dtype == torch.float32
    policy.reset(env_seed=[0, 1, 2])
    plain = policy.select_action({key: np.asarray(obs[key], np.float32) for key in (STATE, SCENE)})
    assert isinstance(plain, np.ndarray) and (plain == action.numpy()).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({STATE: None}, "reads 'observation.state', but the observation holds observation.environment_state"),
        ({STATE: np.zeros(3)}, r"'observation.state' must be \(2,\).*the numbers x, y; got \(3,\)"),
        ({STATE: np.zeros((4, 2))}, "of equally many; got 'observation.state' 4, "),
        ({STATE: np.array([0, np.nan])}, r"'observation.state' is not finite: 'y' is \[nan\]"),
        ({STATE: np.array(["a", "b"])}, "'observation.state' must hold numbers, got <U1"),
    ],
)
def test_a_wrong_observation_is_refused_at_the_door(runs, change, said):
    obs = {STATE: np.zeros(2), SCENE: np.zeros(2)} | change
    with pytest.raises(ObservationError, match=said):
        understudy.load(runs[0]).select_action({key: value for key, value in obs.items() if value is not None})


def test_other_numbers_of_environments_and_settings_are_refused(runs):
    policy = understudy.load(runs[0])
    policy.select_action({STATE: np.zeros((2, 2)), SCENE: np.zeros((2, 2))})
    with pytest.raises(ValueError, match="acts in 2 environments since its reset, got observations of 1"):
        policy.select_action({STATE: np.zeros(2), SCENE: np.zeros(2)})
    with pytest.raises(ValueError, match="no setting 'n_action_step'. Did you mean 'n_action_steps'"):
        understudy.load(runs[0], n_action_step=4)
    with pytest.raises(FileNotFoundError):
        understudy.load("no/such/place/here")
    with pytest.raises(ValueError, match="embodiments differ in mode"):
        understudy.load(runs[0], world="pusht")


def test_pictures_of_a_dataset_are_taken_as_a_world_gives_them():
    body = dataclasses.replace(read_world("point").embodiment(), cameras={"top": (4, 6)})
    key = "observation.images.top"
    drawn = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    stored = np.moveaxis(drawn, -1, 0).astype(np.float32) / 255
    for picture in (drawn, drawn[None], stored, stored[None]):
        seen = read_observation({key: picture}, (key,), body)
        assert (seen.values[key] == drawn[None]).all() and seen.single == (picture.ndim == 3)
    with pytest.raises(ObservationError, match="got floats in 0..255"):
        read_observation({key: np.array([0, 255.0, 3]) * np.ones((4, 6, 3))}, (key,), body)


@pytest.mark.parametrize("name", ["point", "pusht"])
def test_a_world_is_a_gymnasium_environment(name):
    from gymnasium.error import ResetNeeded
    from gymnasium.utils.env_checker import check_env

    env = understudy.make(name)
    with pytest.warns(UserWarning):  # it advises bounded spaces and a spec
        check_env(env)
    assert env.render().dtype == np.uint8
    obs, info = env.reset(seed=1000)
    vector = understudy.make(name, num_envs=2)
    both, _ = vector.reset(seed=1000)
    assert all((both[key][0] == obs[key]).all() for key in obs) and env.observation_space.contains(obs)
    with pytest.raises(ValueError, match=r"an action is \(2,\), the numbers x, y; got \(3,\)"):
        env.step(np.zeros(3))
    with pytest.raises(ResetNeeded):
        understudy.make(name).step(np.zeros(2))
    for one in (env, vector):
        one.close()


def test_worlds_are_made_of_what_names_them(tmp_path):
    assert understudy.make("point", horizon=7).lane.horizon == 7
    (tmp_path / "eval.yaml").write_text("world: {type: point, horizon: 9}\nepisodes: 3\n")
    assert understudy.make(tmp_path / "eval.yaml").lane.horizon == 9
    with pytest.raises(ValueError, match="world 'point' has no setting 'horizn'. Did you mean 'horizon'"):
        understudy.make("point", horizn=7)
    with pytest.raises(LookupError, match="Did you mean 'point'"):
        understudy.make("piont")


def test_rollouts_say_how_it_went(runs):
    tried = understudy.rollout("expert", "point", episodes=6, films=2, keep=True)
    assert len(tried) == 6 == tried.successes == len(tried.episodes) and tried.success.low > 0.5
    assert [row["env_seed"] for row in tried.rows] == list(range(1000, 1006))
    film = tried.films[1000]
    assert film.dtype == np.uint8 and len(film) == tried.rows[0]["length"] + 1
    assert "6 of 6, Wilson 95 %" in repr(tried) and tried._repr_html_().count("<video") == 2
    with pytest.raises(LookupError, match="expert"):
        understudy.rollout("expert", {"type": "gym", "id": "CartPole-v1"}, episodes=1)


def test_comparing_says_a_minus_b(runs, tmp_path):
    good = understudy.rollout("expert", "point", episodes=20)
    poor = understudy.rollout(runs[0], "point", episodes=20)
    verdict = understudy.compare(good, poor, out=tmp_path / "page")
    other = understudy.compare(poor, good)
    assert (verdict.better, other.better) == ("A", "B") and verdict.p < 0.01
    assert verdict.success.estimate == pytest.approx((good.successes - poor.successes) / 20)
    assert verdict.success.low > 0 > other.success.high and verdict.success.estimate == -other.success.estimate
    assert verdict.progress.estimate > 0 and (tmp_path / "page" / "compare.json").is_file()
    assert "success, A - B" in repr(verdict) and "<table>" in verdict._repr_html_()


def test_policies_are_compared_in_a_world(runs, tmp_path):
    verdict = understudy.compare(*runs, WORLD, episodes=8)
    assert (
        verdict.n == 8
        and verdict.better is None
        and {c.title for c in verdict.comparison.contestants} == {f"{run} (diffusion, step 40)" for run in runs}
    )
    live = understudy.compare(*runs, WORLD, episodes=6, until_decided=True, out=tmp_path / "live", videos=0)
    assert live.folder == tmp_path / "live" and live.n <= 6 and live.p is None and live.says
    with pytest.raises(ValueError, match="give a world"):
        understudy.compare(*runs)
    with pytest.raises(ValueError, match="one of the two is a record"):
        understudy.compare(tmp_path / "live" / "a", runs[0], WORLD)
    assert understudy.compare(tmp_path / "live" / "a", tmp_path / "live" / "b").n == live.n


def test_training_from_python(tmp_path, command):
    status, _, err = command("demos", "point", "--episodes", 6, "--out", tmp_path / "data")
    assert status == 0, err
    policy = {"type": "diffusion", "inputs": [STATE, SCENE], "network": {"type": "mlp", "width": 16, "depth": 1}}
    run = understudy.train(
        data=tmp_path / "data", out=tmp_path / "run", policy=policy, policy__n_action_steps=2, steps=6, batch=8,
        save_every=3, log_every=2, threads=1,
    )  # fmt: skip
    assert run.path == tmp_path / "run" and list(run.checkpoints) == [3, 6] and run.curve()[0] == [2, 4, 6]
    assert run.policy().n_action_steps == 2 and run.policy(3, n_action_steps=5).n_action_steps == 5
    assert "diffusion on" in repr(run) and "6 of 6" in repr(run)
    assert understudy.train(resume=run.path, steps=8).curve()[0][-1] == 8
    assert understudy.rollout(run, "point", episodes=2).title.startswith(str(run.path))
    with pytest.raises(FileNotFoundError, match="no checkpoint '5'"):
        run.policy(5)
    with pytest.raises(ValueError, match="unknown setting 'stesp'. Did you mean 'steps'"):
        understudy.train(data=tmp_path / "data", policy=policy, stesp=6)

    dataset = understudy.open_dataset(tmp_path / "data")
    assert "6 episodes" in repr(dataset) and "x [m/s], y [m/s]" in dataset._repr_html_()


def test_reprs_fit_a_screen(runs, tmp_path):
    record = understudy.evaluate(runs[0], WORLD, tmp_path / "r", episodes=3, videos=0)
    policy = understudy.load(runs[0])
    for shown in (record, policy, understudy.read_record(tmp_path / "r")):
        text = repr(shown)
        assert len(text.splitlines()) <= 8 and "pyarrow" not in text and shown._repr_html_().startswith("<table>")
    assert "diffusion, step 40" in repr(policy) and "plans    8 actions, executes 4; 20 Hz" in repr(policy)
