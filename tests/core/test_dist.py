"""Ranks: alone nothing happens; launched as two processes, sums are over both."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from anyorder.core import dist

SCRIPT = """
import torch
from anyorder.core import dist
dist.start()
dist.start()
mine = torch.tensor([dist.rank() + 1.0, 1e-17], dtype=torch.float64)
total = dist.all_sum(mine)
dist.barrier()
print(dist.rank(), dist.world(), mine.tolist(), total.tolist(), flush=True)
torch.distributed.destroy_process_group()
"""


def test_one_process_needs_no_set_up(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    dist.start()
    assert (dist.rank(), dist.world()) == (0, 1)
    value = torch.tensor([2.0])
    assert dist.all_sum(value) is value
    dist.barrier()
    monkeypatch.setenv("WORLD_SIZE", "1")
    dist.start()
    assert not torch.distributed.is_initialized()


@pytest.mark.slow  # by default tests/train/test_resume.py and tests/rl/test_ranks.py sum over two processes
def test_two_processes_sum_over_both():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    base = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, **base, "RANK": str(r), "LOCAL_RANK": str(r)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for r in range(2)
    ]
    lines = [p.communicate(timeout=600)[0] for p in ranks]
    assert lines == [f"{r} 2 [{r + 1}.0, 1e-17] [3.0, 2e-17]\n" for r in range(2)]
