"""The predictor of weights from denoising errors: closed forms on planted residuals, policies on demonstrations."""

import numpy as np
import pytest
import torch

from understudy.configs.spec import SCENE, STATE, Window
from understudy.eval.compose.gram import Error, Residuals, least, predict, r_squared, residuals
from understudy.eval.compose.predicted import predict_weights, unseen
from understudy.eval.demos.demos import Demos
from understudy.policies.compositions.mixture import Mixture
from understudy.policies.data.dataset import split_episodes
from understudy.policies.data.open import open_dataset
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.models.flow import FlowConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import Scales

LEVELS = (0.2, 1.0, 5.0)


def closed_form(b1, b2, noise1, noise2, common):
    """w* of Proposition 4.1: biases b (D,), noise variances E|n|^2 and E<n1, n2>."""
    spread = ((b1 - b2) ** 2).sum() + noise1 + noise2 - 2 * common
    return (noise2 - common - b2 @ (b1 - b2)) / spread


def planted(biases, factors, episodes=40, windows=8, tokens=4, dims=2, seed=0, valid=None):
    """Batches of models whose estimates are off by s times (a bias + factors @ shared normals), at every level s."""
    generator = torch.Generator().manual_seed(seed)
    draws = len(factors[0])
    for episode in range(episodes):
        clean = torch.randn(windows, tokens, dims, generator=generator)
        off = torch.randn(draws, windows, tokens, dims, generator=generator)

        def denoise(y, s, clean=clean, off=off):
            return torch.stack(
                [
                    clean + s * (torch.tensor(b) + torch.einsum("d,dbtk->btk", torch.tensor(f), off))
                    for b, f in zip(biases, factors, strict=True)
                ]
            )

        counts = torch.ones(windows, tokens, dtype=torch.bool) if valid is None else valid
        yield clean, counts, torch.full((windows,), episode), denoise


@pytest.mark.parametrize(
    ("b1", "b2", "f1", "f2"),
    [
        ((0.3, 0.0), (-0.2, 0.0), (0.5, 0.0), (0.0, 0.6)),  # biases that cancel, independent noise
        ((0.0, 0.0), (0.0, 0.0), (0.5, 0.1), (0.1, 0.9)),  # correlated noise, no bias
        ((0.1, 0.0), (0.9, 0.0), (0.3, 0.0), (0.3, 0.3)),  # the second is worse in every way
    ],
)
def test_the_closed_form_of_proposition_4_1(b1, b2, f1, f2):
    found = residuals(planted((b1, b2), (f1, f2), episodes=400), LEVELS)
    one, two, both = (2 * np.dot(f, g) for f, g in ((f1, f1), (f2, f2), (f1, f2)))  # summed over both dimensions
    wanted = np.clip(closed_form(np.array(b1), np.array(b2), one, two, both), 0, 1)
    said = predict(found, Error.epsilon, np.random.default_rng(0), draws=200)
    assert said.weights[0] == pytest.approx(wanted, abs=0.03) and sum(said.weights) == pytest.approx(1)
    assert said.intervals[0].low <= said.weights[0] <= said.intervals[0].high
    strictly = 0.02 < wanted < 0.98
    assert (said.gain > 0.01) == strictly and said.q(said.weights) <= min(said.q((1, 0)), said.q((0, 1))) + 1e-12


def test_coordinates_of_the_error():
    """A residual of s times a constant is that constant in epsilon."""
    found = residuals(planted(((0.5, 0.0), (0.0, 0.25)), ((0.0,), (0.0,)), episodes=2), LEVELS)
    squares = np.array([0.25, 0.0625]) / 2  # a mean over two dimensions
    assert np.diag(found.gram(Error.epsilon)) == pytest.approx(squares, rel=1e-5)
    s = np.array(LEVELS)
    assert np.diag(found.gram(Error.x0)) == pytest.approx(squares * (s**2).mean(), rel=1e-5)
    assert np.diag(found.gram(Error.v)) == pytest.approx(squares * (1 + s**2).mean(), rel=1e-5)
    assert found.gram(Error.x0)[0, 1] == 0


