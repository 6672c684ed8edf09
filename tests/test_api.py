"""The Python API against exact values, direct calls of what it wraps, and its own promises."""

import contextlib
import math
import shutil

import pytest
import torch

import anyorder
from anyorder import GAP, LanguageModel
from anyorder.core.categorical import log_probs
from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.data.tokenizer import ByteTokenizer, SymbolTokenizer
from anyorder.hub.load import load_model
from anyorder.hub.save import save_model
from anyorder.likelihood.exact import nelbo_enumerated
from anyorder.models.config import ModelConfig
from anyorder.models.transformer import Transformer
from conftest import TinyRuns


@pytest.fixture(scope="module")
def mdm(tiny_runs: TinyRuns) -> LanguageModel:
    return anyorder.load(tiny_runs.mdm)


@pytest.fixture(scope="module")
def arm(tiny_runs: TinyRuns) -> LanguageModel:
    return anyorder.load(str(tiny_runs.arm))


def test_a_row_is_the_same_alone_and_among_seven(mdm: LanguageModel, arm: LanguageModel) -> None:
    for model in (mdm, arm):
        seven = model.sample("def ", n=7, seed=5)
        assert seven[0].tokens == model.sample("def ", n=1, seed=5)[0].tokens
        assert seven[0].tokens != seven[1].tokens
        assert seven[0].tokens != model.sample("def ", seed=6)[0].tokens


def test_every_step_is_shown_as_it_is_done(mdm: LanguageModel) -> None:
    seen: list[list[list[int]]] = []
    with_steps = mdm.infill(["def ", GAP(5), "(x"], n=2, seed=3, on_step=lambda s: seen.append(s.canvas.x.tolist()))
    assert [g.tokens for g in with_steps] == [g.tokens for g in mdm.infill(["def ", GAP(5), "(x"], n=2, seed=3)]
    mask = mdm.model.vocab.mask_id
    assert [row.count(mask) for rows in seen for row in rows[:1]] == [4, 3, 2, 1, 0]
    assert seen[-1] == [g.tokens for g in with_steps]


