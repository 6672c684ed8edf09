"""Caches against the same network without one: exact where they say so, and how far off where they do not."""

import dataclasses

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Vocab, take_rows
from anyorder.guidance.classifier_free import ClassifierFree
from anyorder.models import ModelConfig, Transformer, memory
from anyorder.models.cache import BlockCache, CausalCache, with_cache
from anyorder.models.cache_error import CacheError, Reading, kl_divergence
from anyorder.samplers.base import generate
from anyorder.samplers.presets import make_sampler
from anyorder.testing.contracts import CountingDenoiser

VOCAB = Vocab(size=9, mask_id=9, pad_id=10, eos_id=8)
SIZE = ModelConfig(num_layers=3, num_heads=4, num_kv_heads=2, d_model=32, d_ff=40, max_length=96, qkv_bias=True)
NOISE = Noise.of(4)
MASK = VOCAB.mask_id


def network(*, causal, shifted=False):
    """Random weights three times as large as usual, so that every token matters to every other."""
    size = SIZE.model_copy(update={"causal": causal, "shift_logits": shifted})
    model = Transformer(size, VOCAB).requires_grad_(False).eval()
    model.init_weights(NOISE.at("weights"))
    for p in model.parameters():
        p.data.mul_(3.0 if p.ndim > 1 else 1.0)
    return model


def tokens_of(rows, length, *, name="x"):
    return (NOISE.at(name).uniform(torch.arange(rows)[:, None], 0, torch.arange(length)) * VOCAB.size).long()


def canvas_of(x, *, row_id=None, segment=None, window=None):
    canvas = Canvas.of(x, vocab=VOCAB, row_id=row_id, segment=segment)
    return canvas if window is None else dataclasses.replace(canvas, window=window)


def points(x, *places):
    """True at the named columns, one list of them a row."""
    at = torch.zeros_like(x, dtype=torch.bool)
    for row, columns in enumerate(places):
        at[row, columns] = True
    return at


def between(x, begin, end):
    column = torch.arange(x.shape[1])
    return ((column >= begin) & (column < end)).expand(x.shape)


def check(cached, model, canvas, at, *, atol=1e-5):
    torch.testing.assert_close(cached(canvas, at), model(canvas, at), atol=atol, rtol=1e-5)


class Watched:
    """Counts the columns that blocks compute."""

    def __init__(self, monkeypatch):
        self.columns = []
        plain = memory.columns_mask_of

        def counted(model, columns, segment):
            self.columns.append(tuple(columns.at.shape))
            return plain(model, columns, segment)

        monkeypatch.setattr(memory, "columns_mask_of", counted)

    def taken(self):
        seen, self.columns = self.columns, []
        return seen


@pytest.fixture
def watched(monkeypatch):
    return Watched(monkeypatch)


def test_a_causal_cache_computes_each_column_once(watched):
    model = network(causal=True)
    cached, x = CausalCache(model), tokens_of(3, 80)
    for length, expected in ((5, (3, 5)), (6, (3, 1)), (7, (3, 1)), (70, (3, 63)), (71, (3, 1)), (80, (3, 9))):
        part = canvas_of(x[:, :length])
        check(cached, model, part, points(part.x, *[[length - 1]] * 3))
        assert watched.taken() == [expected]


def test_a_causal_cache_answers_anywhere_again_and_everywhere():
    model = network(causal=True)
    cached, x = CausalCache(model), tokens_of(2, 20)
    for places in ([[19], [19]], [[3], [7, 9]], [[0, 19], [18]], [list(range(20)), [5]], [[10], []], [[], []]):
        check(cached, model, canvas_of(x), points(x, *places))


def test_rows_at_different_positions_with_padding_behind_them(watched):
    """As `samplers.causal` asks: columns up to the furthest position, the rest of each row padded."""
    model = network(causal=True)
    cached, x = CausalCache(model), tokens_of(4, 40)
    now = [3, 17, 1, 9]
    for _ in range(12):
        end = max(now) + 1
        segment = (torch.arange(end) <= torch.tensor(now)[:, None]).long()
        check(cached, model, canvas_of(x[:, :end], segment=segment), points(x[:, :end], *[[i] for i in now]))
        now = [i + 1 for i in now]
    assert watched.taken() == [(4, 18)] + [(4, 1)] * 11


