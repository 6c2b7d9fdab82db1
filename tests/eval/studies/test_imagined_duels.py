"""The simulated duels: no false verdicts beyond alpha, and deterministic policies need fewer true pairs."""

from understudy.eval.studies.imagined_duels import ImaginedDuels, Model, duel


def test_a_good_model_of_deterministic_policies_saves_pairs_and_a_flatterer_does_no_harm():
    config = ImaginedDuels(runs=120, pairs=120, imagined=4000)
    plain, beside, used = duel(config, (0.5, 0.7), Model("good", 0.97))
    assert used > 0.9 and beside.when.mean() < 0.9 * plain.when.mean()
    plain, beside, used = duel(config, (0.5, 0.5), Model("flatters", 0.8, flatter=0.4))
    assert (beside.side != 0).mean() <= 0.05 + 2 * (0.05 * 0.95 / 120) ** 0.5


def test_several_dreams_of_lucky_policies_are_worth_more_than_one():
    config = ImaginedDuels(runs=60, pairs=10, imagined=4000, past=200)
    shares = [duel(config, (0.5, 0.7), Model("luck", 0.97, luck=0.25, repeats=n))[2] for n in (1, 8)]
    assert shares[1] > shares[0]