def test_many_rows_are_written_a_few_at_a_time_without_changing_one(
    mdm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mdm.sample(n=5, length=8)
    monkeypatch.setattr("anyorder.api.scoring.ROWS_AT_ONCE", 2)
    assert [g.tokens for g in mdm.sample(n=5, length=8)] == [g.tokens for g in whole]


def test_a_generation_adds_up(mdm: LanguageModel) -> None:
    made = mdm.sample("def ", length=20)[0]
    assert made.tokens[:4] == list(b"def ")
    assert made.order[:4] == [-1] * 4
    assert sorted(made.order[4:]) == list(range(16))  # first-hitting: one a pass, in some order
    assert made.order[4:] != list(range(16))
    assert (made.num_tokens, made.nfe) == (16, 16)
    assert made.token_logp[:4] == [0.0] * 4
    assert made.logp == pytest.approx(math.fsum(made.token_logp), abs=1e-9)
    assert made.at(0) == "def " + 16 * "░"
    assert made.at(16) == "".join(made.pieces)
    assert made.at(5).count("░") == 11


def test_logp_is_what_the_network_said_of_what_was_visible(mdm: LanguageModel) -> None:
    made = mdm.sample(length=6, seed=2)[0]
    vocab, total = mdm.model.vocab, 0.0
    for step in range(6):
        visible = torch.tensor([w < step for w in made.order])
        x = torch.where(visible, torch.tensor(made.tokens), vocab.mask_id)[None]
        at = torch.tensor([[w == step for w in made.order]])
        token = made.tokens[made.order.index(step)]
        total += float(log_probs(mdm.model(Canvas.of(x, vocab=vocab), at))[0, token])
    assert made.logp == pytest.approx(total, abs=1e-4)


def test_infill_keeps_the_text_and_fills_the_gaps(mdm: LanguageModel) -> None:
    made = mdm.infill(["ab", GAP(3), "c", GAP(1)], n=2, sampler="top-prob", temperature=0.0)[1]
    assert len(made.tokens) == 7
    assert bytes(made.tokens[:2]) == b"ab"
    assert made.tokens[5] == ord("c")
    assert [when >= 0 for when in made.order] == [False, False, True, True, True, False, True]
    assert made.logp == 0.0  # greedy: nothing is drawn


def test_infill_reads_the_text_after_the_gap(mdm: LanguageModel) -> None:
    one, other = (mdm.infill(["def ", GAP(1), after], temperature=1.0, seed=1)[0].token_logp[4] for after in "_\n")
    assert one != other


def test_causal_models_refuse_what_they_cannot_do(arm: LanguageModel) -> None:
    with pytest.raises(ValueError, match="cannot see the text after a gap"):
        arm.infill(["a", GAP(2), "b"])
    with pytest.raises(ValueError, match="left to right; use 'causal'"):
        arm.sample(sampler="first-hitting")
    assert arm.infill(["a", GAP(2)], seed=4)[0].tokens == arm.sample("a", length=3, seed=4)[0].tokens
    assert arm.sample(sampler="left-to-right", length=5)[0].order == [0, 1, 2, 3, 4]


def test_text_ends_where_the_model_ended_the_document(mdm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    eos = mdm.model.vocab.eos_id
    monkeypatch.setattr(
        "anyorder.samplers.token.TokenRule.__call__",
        lambda self, logits, u: (torch.full((len(u),), eos), torch.zeros_like(u)),
    )
    made = mdm.sample("ab", length=5)[0]
    assert made.text == "ab"
    assert made.tokens[2:] == [eos] * 3
    assert mdm.infill(["a", GAP(1), "b"])[0].text == "ab"


def test_a_score_agrees_with_enumeration(mdm: LanguageModel) -> None:
    text = "def a"
    exact = float(nelbo_enumerated(mdm.model, torch.tensor([list(text.encode())])))
    score = mdm.score([text], draws=400)[0]
    assert 0 < score.stderr < 0.2
    assert abs(score.nats - exact) < 5 * score.stderr
    assert score.bits_per_byte == pytest.approx(score.nats / 5 / math.log(2))
    assert (score.estimator, score.draws, score.nfe, score.windows) == ("count_form", 400, 400, 1)


def test_a_score_of_an_arm_is_the_chain_rule(arm: LanguageModel) -> None:
    ids = list("añ".encode())
    total = 0.0
    for i, token in enumerate(ids):
        at = torch.arange(3)[None] == i
        total -= float(log_probs(arm.model(Canvas.of(torch.tensor([ids]), vocab=arm.model.vocab), at))[0, token])
    score = arm.score(["añ"])[0]
    assert score.nats == pytest.approx(total, abs=1e-5)
    assert (score.stderr, score.num_tokens, score.num_bytes, score.draws) == (0.0, 3, 3, 1)


def test_long_texts_are_scored_window_by_window(arm: LanguageModel, mdm: LanguageModel) -> None:
    text = "abcdefgh" * 9  # 72 bytes: rows of 32, 32 and 8
    whole = arm.score([text])[0]
    parts = arm.score([text[:32], text[32:64], text[64:]])
    assert whole.windows == 3
    assert whole.nats == pytest.approx(sum(p.nats for p in parts), abs=1e-4)
    bound = mdm.score([text], draws=8)[0]
    assert (bound.windows, bound.nfe, bound.num_tokens) == (3, 24, 72)


def test_every_window_of_every_text_has_draws_of_its_own(mdm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    window = "abcdefgh" * 4
    one, same_text = mdm.score([window, window], draws=8)
    assert one.nats != same_text.nats
    two = mdm.score([2 * window], draws=8)[0]
    assert abs(two.nats - 2 * one.nats) > 1e-3
    monkeypatch.setattr("anyorder.api.scoring.ROWS_AT_ONCE", 1)
    assert mdm.score([2 * window], draws=8)[0].nats == pytest.approx(two.nats, abs=1e-4)


def test_a_score_does_not_depend_on_its_neighbours(mdm: LanguageModel) -> None:
    both = mdm.score(["first text", "second"], draws=8)
    assert both[0] == mdm.score(["first text"], draws=8)[0]
    assert both[0] != mdm.score(["first text"], draws=8, seed=1)[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample("x" * 32), "prompt: its 32 tokens leave nothing to write in the model's length=32"),
        (lambda m: m.sample("xyz", length=3), "leave nothing to write in length=3"),
        (lambda m: m.sample(length=33), "length=33: must be between 1 and the 32"),
        (lambda m: m.sample(length=0), "length=0"),
        (lambda m: m.sample(n=0), "n=0"),
        (lambda m: m.sample(sampler="first-hiting"), "did you mean 'first-hitting'"),
        (lambda m: m.sample(sampler="ancestral", num_steps=-1), "num_steps=-1"),
        (lambda m: m.infill("text"), "must be a list"),
        (lambda m: m.infill(["text"]), "no gap"),
        (lambda m: m.infill(["text", GAP(29)]), "the row has 33 tokens"),
        (lambda m: GAP(0), "at least 1 token"),
        (lambda m: m.score("text"), "must be a list"),
        (lambda m: m.score(["a", ""]), r"texts\[1\]: is empty"),
        (lambda m: m.score(["a"], draws=6), "draws=6"),
        (lambda m: anyorder.load(m.folder, dtype="float23"), "did you mean 'float32'"),
    ],
)
def test_mistakes_are_named(mdm: LanguageModel, call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(mdm)  # type: ignore[operator]


def test_load_finds_models_where_they_are(tiny_runs: TinyRuns, tmp_path: object, mdm: LanguageModel) -> None:
    assert anyorder.load(tiny_runs.mdm / "model").folder == mdm.folder
    index = tiny_runs.folder / "quickstart.json"
    with pytest.raises(ValueError, match="holds several runs; name one of them"):
        anyorder.load(tiny_runs.folder)
    index.write_text('{"default": "arm"}')
    try:
        assert anyorder.load(tiny_runs.folder).kind == "arm"
        index.write_text("{")
        with pytest.raises(ValueError, match="does not name its default run"):
            anyorder.load(tiny_runs.folder)
    finally:
        index.unlink()
    with pytest.raises(ValueError, match="no such folder"):
        anyorder.load(tiny_runs.folder / "nothing")
    with pytest.raises(ValueError, match="is a file"):
        anyorder.load(tiny_runs.corpus)
    with pytest.raises(ValueError, match="no model here"):
        anyorder.load(tiny_runs.folder / "cache")


def test_an_unfinished_run_says_how_to_finish_it(tiny_runs: TinyRuns) -> None:
    place = tiny_runs.folder / "unfinished"
    shutil.copytree(tiny_runs.mdm, place, ignore=shutil.ignore_patterns("model"))
    try:
        with pytest.raises(ValueError, match=r"step_000020\); finish it with: anyorder train .*config.yaml --out "):
            anyorder.load(place)
    finally:
        shutil.rmtree(place)


def test_altered_weights_are_refused(tiny_runs: TinyRuns, tmp_path: object) -> None:
    place = tiny_runs.folder / "altered"
    shutil.copytree(tiny_runs.mdm / "model", place)
    data = bytearray((place / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (place / "model.safetensors").write_bytes(bytes(data))
    with pytest.raises(ValueError, match="altered"):
        anyorder.load(place)
    (place / "model.safetensors").write_bytes(bytes(data[:100]))
    with pytest.raises(ValueError, match="truncated"):
        anyorder.load(place)


def test_puzzle_models_speak_their_symbols(tmp_path_factory: pytest.TempPathFactory) -> None:
    place, tokenizer = tmp_path_factory.mktemp("puzzle") / "model", SymbolTokenizer("1234.")
    network = Transformer(ModelConfig(num_layers=1, num_heads=1, d_model=8, d_ff=8, max_length=16), tokenizer.vocab)
    network.init_weights(Noise.of(0))
    save_model(place, network, tokenizer)
    model = anyorder.load(place)
    made = model.infill([GAP(1), "2", GAP(6)])[0]
    assert made.pieces[1] == "2"
    assert all(piece in "1234." for piece in made.pieces)
    with pytest.raises(ValueError, match="character 'x' at 0"):
        model.sample("x")


def test_dtype_is_that_of_the_activations(tiny_runs: TinyRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    for ratio, slow in ((2.0, False), (0.1, True)):
        monkeypatch.setattr("anyorder.core.device.bf16_ratio", lambda ratio=ratio: ratio)
        with pytest.warns(UserWarning, match="10 times slower") if slow else contextlib.nullcontext():
            assert anyorder.load(tiny_runs.mdm, dtype="bfloat16", device="cpu").model.dtype == torch.bfloat16
    assert isinstance(load_model(tiny_runs.mdm / "model").tokenizer, ByteTokenizer)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="it has: GAP"):
        anyorder.lode  # noqa: B018
    assert anyorder.__version__