def test_packed_documents_and_padding_before_the_text():
    model = network(causal=True)
    cached, x = CausalCache(model), tokens_of(3, 16)
    segment = torch.tensor([[1] * 5 + [2] * 11, [0] * 4 + [1] * 12, [1] * 8 + [0] * 3 + [2] * 5])
    for length in range(12, 17):
        part = canvas_of(x[:, :length], segment=segment[:, :length])
        check(cached, model, part, points(part.x, *[[length - 1]] * 3))
    moved = torch.tensor([[1] * 9 + [2] * 7, [0] * 4 + [1] * 12, [1] * 16])
    check(cached, model, canvas_of(x, segment=moved), points(x, [15], [15], [15]))


def test_rows_leave_come_back_change_order_and_change_their_past(watched):
    model = network(causal=True)
    cached, x = CausalCache(model), tokens_of(5, 30)
    at = points(x[:, :20], *[[19]] * 5)
    whole = canvas_of(x[:, :20])
    check(cached, model, whole, at)
    for rows in ([0, 2, 4], [4, 2], [3, 1, 0, 4, 2], [1], [1, 3], [1, 3], [0, 1, 2, 3, 4]):
        watched.taken()
        check(cached, model, take_rows(whole, torch.tensor(rows)), at[rows])
        assert watched.taken() == [(len(rows), 1)]
    other = x[:, :20].clone()
    other[2, 15] = (other[2, 15] + 1) % VOCAB.size
    check(cached, model, canvas_of(other), at)
    assert watched.taken() == [(5, 4)]  # the token at 15 is read by column 16
    check(cached, model, whole, at)


def test_rows_that_stay_together_are_moved_side_by_side():
    model = network(causal=True)
    cached, x = CausalCache(model), tokens_of(4, 9)
    for length, rows in ((6, [0, 1, 2, 3]), (7, [3, 1]), (8, [3, 1]), (9, [3, 1]), (9, [0, 1, 2, 3])):
        canvas = take_rows(canvas_of(x[:, :length]), torch.tensor(rows))
        check(cached, model, canvas, points(canvas.x, *[[length - 1]] * len(rows)))
        slots = [i for row in rows for i, slot in enumerate(cached.memory._slots) if slot.row_id == row]
        assert slots == [0, 1] or length < 8 or len(rows) == 4


def test_random_scenarios_of_a_causal_cache():
    model = network(causal=True)
    cached, x = CausalCache(model), tokens_of(6, 24)
    for turn in range(40):
        u = NOISE.at("turn").uniform(turn, 0, torch.arange(40)).tolist()
        rows = [i for i in range(6) if u[i] < 0.6] or [0]
        rows.sort(key=lambda i: u[6 + i])
        for i in rows:  # now and then a past token is another one
            if u[12 + i] < 0.1:
                x[i, int(u[18 + i] * 24)] = int(u[24 + i] * VOCAB.size)
        part, length = x[rows], 6 + int(u[39] * 19)
        at = NOISE.at("at").uniform(turn, torch.arange(len(rows))[:, None], torch.arange(length)) < 0.1
        segment = None
        if u[38] < 0.4:
            cut = int(u[37] * length)
            segment = (torch.arange(length) < cut).long() + 1
            segment = segment.expand(len(rows), length).masked_fill(torch.arange(length) >= length - 2, 0)
        canvas = canvas_of(part[:, :length], row_id=torch.tensor(rows), segment=segment)
        check(cached, model, canvas, at)


def test_rows_that_begin_alike_read_their_beginning_once(watched):
    """Equal rows are asked once for all; when they part, each takes up what that one has read."""
    model = network(causal=True)
    cached, x = CausalCache(model), tokens_of(1, 30).repeat(4, 1)
    x[:, 20:] = tokens_of(4, 10, name="after")
    first = canvas_of(x[:1, :21])
    check(cached, model, first, points(first.x, [20]))
    check(cached, model, canvas_of(x[:, :22]), points(x[:, :22], *[[21]] * 4))
    assert watched.taken() == [(1, 21), (4, 1)]