def test_only_tokens_that_count_are_counted():
    valid = torch.tensor([[True, True, False, False]] * 8)
    few = residuals(planted(((0.5, 0.0), (0.0, 0.2)), ((0.3, 0.0), (0.0, 0.3)), episodes=3, valid=valid), LEVELS)
    assert few.count.tolist() == [8 * 2 * 2] * 3

    def spoilt():
        for clean, counts, episode, denoise in planted(
            ((0.5, 0.0), (0.0, 0.2)), ((0.3, 0.0), (0.0, 0.3)), episodes=3, valid=valid
        ):
            huge = torch.where(valid, 0.0, 1e6)[None, ..., None]
            yield clean, counts, episode, lambda y, s, denoise=denoise, huge=huge: denoise(y, s) + huge

    assert np.allclose(residuals(spoilt(), LEVELS).products, few.products)
    with pytest.raises(ValueError, match="share no future token"):
        residuals(planted(((0.0,), (0.0,)), ((0.1,), (0.1,)), dims=1, valid=~torch.ones(8, 4, dtype=bool)), LEVELS)


def test_the_least_point_of_the_simplex_is_exact():
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(40, 3, 3)) + np.eye(3)
    grams = roots @ roots.transpose(0, 2, 1)
    found = least(grams)
    fine = np.array([(i, j, 60 - i - j) for i in range(61) for j in range(61 - i)]) / 60
    brute = np.einsum("ni,bij,nj->bn", fine, grams, fine).min(1)
    ours = np.einsum("bi,bij,bj->b", found, grams, found)
    assert (found >= 0).all() and np.allclose(found.sum(1), 1) and (ours <= brute + 1e-12).all()
    assert (ours >= brute - 0.02 * np.abs(brute) - 0.02).all()
    assert (found == 0).any() and ((found > 0).all(1)).any(), "faces and insides both occur"
    assert least(np.ones((2, 2))).sum() == pytest.approx(1), "equal parents"


def test_the_interval_over_episodes_covers():
    """Residuals with a bias of their own in each episode: nominal 95 %, episodes few."""
    rng, hits, runs = np.random.default_rng(1), 0, 150
    spread1, spread2, within = 0.6, 0.8, 0.4
    wanted = spread2**2 / (spread1**2 + spread2**2)  # both have the same noise inside an episode, which drops out
    for _ in range(runs):
        own = rng.normal(size=(30, 2, 1)) * np.array([spread1, spread2])[:, None]
        values = own + within * rng.normal(size=(30, 1, 20))
        found = Residuals((values @ values.transpose(0, 2, 1))[:, None], np.full(30, 20.0), np.ones(1))
        low, _, high = predict(found, Error.epsilon, rng, draws=300).intervals[0]
        hits += low <= wanted <= high
    assert hits / runs > 0.88


def test_one_episode_is_not_enough():
    with pytest.raises(ValueError, match="at least two"):
        predict(Residuals(np.ones((1, 1, 2, 2)), np.ones(1), np.ones(1)), Error.x0, np.random.default_rng(0))


def test_r_squared():
    gram, weights = [[1.0, 0.2], [0.2, 2.0]], [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]
    errors = [2.0, 0.85, 1.0]
    assert r_squared(weights, errors, gram) == pytest.approx(1)
    assert r_squared(weights, errors[::-1], gram) < 0.5


# -- real policies on demonstrations


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demos") / "point"
    Demos(task="point", episodes=6, out=str(folder)).run()
    return folder


