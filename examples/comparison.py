"""Which of two policies is better? Both act from the same initial conditions, and the difference has an interval.

    python examples/comparison.py [--quick]

A minute or two on a CPU, and it is decided; with --quick seconds, on too few episodes to decide anything.
"""

import sys

import understudy

INPUTS = ["observation.state", "observation.environment_state"]


def main(quick: bool = False) -> None:
    understudy.demos("point", "out/comparison/data", episodes=4 if quick else 30)

    # two ways to learn from the same demonstrations
    runs = {}
    for kind in ("diffusion", "regression"):
        runs[kind] = understudy.train(
            data="out/comparison/data",
            out=f"out/comparison/{kind}",
            policy={"type": kind, "inputs": INPUTS, "network": {"type": "mlp", "width": 64, "depth": 2}},
            steps=30 if quick else 200,
        )
    a, b = runs["diffusion"].policy(), runs["regression"].policy()
    print(a)

    # a number of pairs fixed beforehand: one look at the end, and the p-value holds
    verdict = understudy.compare(a, b, "point", episodes=10 if quick else 200, out="out/comparison/fixed")
    print(verdict)

    # or stop as soon as it is decided: the test allows for looking after every pair
    most, videos = (10, 0) if quick else (500, 6)
    live = understudy.compare(
        a, b, "point", until_decided=True, episodes=most, videos=videos, out="out/comparison/live"
    )
    print(live.better or "nobody", "is better:", live.says)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
