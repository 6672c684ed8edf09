"""Test T8: recorded generations keep their books, come again to the bit in float32, and go through a file."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Vocab
from anyorder.models import ModelConfig, Transformer
from anyorder.rl.likelihood import LIKELIHOODS, rescored
from anyorder.rl.rollout import replayed, roll_out
from anyorder.rl.trajectory import NEVER, Trajectory
from anyorder.samplers.base import steps
from anyorder.samplers.schedules import hand
from anyorder.samplers.steered import Steered

VOCAB = Vocab(size=12, mask_id=12, pad_id=13)
NOISE = Noise.of(12)
ROWS, LENGTH = 21, 19


@pytest.fixture(scope="module")
def network():
    """A float32 network whose answers depend on what it reads."""
    model = Transformer(ModelConfig(num_layers=2, num_heads=2, d_model=32, d_ff=32, max_length=LENGTH), VOCAB)
    model.init_weights(NOISE)
    for p in model.parameters():
        p.data.mul_(3.0)
    return model.requires_grad_(False).eval()


def questions():
    """Groups of three rows with one prompt; every third group is shorter, with padding before its prompt."""
    group = torch.arange(ROWS) // 3
    x = torch.full((ROWS, LENGTH), VOCAB.mask_id)
    x[:, 3:6] = (group[:, None] + torch.tensor([0, 4, 7])) % VOCAB.size
    x[:, :3] = torch.where(group % 3 == 0, VOCAB.pad_id, 5)[:, None]
    return Canvas.of(x, vocab=VOCAB, segment=(x != VOCAB.pad_id).long())


def drawing(kind="fill"):
    return Steered(hand("adanat", 5, guidance=2.0), order=LIKELIHOODS[kind] or "draw_first")


def record(model, sampler, noise=NOISE):
    return roll_out(model, sampler, questions(), noise=noise, policy=None, explore=False)


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_log_probabilities_come_again_to_the_bit(network, kind, tmp_path):
    sampler = drawing(kind)
    taken = record(network, sampler)
    assert replayed(kind, sampler, network, taken) == 0.0
    taken.save(tmp_path / "taken.safetensors")
    assert replayed(kind, sampler, network, Trajectory.load(tmp_path / "taken.safetensors")) == 0.0
    other = dataclasses.replace(taken, setting=taken.setting * torch.tensor([1.0, 1.0, 1.001, 1.0]))
    assert replayed(kind, sampler, network, other) > 1e-5


def test_every_open_position_is_written_once(network):
    taken, asked = record(network, drawing()), questions()
    written = torch.stack([taken.fill(t) for t in range(taken.num_steps)])
    free = asked.valid & ~asked.fixed
    assert torch.equal(written.sum(0), free.long())
    assert torch.equal(taken.written == NEVER, ~free)
    assert bool((written.sum(-1) > 0).all())
    for t in range(taken.num_steps):
        wrote, drew = taken.fill(t), taken.open(t)
        assert torch.equal(taken.token[t] >= 0, drew)
        assert torch.equal(taken.final[wrote], taken.token[t][wrote])
        assert torch.equal(taken.rank[t] >= 0, wrote)
        for ranks, row in zip(taken.rank[t], wrote):
            assert sorted(ranks[row].tolist()) == list(range(int(row.sum())))
        assert bool((taken.logp[t][drew] <= 0).all())
        assert not bool(taken.logp[t][~drew].any())
    assert taken.nfe.tolist() == [2 * taken.num_steps] * ROWS  # guided in every step


def test_the_map_of_steps_gives_back_every_canvas(network):
    taken, seen = record(network, drawing()), questions()
    for t, step in enumerate(steps(drawing(), network, seen, noise=NOISE.at("draws"))):
        before = taken.before(t, vocab=VOCAB)
        assert torch.equal(before.x, seen.x)
        for field in ("fixed", "segment"):
            assert torch.equal(getattr(before, field), getattr(seen, field)), field
        assert torch.equal(taken.fill(t), step.wrote)
        seen = step.canvas
    assert torch.equal(taken.final, seen.x)


def test_a_file_gives_back_every_bit(network, tmp_path):
    taken, path = record(network, drawing()), tmp_path / "taken.safetensors"
    taken.save(path)
    again = Trajectory.load(path)
    for field in dataclasses.fields(Trajectory):
        got, want = getattr(again, field.name), getattr(taken, field.name)
        assert got.dtype == want.dtype, field.name
        assert torch.equal(got, want), field.name
    assert load_file(path)["token"].dtype == torch.int32
    save_file({"token": taken.token}, path)
    with pytest.raises(ValueError, match="holds no trajectory"):
        Trajectory.load(path)


def test_some_rows_are_scored_as_among_all(network):
    sampler, taken = drawing(), record(network, drawing())
    index = torch.tensor([20, 3, 4])
    for t in range(taken.num_steps):
        whole = rescored("augmented", sampler, network, taken, t)[index]
        part = rescored("augmented", sampler, network, taken.rows(index), t)
        torch.testing.assert_close(part, whole, atol=1e-5, rtol=0)


def test_members_of_a_group_share_passes_but_not_their_noise(network):
    taken = record(network, drawing())
    groups = taken.final.view(-1, 3, LENGTH)
    assert not any(torch.equal(group[0], group[1]) for group in groups)
    assert not torch.equal(record(network, drawing(), noise=Noise.of(13)).final, taken.final)
