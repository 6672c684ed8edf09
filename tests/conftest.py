"""One thread per test process: two workers on two cores must not fight, nor sums depend on how many there are."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
