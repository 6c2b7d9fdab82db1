"""A LeRobot dataset of one's own: look at it, train on it, and see how well recorded actions are predicted.

    python examples/own_dataset.py DATASET [--quick]

DATASET is a folder (v2.0 to v3.0) or a name on the hub, such as lerobot/pusht. No simulator is needed. For the pages:
understudy inspect DATASET
"""

import sys

import numpy as np

import understudy


def main(source: str, quick: bool = False) -> None:
    dataset = understudy.open_dataset(source)
    print(dataset)

    # states and actions alone; diffusion with its defaults
    run = understudy.train(
        data=source,
        out="out/own_dataset",
        policy={"type": "diffusion", "inputs": ["observation.state"]},
        validation=0.2,  # part of the episodes that is held out
        steps=20 if quick else 20_000,
    )
    print(run)

    # shown an episode that it was not trained on, frame by frame: what would it do, and what was done?
    policy, episode = run.policy(), run.held_out(dataset)[0]
    first, length = dataset.starts[episode], min(dataset.lengths[episode], 50 if quick else 500)
    states = dataset.columns["observation.state"][first : first + length]
    actions = dataset.columns["action"][first : first + length]
    policy.reset()
    planned = [
        policy.select_action({"observation.state": state}, sent=None if step == 0 else actions[step - 1])
        for step, state in enumerate(states)
    ]

    errors = np.abs(planned - actions).mean(0)
    guesses = np.abs(dataset.columns["action"].mean(0) - actions).mean(0)
    body = policy.embodiment
    for name, unit, error, guess in zip(body.action, body.action_units, errors, guesses, strict=True):
        print(f"{name:<24} [{unit}]  mean error {error:.3g}; by always taking the mean action {guess:.3g}")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--quick"]
    main(words[0] if words else "lerobot/pusht", quick="--quick" in sys.argv)
