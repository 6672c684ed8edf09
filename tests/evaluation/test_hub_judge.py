"""A checkpoint of the `transformers` library as a judge: a small random GPT-2 written here."""

import json
import math

import pytest
import torch

from anyorder.cli.main import main
from anyorder.evaluation.hf_judge import hub_judge, is_transformers_folder
from anyorder.evaluation.judges import load_judge

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("default")  # those of other people's libraries
LENGTH = 24


def save_gpt2(folder, **changed):
    """A random GPT-2 of bytes, 24 tokens long, and its tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate([*alphabet, "<|endoftext|>"])}, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=library, eos_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)
    given = {"vocab_size": 257, "n_positions": LENGTH, "n_embd": 16, "n_layer": 2, "n_head": 2} | changed
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**given, bos_token_id=256, eos_token_id=256))
    model.save_pretrained(folder)
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges") / "gpt2"
    return folder, *save_gpt2(folder)


def test_nats_are_those_of_the_library_and_the_first_token_is_not_scored(gpt2):
    folder, model, tokenizer = gpt2
    assert is_transformers_folder(folder)
    judge = load_judge(str(folder))
    assert judge.first_token == "not scored"
    texts = ["def add(a, b):", "x", "no", "a" * 40]
    said = judge.nll(texts)
    assert said.scored.tolist() == [13, 0, 1, LENGTH - 1]
    assert said.cut.tolist() == [0, 0, 0, 40 - LENGTH]
    for text, nats, scored in zip(texts, said.nats.tolist(), said.scored.tolist()):
        ids = torch.tensor([tokenizer.encode(text)[:LENGTH]])
        want = float(model(ids, labels=ids).loss.detach()) * scored if scored else 0.0
        assert nats == pytest.approx(want, rel=1e-5)


def test_features_are_the_states_after_the_last_token(gpt2):
    folder, model, tokenizer = gpt2
    got = load_judge(str(folder)).features(["one text", "two"])
    for text, row in zip(["one text", "two"], got):
        states = model(torch.tensor([tokenizer.encode(text)]), output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(row, states[0, -1].detach().double(), rtol=1e-4, atol=1e-5)


def test_the_command_takes_such_a_judge(gpt2, tiny_runs, capsys):
    words = ["--judge", str(gpt2[0]), "--n", "3", "--length", "12", "--steps", "2"]
    assert main(["quality", str(tiny_runs.mdm), *words, "--json"]) == 0
    (got,) = json.loads(capsys.readouterr().out.splitlines()[-1])["quality"]
    assert got["first_token"] == "not scored"
    assert got["judge"] == str(gpt2[0])
    assert 100 < got["figures"]["gen_ppl"] < 700  # a random network knows nothing: about 257
    assert got["figures"]["entropy"] < math.log(12)


def test_what_is_no_causal_model_is_refused(gpt2, tmp_path):
    with pytest.raises(ValueError, match="no causal language model could be loaded"):
        hub_judge(str(tmp_path / "nothing"))
    both_ways = transformers.BertConfig(
        vocab_size=257, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertForMaskedLM(both_ways).save_pretrained(tmp_path / "bert")
    gpt2[2].save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="is not causal"):
        load_judge(str(tmp_path / "bert"))
    config = transformers.T5Config(vocab_size=257, d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    gpt2[2].save_pretrained(tmp_path / "t5")
    with pytest.raises(ValueError, match="no causal language model could be loaded"):
        load_judge(str(tmp_path / "t5"))


def test_the_missing_library_is_named(monkeypatch, gpt2):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("anyorder.evaluation.hf_judge.importlib.import_module", missing)
    with pytest.raises(ValueError, match=r"pip install 'anyorder\[eval\]'"):
        hub_judge(str(gpt2[0]))
