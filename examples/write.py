"""Let a masked diffusion model write: a sample, and a gap filled from both sides, with the order of writing.

python examples/write.py runs/quickstart
"""

import sys

import anyorder
from anyorder import GAP


def main(run: str) -> None:
    model = anyorder.load(run)
    for made in model.sample("def ", n=2, seed=1):
        print(f"{made.nfe} passes, log p = {made.logp:.1f} nats\n{made.text}\n")

    filled = model.infill(["def add(a, b):", GAP(6), "a + b\n"], sampler="top-prob")[0]
    for step in range(max(filled.order) + 2):
        print(step, repr(filled.at(step)))


if __name__ == "__main__":
    main(sys.argv[1])