def test_two_rows_of_one_name_do_not_share_a_slot():
    model = network(causal=True)
    cached, x = CausalCache(model), tokens_of(1, 12).repeat(2, 1)
    x[1, 9:] = (x[1, 9:] + 1) % VOCAB.size
    same = torch.zeros(2, dtype=torch.int64)
    check(cached, model, canvas_of(x[:1, :10], row_id=same[:1]), points(x[:1, :10], [9]))
    for length in (11, 12):
        check(cached, model, canvas_of(x[:, :length], row_id=same), points(x[:, :length], *[[length - 1]] * 2))


def test_memory_is_bounded_and_old_rows_go_first():
    model = network(causal=True)
    cached = CausalCache(model)
    for first in range(0, 40, 4):
        x = tokens_of(4, 6, name=str(first))
        check(cached, model, canvas_of(x, row_id=torch.arange(first, first + 4)), points(x, *[[5]] * 4))
        assert len(cached.memory.content) <= 8
    assert {slot.row_id for slot in cached.memory._slots} == set(range(32, 40))


@pytest.mark.parametrize(
    "settings", [{}, {"stride": 7, "window": 16}, {"temperature": 0.0}, {"top_p": 0.9, "block": 5}], ids=str
)
def test_a_causal_cache_writes_the_same_text(settings):
    model, prompts = network(causal=True), tokens_of(5, 24)
    for row, length in enumerate((1, 4, 4, 9, 0)):
        prompts[row, length:] = MASK
    prompts[2] = prompts[1]
    canvas, sampler = canvas_of(prompts), make_sampler("causal", **settings)
    plain = generate(sampler, model, canvas, noise=NOISE)
    cached = generate(sampler, CausalCache(model), canvas, noise=NOISE)
    assert torch.equal(plain.canvas.x, cached.canvas.x)
    assert torch.equal(plain.nfe, cached.nfe)
    torch.testing.assert_close(plain.token_logp, cached.token_logp, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("kind", ["prefix", "dual"])
def test_a_block_that_is_the_whole_row_is_exact(kind, shifted):
    model, x = network(causal=False, shifted=shifted), tokens_of(3, 12)
    x[:, ::2] = MASK
    segment = torch.tensor([[1] * 12, [1] * 5 + [2] * 7, [0] * 2 + [1] * 8 + [0] * 2])
    canvas = dataclasses.replace(canvas_of(x, segment=segment), fixed=torch.zeros_like(x, dtype=torch.bool))
    cached = BlockCache(model, kind=kind)
    at = canvas.open(VOCAB)
    check(cached, model, take_rows(canvas, torch.tensor([0, 1])), at[:2])
    if kind == "dual":  # padding at the ends lies outside the block: nobody reads it
        check(cached, model, canvas, at)


def approximate(model, canvas, at, *, kind):
    """A block pass written again: everything outside what is recomputed stands as when the block was blank."""
    block = canvas.window & ~canvas.fixed & canvas.valid
    out = []
    for row in range(len(at)):
        columns = block[row].nonzero().squeeze(-1)
        begin, end = int(columns[0]), int(columns[-1]) + 1 if kind == "dual" else at.shape[1]
        begin = max(0, begin - int(model.config.shift_logits))
        inside = torch.zeros_like(block[row])
        inside[begin:end] = True
        blank = canvas.x[row].masked_fill(block[row], MASK)
        segment = torch.ones_like(blank) if canvas.segment is None else canvas.segment[row]
        sees = (segment[:, None] == segment) & (segment > 0) | torch.eye(len(blank), dtype=torch.bool)
        width, states = len(blank), model.embed(torch.stack([blank, canvas.x[row]]))
        for layer in model.blocks:
            normed = layer.attn_norm(states)
            c, d = model.config, model.config.d_head
            q, k, v = layer.attn.qkv(normed).split([c.num_heads * d, c.kv_heads * d, c.kv_heads * d], -1)
            q, k, v = (y.view(2, width, -1, d) for y in (q, k, v))
            turn = model.rope_cos[:width], model.rope_sin[:width]
            q, k = memory_free_rotate(q, *turn), memory_free_rotate(k, *turn)
            k = torch.stack([k[0], torch.where(inside[:, None, None], k[1], k[0])])
            v = torch.stack([v[0], torch.where(inside[:, None, None], v[1], v[0])])
            k, v = (y.repeat_interleave(c.num_heads // c.kv_heads, 2) for y in (k, v))
            scores = torch.einsum("blhk,bthk->bhlt", q, k) / d**0.5
            weight = scores.masked_fill(~sees, -torch.inf).softmax(-1)
            mixed = torch.einsum("bhlt,bthk->blhk", weight, v).reshape(2, width, -1)
            states = layer.feed(states + layer.attn.out(mixed))
        logits = model.head(model.norm(states[1]))
        if model.config.shift_logits:
            starts = torch.ones(width, dtype=torch.bool)
            starts[1:] = segment[1:] != segment[:-1]
            logits = logits[torch.arange(width) - (~starts).long()]
        out.append(logits[at[row]])
    return torch.cat(out)


def memory_free_rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos[:, None] + torch.cat([x[..., half:], x[..., :half]], -1) * sin[:, None]


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("kind", ["prefix", "dual"])
def test_block_passes_read_what_the_first_pass_left(kind, shifted, watched):
    """Blocks of different rows at different places; the first pass is exact, later ones as written again above."""
    model, x = network(causal=False, shifted=shifted), tokens_of(3, 20)
    cached = BlockCache(model, kind=kind)
    begin, end = torch.tensor([4, 10, 7]), torch.tensor([10, 16, 12])
    column = torch.arange(20)
    window = (column >= begin[:, None]) & (column < end[:, None])
    segment = torch.tensor([[1] * 20, [1] * 9 + [2] * 11, [0] * 2 + [1] * 16 + [0] * 2])
    blank = x.masked_fill(column >= begin[:, None], MASK)
    canvas = canvas_of(blank, window=window, segment=segment)
    check(cached, model, canvas, window)
    assert watched.taken() == [(3, 20)]
    written = blank.clone()
    for places in ((4, 10, 8), (6, 11, 9), (5, 15, 7)):
        for row, place in enumerate(places):
            written[row, place] = x[row, place]
        now = dataclasses.replace(canvas, x=written.clone())
        at = now.open(VOCAB) & window
        expected = approximate(model, now, at, kind=kind)
        torch.testing.assert_close(cached(now, at), expected, atol=1e-5, rtol=1e-5)
        assert watched.taken() == [(3, (6 if kind == "dual" else 16) + shifted)]
        for row in (2, 0):  # alone, in another order, in a memory that has not seen the block begin
            alone = BlockCache(model, kind=kind)(take_rows(now, torch.tensor([row])), at[[row]])
            torch.testing.assert_close(alone, expected[at.nonzero()[:, 0] == row], atol=1e-5, rtol=1e-5)
        watched.taken()
    assert (expected - model(now, at)).abs().max() > 1e-3


def test_a_prompt_inside_the_block_stays_and_questions_outside_are_answered_in_full():
    model, x = network(causal=False), tokens_of(2, 16)
    x[:, 6:] = MASK
    x[:, 9] = 3
    canvas, cached = canvas_of(x, window=between(x, 6, 12)), BlockCache(model)
    at = canvas.open(VOCAB) & canvas.window
    check(cached, model, canvas, at)
    x2 = x.clone()
    x2[:, 7] = 1
    now = dataclasses.replace(canvas, x=x2)
    at = now.open(VOCAB) & now.window
    torch.testing.assert_close(cached(now, at), approximate(model, now, at, kind="dual"), atol=1e-5, rtol=1e-5)
    outside = points(x, [8, 13], [8])
    answer, full = cached(now, outside), model(now, outside)
    torch.testing.assert_close(answer[:2], full[:2], atol=1e-5, rtol=1e-5)
    second = approximate(model, take_rows(now, torch.tensor([1])), outside[1:], kind="dual")
    torch.testing.assert_close(answer[2:], second, atol=1e-5, rtol=1e-5)


def test_another_window_over_the_same_row_is_another_block():
    """The memory of the first window holds what was written in it, which the row does not show any more."""
    model, x = network(causal=False), tokens_of(1, 12)
    blank = x.masked_fill(torch.arange(12) >= 4, MASK)
    written = x.masked_fill(torch.arange(12) >= 6, MASK)
    cached = BlockCache(model)
    for tokens, window in ((blank, (4, 8)), (written, (4, 8)), (blank, (8, 12))):
        canvas = canvas_of(blank, window=between(x, *window))
        canvas = dataclasses.replace(canvas, x=tokens)
        at = canvas.open(VOCAB) & canvas.window
        answer = cached(canvas, at)
    torch.testing.assert_close(answer, model(canvas, at), atol=1e-5, rtol=1e-5)


DEARER = [("prefix", "first-hitting"), ("dual", "threshold"), ("dual", "p2")]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("prefix", "threshold"), ("dual", "first-hitting"), ("prefix", "p2")]
    + [pytest.param(*more, marks=pytest.mark.slow) for more in DEARER],
)
def test_block_caches_write_the_same_alone_and_in_a_batch(kind, name):
    model, x = network(causal=False), tokens_of(5, 22)
    for row, length in enumerate((2, 5, 5, 8, 3)):
        x[row, length:] = MASK
    x[2] = x[1]
    canvas = canvas_of(x)
    sampler = make_sampler(name, block=4, **({"num_steps": 3} if name == "p2" else {}))
    together = generate(sampler, BlockCache(model, kind=kind), canvas, noise=NOISE)
    for row in range(5):
        alone = generate(sampler, BlockCache(model, kind=kind), take_rows(canvas, torch.tensor([row])), noise=NOISE)
        assert torch.equal(together.canvas.x[row], alone.canvas.x[0]), row
        assert together.nfe[row] == alone.nfe[0]
    plain = generate(sampler, model, canvas, noise=NOISE)
    assert not torch.equal(plain.token_logp, together.token_logp)


def test_blocks_cost_what_they_should(watched):
    """One row, two blocks of 4, a token a pass: one full pass a block, three of its columns alone."""
    model = network(causal=False)
    x = torch.full((1, 12), MASK)
    x[:, :4] = tokens_of(1, 4)
    sampler = make_sampler("first-hitting", block=4)
    for kind, second, first in (("dual", 4, 4), ("prefix", 8, 4)):
        out = generate(sampler, BlockCache(model, kind=kind), canvas_of(x), noise=NOISE)
        assert watched.taken() == [(1, 12), *[(1, second)] * 3, (1, 12), *[(1, first)] * 3]
        assert out.nfe.tolist() == [8]


@pytest.mark.parametrize("make", [lambda m: BlockCache(m), lambda m: BlockCache(m, kind="prefix")])
def test_a_guided_row_keeps_both_of_its_readings(make, watched):
    """With its prompt and without: neither drives the other out of the memory."""
    model = network(causal=False)
    x = torch.full((2, 12), MASK)
    x[:, :4] = tokens_of(2, 4)
    sampler = make_sampler("first-hitting", block=4)
    generate(sampler, ClassifierFree(make(model), 1.5), canvas_of(x), noise=NOISE)
    full = sum(columns == 12 for _, columns in watched.taken())
    assert full == 4


def test_the_meter_reads_zero_where_the_cache_is_exact():
    model, x = network(causal=True), tokens_of(3, 20)
    x[:, 4:] = MASK
    meter = CacheError(CausalCache(model), model)
    generate(make_sampler("causal"), meter, canvas_of(x), noise=NOISE)
    assert len(meter.readings) == 16
    assert meter.positions == 48
    assert 0.0 <= meter.mean <= meter.max < 1e-9
    assert meter.changed == 0


@pytest.mark.parametrize("kind", ["prefix", "dual"])
def test_the_meter_sees_the_error_of_a_block_cache(kind):
    model, x = network(causal=False), tokens_of(3, 20)
    x[:, 4:] = MASK
    canvas, sampler = canvas_of(x), make_sampler("first-hitting", block=8)
    meter = CacheError(BlockCache(model, kind=kind), model)
    sample = generate(sampler, meter, canvas, noise=NOISE)
    same = generate(sampler, BlockCache(model, kind=kind), canvas, noise=NOISE)
    assert torch.equal(sample.canvas.x, same.canvas.x)
    by_pass = [reading.mean for reading in meter.readings]
    assert by_pass[0] < 1e-9
    assert by_pass[8] < 1e-9
    assert all(mean > 1e-6 for mean in by_pass[1:8] + by_pass[9:16])
    assert meter.max >= max(by_pass)
    assert meter.positions == sum(r.positions for r in meter.readings) == 48


def test_the_meter_s_figure_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    q = torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.5, 0.0]])
    expected = torch.tensor([0.25 * 0.6931471805599453, 0.6931471805599453], dtype=torch.float64)
    torch.testing.assert_close(kl_divergence(p.log(), q.log()), expected, atol=1e-7, rtol=1e-7)
    assert kl_divergence(q.log(), p.log())[1] == torch.inf


