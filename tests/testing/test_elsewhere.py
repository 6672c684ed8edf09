"""The device that is not the CPU: it computes what the CPU does, and refuses what a GPU refuses."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from anyorder.core.noise import Noise
from anyorder.testing.elsewhere import Away, elsewhere

X = Noise.of(1).normal(torch.arange(4)[:, None], torch.arange(6)).float()


@pytest.fixture
def device():
    with elsewhere() as made:
        yield made


def trained(x, device):
    """A network's loss, gradients and weights after two steps."""
    net = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 3))
    for name, p in net.named_parameters():
        p.data.copy_(Noise.of(2).at(name).normal(torch.arange(p.numel())).view(p.shape))
    net.to(device)
    optimizer, losses = torch.optim.AdamW(net.parameters(), lr=0.1), []
    for _ in range(2):
        loss = F.cross_entropy(net(x), torch.tensor([0, 1, 2, 0], device=device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, [p.grad.cpu() for p in net.parameters()], [p.detach().cpu() for p in copy.deepcopy(net).parameters()]


def test_learning_is_that_of_the_cpu_to_the_bit(device):
    there, here = trained(X.to(device), device), trained(X, "cpu")
    assert there[0] == here[0]
    for a, b in zip(there[1] + there[2], here[1] + here[2], strict=True):
        assert type(a) is torch.Tensor
        assert torch.equal(a, b)


def test_what_is_made_there_or_moved_there_lies_there(device):
    made = [torch.tensor([1, 2], device=device), torch.arange(3, device=device), torch.zeros(2, device=device)]
    made += [X.to(device), torch.zeros_like(made[0]), made[0].new_tensor([3]), made[0].float(), made[1][made[1] > 0]]
    assert all(isinstance(t, Away) and t.device == device for t in made)
    assert [t.tolist() for t in made[:3]] == [[1, 2], [0, 1, 2], [0.0, 0.0]]
    assert (made[5].tolist(), made[7].tolist(), int(made[1].sum())) == ([3], [1, 2], 3)
    assert type(made[0].cpu()) is torch.Tensor


def test_changes_in_place_are_seen_through_views(device):
    x = X.to(device)
    x[1:, 0] = 7.0
    x[torch.tensor([0])] = 2.0
    x.view(-1)[-1].add_(1.0)
    y = X.clone()
    y[1:, 0] = 7.0
    y[0] = 2.0
    y[-1, -1] += 1.0
    assert torch.equal(x.cpu(), y)
    y.copy_(x * 2)
    assert torch.equal(y, x.cpu() * 2)


WRONG = {
    "sum": lambda x: x + X,
    "mask": lambda x: x.masked_fill(X > 0, 0.0),
    "index of the cpu's tensor": lambda x: X[(x[:, 0] > 0)],
    "value that is put": lambda x: x.index_put_((torch.tensor([0]),), X[:1]),
    "join": lambda x: torch.cat([x, X]),
    "stacked number": lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
    "sum into the cpu's": lambda x: torch.tensor(1.0).add_(x.sum()),
    "linear": lambda x: nn.Linear(6, 2)(x),
}


@pytest.mark.parametrize("name", WRONG)
def test_tensors_of_both_devices_do_not_meet(device, name):
    with pytest.raises(RuntimeError, match="on one device"):
        WRONG[name](X.to(device))


def test_what_a_gpu_allows_is_allowed(device):
    x, rows = X.to(device), torch.tensor([2, 0])
    assert torch.equal((x * torch.tensor(2.0)).cpu(), X * 2)
    assert torch.equal(x[rows].cpu(), X[rows])
    with pytest.raises(TypeError, match="cpu"):
        x.numpy()
