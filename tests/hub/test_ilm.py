"""The published insertion network: its forward pass against a second one, from the layout's description alone."""

import json
import math

import pytest
import torch
from checkpoints import random_tensors, write
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from anyorder.core.noise import Noise
from anyorder.core.protocols import Inserting
from anyorder.core.types import Canvas, Vocab
from anyorder.hub.convert import convert
from anyorder.hub.families import FAMILIES
from anyorder.hub.fields import Fields
from anyorder.hub.load import load_model, shapes_of
from anyorder.hub.source import read_config
from anyorder.likelihood.insertion import insertion_bound, insertion_exact
from anyorder.processes.row_mass import row_mass
from anyorder.samplers.base import generate
from anyorder.samplers.insertion import Insert

SPECIAL = ("<cls>", "<bos>", "<eos>", "<unk>", "<pad>", "<mask>", "<es>", "<sts>")  # of star graphs, after their nodes
CLS, BOS, EOS, UNK, PAD, MASK = range(20, 26)
SIZE = 28
CLOSED = [CLS, BOS, EOS, PAD, MASK]
SHAPE = {"d": 24, "ff": 40, "heads": 4}  # heads of 6 channels, all rotated
WIDE = {"d": 144, "ff": 30, "heads": 2}  # of 72, as published for zebra puzzles: 64 are rotated
OPEN = [i for i in range(SIZE) if i not in CLOSED]


def ilm_shapes(size=SIZE, d=24, ff=40, layers=2):
    """Names and shapes of a file, what is no weight among them."""
    out = {"embed_tokens.weight": (size, d), "type_embeddings.weight": (2, d), "output_layer.linear.weight": (size, d)}
    for i in range(layers):
        own = f"encoder.{i}."
        for n in "12":
            out |= {f"{own}norm{n}.weight": (d,), f"{own}norm{n}.bias": (d,)}
        out |= {f"{own}attn_qkv.weight": (3 * d, d), f"{own}o_proj.weight": (d, d)}
        out |= {f"{own}mlp.0.weight": (ff, d), f"{own}mlp.0.bias": (ff,)}
        out |= {f"{own}mlp.2.weight": (d, ff), f"{own}mlp.2.bias": (d,), f"{own}rotary_emb.inv_freq": (32,)}
    stop = "length_output_layer."
    out |= {f"{stop}norm_final.weight": (d,), f"{stop}norm_final.bias": (d,), f"{stop}mlp.0.weight": (2 * d, d)}
    out |= {f"{stop}mlp.0.bias": (2 * d,), f"{stop}mlp.2.weight": (d, 2 * d), f"{stop}mlp.2.bias": (d,)}
    return out | {f"{stop}linear.weight": (2, d)}


def weights(shapes):
    """Random tensors; without a final norm, only a large embedding and head make scores that differ."""
    large = ("embed_tokens.weight", "output_layer.linear.weight")
    return {name: tensor * (4 if name in large else 1) for name, tensor in random_tensors(shapes).items()}


def is_weight(name):
    return "rotary_emb" not in name and "type_embeddings" not in name


def words_tokenizer():
    """tokenizer.json of star graphs: nodes and special tokens are words."""
    names = [*map(str, range(20)), *SPECIAL]
    library = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    return library.to_str()


def saved(place, shape=SHAPE, *, tokenizer=True, **values):
    """A folder with a configuration, as the later code of the authors writes one."""
    tensors = weights(ilm_shapes(SIZE, shape["d"], shape["ff"]))
    config = {
        "num_embeddings": SIZE, "d_model": shape["d"], "num_layers": 2, "nhead": shape["heads"],
        "dim_feedforward": shape["ff"], "padding_idx": 0, "mask_idx": 1, "dropout": 0.1, "activation": "relu",
        "layer_norm_eps": 1e-05, "rotary_emb_dim": 64, "max_length": 64, "force_flash_attn": False,
        "final_layer_without_normalization": True,
    }  # fmt: skip
    text = words_tokenizer() if tokenizer else None
    return write(place, config | values, tensors, tokenizer=text), tensors


