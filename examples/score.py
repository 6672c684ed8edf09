"""Which of two texts does a model find likelier? Bits per byte, with the standard error of the estimate.

python examples/score.py runs/quickstart
"""

import sys

import anyorder

TEXTS = ["def add(a, b):\n", "def ads(z, q;:\n"]


def main(run: str) -> None:
    for text, score in zip(TEXTS, anyorder.load(run).score(TEXTS, draws=64), strict=True):
        print(f"{score.bits_per_byte:.3f} ± {score.bits_per_byte_stderr:.3f} bits/byte  {text!r}  ({score.estimator})")


if __name__ == "__main__":
    main(sys.argv[1])
