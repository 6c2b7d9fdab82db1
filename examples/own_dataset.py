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

    # shown a recorded episode frame by frame, what would the policy do?
    policy, episode = run.policy(), 0
    rows = slice(dataset.starts[episode], dataset.starts[episode] + min(dataset.lengths[episode], 50 if quick else 500))
    states, recorded = dataset.columns["observation.state"][rows], dataset.columns["action"][rows]
    policy.reset()
    planned, before = [], None
    for state, action in zip(states, recorded, strict=True):
        planned.append(policy.select_action({"observation.state": state}, sent=before))
        before = action  # what was really executed then

    error = np.abs(np.stack(planned) - recorded).mean(0)
    guess = np.abs(recorded - recorded.mean(0)).mean(0)
    for name, unit, ours, mean in zip(
        policy.embodiment.action, policy.embodiment.action_units, error, guess, strict=True
    ):
        print(f"{name:<24} mean error {ours:.3g} {unit}; by always taking the mean action {mean:.3g}")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--quick"]
    main(words[0] if words else "lerobot/pusht", quick="--quick" in sys.argv)