def published_pass(tensors, shape, x, position, seen, *, activation="relu"):
    """The published network on one row of arrays in any order, float64: scores (T, V), and log-odds to stop.

    `position` orders the tokens, `seen` marks those that are attended; the stop is read where position is 0.
    """
    t = {name: value.double() for name, value in tensors.items()}
    d, heads = shape["d"], shape["heads"]
    width = d // heads
    rotated = min(width, 64)
    h = t["embed_tokens.weight"][x]

    def norm(v, name):
        centred = v - v.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * t[f"{name}.weight"] + t[f"{name}.bias"]

    def turned(v):
        out = v.clone()
        for n, p in enumerate(position.tolist()):
            for i in range(rotated // 2):
                angle = p * 10000 ** (-2 * i / rotated)
                a, b = v[n, i], v[n, i + rotated // 2]
                out[n, i] = a * math.cos(angle) - b * math.sin(angle)
                out[n, i + rotated // 2] = b * math.cos(angle) + a * math.sin(angle)
        return out

    def act(v):
        if activation == "relu":
            return v.clamp(min=0)
        return 0.5 * v * (1 + torch.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))

    for i in range(2):
        own = f"encoder.{i}."
        q, k, v = (norm(h, f"{own}norm1") @ t[f"{own}attn_qkv.weight"].T).split(d, -1)
        mixed = []
        for n in range(heads):
            part = slice(n * width, (n + 1) * width)
            scores = turned(q[:, part]) @ turned(k[:, part]).T / math.sqrt(width)
            mixed.append(scores.masked_fill(~seen, -math.inf).softmax(-1) @ v[:, part])
        h = h + torch.cat(mixed, -1) @ t[f"{own}o_proj.weight"].T
        y = act(norm(h, f"{own}norm2") @ t[f"{own}mlp.0.weight"].T + t[f"{own}mlp.0.bias"])
        h = h + y @ t[f"{own}mlp.2.weight"].T + t[f"{own}mlp.2.bias"]
    cls, stop = h[position == 0][0], "length_output_layer."
    y = torch.tanh(norm(cls, f"{stop}norm_final") @ t[f"{stop}mlp.0.weight"].T + t[f"{stop}mlp.0.bias"])
    z = cls + y @ t[f"{stop}mlp.2.weight"].T + t[f"{stop}mlp.2.bias"]
    ends, goes_on = t[f"{stop}linear.weight"] @ z
    return h @ t["output_layer.linear.weight"].T, ends - goes_on


def in_order(tensors, shape, tokens, **options):
    """`published_pass` of a row that stands in order and is all seen."""
    n = torch.arange(len(tokens))
    return published_pass(tensors, shape, torch.tensor(tokens), n, n >= 0, **options)


def canvas_of(*rows, vocab):
    """Rows that begin with the beginning, padded on the right."""
    width = max(map(len, rows)) + 1
    x = torch.tensor([[vocab.eos_id, *row] + [vocab.pad_id] * (width - 1 - len(row)) for row in rows])
    segment = (x != vocab.pad_id).long()
    row_id = torch.arange(len(rows))
    return Canvas(x=x, fixed=segment > 0, window=segment > 0, segment=segment, row_id=row_id)


def answer(model, canvas):
    """Scores at all positions of the canvas (B, L, V), the beginning's column apart: the stop (B)."""
    scores = model(canvas, torch.ones_like(canvas.fixed)).view(*canvas.x.shape, -1)
    assert (scores[..., [i for i in CLOSED if i != CLS]] == -math.inf).all()
    assert (scores[:, 1:, CLS] == -math.inf).all()
    return scores, scores[:, 0, CLS]


def assert_same(found, expected):
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.5 if expected.ndim else abs(expected) > 0.005


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("shape", [SHAPE, WIDE], ids=["rotated whole", "rotated in part"])
def test_the_forward_pass_is_the_published_one(tmp_path, shape, activation):
    """A text is read as [CLS] [BOS] text; what is inserted first is read from BOS."""
    folder, tensors = saved(tmp_path / "c", shape, activation=activation)
    loaded = load_model(folder)
    assert loaded.kind == "ilm"
    assert isinstance(loaded.model, Inserting)
    assert loaded.model.vocab == Vocab(SIZE, SIZE, SIZE + 1, CLS)
    texts = [3, 1, 4, 1, 5, 9], [], [2, 6]
    scores, stops = answer(loaded.model, canvas_of(*texts, vocab=loaded.model.vocab))
    for text, score, stop in zip(texts, scores, stops, strict=True):
        expected, ends = in_order(tensors, shape, [CLS, BOS, *text], activation=activation)
        assert_same(score[: len(text) + 1, OPEN], expected[1:, OPEN])
        assert_same(stop, ends)
    other = in_order(tensors, shape, [CLS, BOS, 2, 6], activation="gelu" if activation == "relu" else "relu")
    assert (other[0] - expected).abs().max() > 1e-2


def test_a_prompt_ends_with_its_own_bos(tmp_path):
    """[CLS] prompt [BOS] answer is read as it is: what is inserted first is read from that BOS."""
    folder, tensors = saved(tmp_path / "c")
    model = load_model(folder).model
    rows = [7, 8, 9, BOS, 1, 2], [5, BOS], [1, 2, 3]
    scores, stops = answer(model, canvas_of(*rows, vocab=model.vocab))
    for row, score, stop in zip(rows[:2], scores, stops):
        expected, ends = in_order(tensors, SHAPE, [CLS, *row])
        assert_same(score[: len(row) + 1, OPEN], expected[:, OPEN])
        assert_same(stop, ends)
    expected, ends = in_order(tensors, SHAPE, [CLS, BOS, 1, 2, 3])
    assert_same(scores[2, :4, OPEN], expected[1:, OPEN])
    assert_same(stops[2], ends)


def test_hidden_tokens_are_as_if_they_were_not_there_and_their_order_in_memory_does_not_matter(tmp_path):
    """Theirs keep dropped tokens in the row, overwritten and hidden, and append what they insert; ours delete."""
    folder, tensors = saved(tmp_path / "c", WIDE)
    model = load_model(folder).model
    row = torch.tensor([CLS, BOS, 3, 1, 4, 1, 5, 9, 2, 6])
    seen = torch.tensor([1, 1, 0, 1, 0, 0, 1, 1, 0, 1]) > 0
    position = seen.long().cumsum(0) - 1
    scores, stops = answer(model, canvas_of(row[seen][2:].tolist(), vocab=model.vocab))
    for order in (torch.arange(10), torch.tensor([0, 7, 2, 9, 1, 8, 3, 5, 6, 4])):
        x = row.masked_fill(~seen, MASK)[order]
        expected, ends = published_pass(tensors, WIDE, x, position[order], seen[order])
        back = expected[order.argsort()]
        assert_same(scores[0][:, OPEN], back[seen][1:, OPEN])
        assert_same(stops[0], ends)


def test_packed_documents_are_as_alone(tmp_path):
    folder, _ = saved(tmp_path / "c")
    model = load_model(folder).model
    rows = [3, 1, 4], [7, BOS, 8], []
    x = torch.tensor([[model.vocab.pad_id] + [i for row in rows for i in (CLS, *row)] + [model.vocab.pad_id]])
    segment = torch.tensor([[0] + [i + 1 for i, row in enumerate(rows) for _ in range(len(row) + 1)] + [0]])
    canvas = Canvas(x=x, fixed=segment > 0, window=segment > 0, segment=segment, row_id=torch.tensor([0]))
    packed, at = model.insertion(canvas, segment > 0), 0
    for i, row in enumerate(rows):
        own = canvas_of(row, vocab=model.vocab)
        alone = model.insertion(own, own.valid)
        torch.testing.assert_close(packed.states[at : at + len(row) + 1], alone.states, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(packed.stop[i : i + 1], alone.stop, atol=1e-5, rtol=1e-5)
        at += len(row) + 1


def test_answers_stand_where_asked_and_special_tokens_have_no_mass(tmp_path):
    model = load_model(saved(tmp_path / "c")[0]).model
    canvas = canvas_of([3, 1, 4, 1, 5], [7, BOS, 8], vocab=model.vocab)
    at = torch.tensor([[0, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 0]]) > 0
    scores, _ = answer(model, canvas)
    some = model(canvas, at)
    torch.testing.assert_close(some[:, OPEN], scores[at][:, OPEN], atol=1e-6, rtol=1e-6)
    out = model.insertion(canvas, at)
    mass = row_mass(out.states, out.head, without=CLS)
    torch.testing.assert_close(mass, some[:, OPEN].logsumexp(-1), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"a row of 65 tokens is longer than model\.max_length=64; shorten it"):
        answer(model, canvas_of([1] * 64, vocab=model.vocab))
    assert answer(model, canvas_of([1] * 63, vocab=model.vocab))[1].isfinite().all()


PUBLISHED = {  # size of the vocabulary, width, layers, heads, hidden: parameters of the blocks, and of the whole file
    "text": (30_524, 768, 12, 12, 3072, 85_017_600, 134_268_672),
    "star easy and medium": (28, 768, 12, 12, 3072, 85_017_600, 87_426_816),
    "star hard": (64, 768, 12, 12, 3072, 85_017_600, 87_482_112),
    "tiny": (25, 768, 6, 6, 3072, 42_508_800, None),
    "zebra": (25, 576, 8, 8, 3456, 42_518_016, 43_879_104),
    "xtiny2": (25, 384, 4, 6, 2304, 9_454_080, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_totals(name):
    size, d, layers, heads, ff, blocks, total = PUBLISHED[name]
    values = {"num_embeddings": size, "d_model": d, "num_layers": layers, "nhead": heads, "dim_feedforward": ff}
    ids = {"cls_token_id": 1, "bos_token_id": 4}
    plan = FAMILIES["ilm"].read(Fields(values | ids, name))
    parts = list(FAMILIES["ilm"].parts(plan))
    found = sum(math.prod(part.shape) for _, part in parts)
    assert plan.config.num_block_params == blocks
    assert total is None or found + 2 * d == total  # two type embeddings, never added
    assert found == plan.config.num_params(vocab_size=size, num_ids=size)
    ours = shapes_of(plan.config, plan.vocab(mask_id=None, eos_id=None))
    assert [(part.ours, part.shape) for _, part in parts] == ours
    shapes = ilm_shapes(size, d, ff, layers)
    assert {name: part.shape for name, part in parts} == {n: s for n, s in shapes.items() if is_weight(n)}


def pickled(place, **changes):
    """A .pt file as published, without a configuration, and its tokenizer."""
    place.mkdir()
    tensors = weights(ilm_shapes()) | {"type_embeddings.weight": torch.zeros(2, 24)} | changes
    torch.save({n: t for n, t in tensors.items() if t is not None}, place / "ilm.pt")
    (place / "t.json").write_text(words_tokenizer())
    return place / "ilm.pt", tensors


def test_a_published_file_goes_to_our_layout_and_back_bit_for_bit(tmp_path):
    path, tensors = pickled(tmp_path / "c")
    made = convert(path, tmp_path / "ours", heads=4, tokenizer=tmp_path / "c" / "t.json")
    kept = [n for n in tensors if is_weight(n)]
    assert (made.family, made.layout, made.num_tensors) == ("ilm", "anyorder", len(kept))
    assert made.num_params == sum(tensors[n].numel() for n in kept)
    loaded = load_model(tmp_path / "ours")
    assert (loaded.kind, loaded.model.vocab.eos_id, loaded.model.config.closed) == ("ilm", CLS, (BOS, EOS, PAD, MASK))
    canvas = canvas_of([3, 1, 4], vocab=loaded.model.vocab)
    assert_same(answer(loaded.model, canvas)[0][0][:, OPEN], in_order(tensors, SHAPE, [CLS, BOS, 3, 1, 4])[0][1:, OPEN])
    convert(tmp_path / "ours", tmp_path / "back", to="ilm")
    again = load_file(tmp_path / "back" / "model.safetensors")
    assert {n: t.shape for n, t in again.items()} == {n: t.shape for n, t in tensors.items()}  # as a strict load wants
    assert all(torch.equal(again[n], tensors[n]) for n in [*kept, "type_embeddings.weight"])
    assert torch.equal(again["encoder.1.rotary_emb.inv_freq"], 1 / 10000 ** (torch.arange(0, 64, 2).float() / 64))
    assert read_config(tmp_path / "back") == {
        "model_type": "ilm", "num_embeddings": SIZE, "d_model": 24, "dim_feedforward": 40, "num_layers": 2, "nhead": 4,
        "cls_token_id": CLS, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD, "mask_token_id": MASK,
    }  # fmt: skip
    theirs = load_model(tmp_path / "back")
    assert all(torch.equal(a, b) for a, b in zip(theirs.model.parameters(), loaded.model.parameters(), strict=True))


def test_a_loaded_checkpoint_writes_and_scores(tmp_path):
    loaded = load_model(saved(tmp_path / "c")[0])
    model, prompt = loaded.model, loaded.tokenizer.encode("7 8 9 <bos>")
    assert prompt == [7, 8, 9, BOS]
    canvas = canvas_of(prompt + [0] * 12, vocab=model.vocab)
    keep = torch.arange(canvas.x.shape[1]) <= len(prompt)
    rows = Canvas(
        x=canvas.x.masked_fill(~keep, model.vocab.pad_id).repeat(40, 1),
        fixed=keep.repeat(40, 1),
        window=(torch.arange(canvas.x.shape[1]) == len(prompt)).repeat(40, 1),
        segment=keep.long().repeat(40, 1),
        row_id=torch.arange(40),
    )
    sample = generate(Insert(), model, rows, noise=Noise.of(1))
    written = [x[valid].tolist() for x, valid in zip(sample.canvas.x, sample.canvas.valid)]
    assert all(row[:5] == [CLS, *prompt] for row in written)
    assert len({len(row) for row in written}) > 2
    assert not set(CLOSED) & {i for row in written for i in row[5:]}
    assert loaded.tokenizer.decode([CLS, 7, 8, 1]) == "7 8 1"
    text, row_id = torch.tensor([[3, 1, 4, 1]]), torch.tensor([0])
    exact = insertion_exact(model, text, row_id=row_id)
    bound = insertion_bound(
        model, text, target=text >= 0, row_id=row_id, draws=128, replicates=8, noise=Noise.of(2), rows_per_pass=16
    )
    assert 0 < float(exact) < float(bound.nats) + 4 * float(bound.stderr)


def test_the_law_over_short_texts_sums_to_no_more_than_one(tmp_path):
    """Chances of all texts of up to two tokens, and of going on beyond them, add up to 1: no special token has any."""
    model = load_model(saved(tmp_path / "c")[0]).model
    texts = [[], *[[a] for a in OPEN], *[[a, b] for a in OPEN for b in OPEN]]
    row_id = torch.arange(1)
    assert len(texts) == 1 + len(OPEN) + len(OPEN) ** 2
    empty = insertion_exact(model, torch.tensor([[CLS]]), target=torch.tensor([[False]]), row_id=row_id)
    ones = torch.stack([insertion_exact(model, torch.tensor([t]), row_id=row_id)[0] for t in texts[1 : len(OPEN) + 1]])
    _, stop = answer(model, canvas_of([], vocab=model.vocab))
    torch.testing.assert_close(empty.exp().reciprocal(), stop.double().sigmoid(), atol=1e-6, rtol=0)
    _, after = answer(model, canvas_of(*texts[1 : len(OPEN) + 1], vocab=model.vocab))
    reached = (-ones).exp() / after.double().sigmoid()  # of one token, whatever comes then
    torch.testing.assert_close(reached.sum(), 1 - stop.double().sigmoid()[0], atol=1e-6, rtol=0)


FAULTS = {
    "no heads": (
        {},
        {"heads": None},
        r"no tensor of ILM shows the number of attention heads; say .* --heads",
    ),
    "wrong heads": ({}, {"heads": 5}, r"num_heads=5: must divide the width 24 into even parts"),
    "tensor missing": ({"encoder.1.norm2.bias": None}, {}, r"tensor 'encoder\.1\.norm2\.bias' is missing"),
    "final norm": (
        {"output_layer.norm_final.weight": torch.ones(24)},
        {},
        r"tensor 'output_layer\.norm_final\.weight' is unknown",
    ),
    "length head": (
        {"length_output_layer.linear.weight": torch.ones(9, 24)},
        {},
        r"length_output_layer\.linear\.weight has shape \(9, 24\), expected \(2, 24\)",
    ),
    "insertion transformer": (
        {n: None for n in ilm_shapes() if n.startswith("length_output_layer")},
        {},
        r"is an insertion model without a stop head, as the Insertion Transformers .* only those with one are read",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_an_ilm_says_so(tmp_path, fault):
    changes, options, message = FAULTS[fault]
    path, _ = pickled(tmp_path / "c", **changes)
    with pytest.raises(ValueError, match=message) as caught:
        convert(path, tmp_path / "out", **{"heads": 4, "tokenizer": tmp_path / "c" / "t.json"} | options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


CONFIG_FAULTS = {
    "final norm": ({"final_layer_without_normalization": False}, r"final_layer_without_normalization=False: only True"),
    "activation": ({"activation": "silu"}, r"activation='silu': Input should be 'relu' or 'gelu'"),
    "id outside": ({"bos_token_id": 28}, r"bos_token_id=28: the embedding has 28 rows; the files do not belong"),
    "another tokenizer": ({"num_embeddings": 3}, r"embed_tokens\.weight has shape \(28, 24\), expected \(3, 24\)"),
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_a_configuration_that_does_not_fit_says_so(tmp_path, fault):
    values, message = CONFIG_FAULTS[fault]
    folder, _ = saved(tmp_path / "c", tokenizer=fault == "id outside", **values)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_ids_that_nobody_names_are_asked_for(tmp_path):
    folder, _ = saved(tmp_path / "c")
    unnamed = words_tokenizer().replace("<cls>", "<other>")
    (folder / "tokenizer.json").write_text(unnamed)
    with pytest.raises(ValueError, match=r"cls_token_id, bos_token_id: neither config\.json nor the tokenizer names"):
        load_model(folder)
    config = read_config(folder)
    (folder / "config.json").write_text(json.dumps(config | {"cls_token_id": 19}))
    assert load_model(folder).model.vocab.eos_id == 19