def policies(dataset, scale=1.0):
    """A diffusion and a flow policy with other windows; `scale` of the second one's action space."""
    kinds = (DiffusionConfig, Window(observe=(-1, 0), horizon=8)), (FlowConfig, Window(observe=(0,), horizon=6))
    for seed, (kind, window) in enumerate(kinds):
        torch.manual_seed(seed)
        states = {key: (np.zeros(2), np.ones(2)) for key in (STATE, SCENE)}
        reach = scale if seed else 1.0
        network = MLPConfig(width=16, depth=1, condition_width=8)
        config = kind(window=window, inputs=(STATE, SCENE)[: 2 - seed], network=network, n_action_steps=4)
        yield config.build(dataset.embodiment, Scales(((-reach,) * 2, (reach,) * 2), states)).eval()


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_mixtures_do_what_the_quadratic_says(demos, tmp_path, scale):
    dataset = open_dataset(demos)
    mixture = Mixture(list(policies(dataset, scale)), (0.5, 0.5))
    found = predict_weights(mixture, (str(tmp_path / "a"), str(tmp_path / "b")), str(demos), windows=40)
    assert found.r_squared > 0.9999 and len(found.checked) == 6
    for _, measured, quadratic in found.checked:
        assert measured == pytest.approx(quadratic, rel=1e-4)
    assert found.prediction.episodes == 6 and "do not say what they were trained on" in found.prediction.about
    assert {found.prediction.error, *(one.error for one in found.others)} == set(Error)
    assert found.prediction.q(found.prediction.weights) <= min(np.diag(found.prediction.gram)) + 1e-9


def test_the_parents_error_is_what_asking_them_gives(demos, tmp_path):
    """One parent alone: its field on the same noise, tokens and levels."""
    from understudy.eval.compose.gram import noisy_batches

    dataset = open_dataset(demos)
    first, second = policies(dataset)
    mixture = Mixture([first, second], (0.5, 0.5))
    from understudy.eval.compose.predicted import spread
    from understudy.policies.data.windows import Windows
    from understudy.policies.policy import past_of

    windows = Windows(dataset, Window(observe=(-1, 0), horizon=8), (STATE, SCENE))
    batches = list(spread(windows, 20))
    found = residuals(noisy_batches((first, second), mixture.action_scale, batches), (0.5,), seed=3)
    (batch,), generator = batches, torch.Generator().manual_seed(3)
    clean = batch["action"]
    y = clean + 0.5 * torch.randn(clean.shape, generator=generator)
    past = past_of(batch, Window(observe=(-1, 0), horizon=8), (STATE, SCENE))
    with torch.no_grad():
        rest = second.field(past.at(second.window), 1)(y[:, None, :6], 0.5)[:, 0] - clean[:, :6]
    keep = batch["action.valid"][:, :6, None].double()
    assert found.products[:, 0, 1, 1].sum() == pytest.approx(float((rest.double() ** 2 * keep).sum()), rel=1e-5)
    assert found.count.sum() == float(keep.sum() * 2)


def test_only_episodes_that_no_parent_was_trained_on(demos, tmp_path):
    dataset, paths = open_dataset(demos), []
    for seed in (0, 1):
        run = tmp_path / f"run{seed}"
        run.mkdir()
        (run / "config.yaml").write_text(f"seed: {seed}\ndata: {demos}\nvalidation: 0.67\n")
        paths.append(str(run))
    kept = set.intersection(*(set(split_episodes(dataset, 0.67, seed)[1].tolist()) for seed in (0, 1)))
    chosen, about = unseen(dataset, str(demos), paths)
    assert set(chosen.tolist()) == kept and f"{len(kept)} of 6" in about and "held out by all parents" in about
    (tmp_path / "run1" / "config.yaml").write_text(f"seed: 1\ndata: {demos}\nvalidation: 0.01\n")
    with pytest.raises(ValueError, match="record fresh ones"):
        unseen(dataset, str(demos), paths)
    (tmp_path / "run1" / "config.yaml").write_text("seed: 1\ndata: elsewhere\n")
    (tmp_path / "run0" / "config.yaml").write_text("seed: 0\ndata: elsewhere\n")
    assert len(unseen(dataset, str(demos), paths)[0]) == 6