def test_the_meter_s_mean_is_over_predictions():
    model = network(causal=True)
    meter = CacheError(model, model)
    assert (meter.mean, meter.max, meter.positions) == (0.0, 0.0, 0)
    meter.readings += [Reading(1, 0.3, 0.3, 0), Reading(3, 0.1, 0.2, 1)]
    assert meter.mean == pytest.approx(0.15)
    assert (meter.max, meter.positions, meter.changed) == (0.3, 4, 1)


def test_passes_are_counted_as_without_a_cache():
    model, x = network(causal=True), tokens_of(2, 10)
    x[:, 3:] = MASK
    counter = CountingDenoiser(CausalCache(model))
    sample = generate(make_sampler("causal"), counter, canvas_of(x), noise=NOISE)
    assert sample.nfe.tolist() == [7, 7] == [counter.passes[0], counter.passes[1]]
    assert isinstance(counter.model, Denoiser)


@pytest.mark.parametrize("kind", ["exact", "dual"])
def test_answers_are_tensors_like_any_other_and_the_network_still_learns(kind):
    model = network(causal=kind == "exact").requires_grad_(True)
    cached, canvas = with_cache(model, kind), canvas_of(tokens_of(2, 12))
    at = points(canvas.x, [7], [7])
    for _ in range(2):  # from a full pass, and from memory
        said = cached(canvas, at)
        assert not said.requires_grad
        said[:, 0] = 0.0
        said.requires_grad_(True).square().sum().backward()
        assert torch.equal(said.grad, 2 * said)
    model(canvas, at).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_half_precision_is_cached_in_half_precision():
    size = SIZE.model_copy(update={"causal": True})
    model = Transformer(size, VOCAB, dtype=torch.bfloat16).requires_grad_(False)
    model.load_state_dict(network(causal=True).state_dict())
    cached, x = CausalCache(model), tokens_of(2, 12)
    for length in (8, 9, 12):
        part = canvas_of(x[:, :length])
        check(cached, model, part, points(part.x, [length - 1], [length - 1]), atol=0.1)
    assert cached.memory._store.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("causal", "kind", "said"),
    [
        (False, "exact", "cache='exact': this model sees both sides"),
        (True, "dual", "cache='dual': an autoregressive model has an exact cache"),
        (True, "prefix", "cache='prefix': an autoregressive model has an exact cache"),
        (False, "duel", "cache='duel': unknown; did you mean 'dual'?"),
    ],
)
def test_what_does_not_fit_is_refused(causal, kind, said):
    with pytest.raises(ValueError, match=said):
        with_cache(network(causal=causal), kind)


def test_only_a_network_is_cached():
    model = network(causal=True)
    assert with_cache(model, "none") is model
    with pytest.raises(ValueError, match="CountingDenoiser has no keys and values"):
        with_cache(CountingDenoiser(model), "exact")
    with pytest.raises(ValueError, match="a row of 97 tokens is longer"):
        CausalCache(model)(canvas_of(tokens_of(1, 97)), points(tokens_of(1, 97), [96]))
