"""`anyorder convert` and `anyorder inspect` of published checkpoints, as typed."""

import json

import pytest
import torch
from checkpoints import CONFIGS, DITS, byte_tokenizer, dit_shapes, random_tensors, shapes_of, smdm_shapes, write

from anyorder.cli.main import main


@pytest.fixture
def llada(tmp_path):
    return write(
        tmp_path / "llada", CONFIGS["llada"], random_tensors(shapes_of(CONFIGS["llada"])), tokenizer=byte_tokenizer()
    )


def told(capsys, *args):
    """The JSON object that a command ends with."""
    assert main([*map(str, args), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_inspect_reads_the_headers_of_a_checkpoint(llada, capsys):
    about = told(capsys, "inspect", llada)["checkpoint"]
    total = sum(torch.Size(s).numel() for s in shapes_of(CONFIGS["llada"]).values())
    assert about["family"] == "llada"
    assert about["kind"] == "mdm"
    assert (about["parameters"], about["bytes"], about["tensors"]) == (total, 4 * total, 21)
    assert about["config"]["rope"] == "float32"
    assert main(["inspect", str(llada)]) == 0
    text = capsys.readouterr().out
    for words in ("masked diffusion (MDM)", "264 ids, mask 257, end of document 256", "HubTokenizer", "rope float32"):
        assert words in text
    (llada / "tokenizer.json").unlink()
    assert main(["inspect", str(llada)]) == 0
    assert "none: " in capsys.readouterr().out


def test_convert_there_and_back_and_use_it(llada, tmp_path, capsys):
    made = told(capsys, "convert", llada, tmp_path / "ours", "--dtype", "bfloat16")
    assert made["family"] == "llada"
    ours = told(capsys, "inspect", tmp_path / "ours")["model"]
    assert ours["parameters"]["total"] == made["parameters"]
    assert set(ours["parameters"]) == {"total", "embedding", "attention", "feed-forward", "norms", "head"}
    assert ours["parameters"]["norms"] == 24 * (2 * 2 + 1)
    assert told(capsys, "sample", tmp_path / "ours", "--length", "5", "--prompt", "a")["samples"][0]["num_tokens"] == 4
    back = told(capsys, "convert", tmp_path / "ours", tmp_path / "back", "--to", "llada", "--dtype", "float32")
    assert back["layout"] == "llada"
    assert told(capsys, "inspect", tmp_path / "back")["checkpoint"]["dtypes"] == ["float32"]


def test_a_bare_file_is_inspected_and_converted(tmp_path, capsys):
    folder = write(tmp_path / "smdm", None, random_tensors(smdm_shapes(causal=False, size=264)))
    file, tokenizer = folder / "model.safetensors", tmp_path / "t.json"
    tokenizer.write_text(byte_tokenizer())
    assert told(capsys, "inspect", file, "--heads", 4)["checkpoint"]["family"] == "smdm"
    assert told(capsys, "inspect", folder, "--heads", 4)["checkpoint"]["vocab_size"] == 264
    told(capsys, "convert", file, tmp_path / "ours", "--heads", 4, "--tokenizer", tokenizer)
    assert main(["sample", str(tmp_path / "ours"), "--length", "4"]) == 0


def test_mdlm_writes_and_bd3lm_writes_block_by_block(tmp_path, capsys):
    for name in ("mdlm", "bd3lm"):
        shapes = dit_shapes(DITS[name])
        folder = write(tmp_path / name, DITS[name], random_tensors(shapes), tokenizer=byte_tokenizer(mask=None))
        told(capsys, "convert", folder, tmp_path / f"ours-{name}")
        block = [] if name == "mdlm" else ["--block", "4"]
        assert told(capsys, "sample", tmp_path / f"ours-{name}", "--length", 8, *block)["samples"][0]["num_tokens"] == 8
        (tmp_path / "t.txt").write_text("hello there")
        assert told(capsys, "score", folder, "--text", tmp_path / "t.txt", "--draws", 4)
        parts = told(capsys, "inspect", tmp_path / f"ours-{name}")["model"]["parameters"]
        assert parts["modulation"] == sum(
            torch.Size(s).numel() for n, s in shapes.items() if "adaLN" in n or "sigma_map" in n
        )


@pytest.mark.parametrize("name", ["mdlm", "bd3lm", "smdm"])
def test_a_family_that_publishes_no_tokenizer_is_told_the_same_way_everywhere(tmp_path, capsys, name):
    if name == "smdm":
        folder, more = (
            write(tmp_path / name, None, random_tensors(smdm_shapes(causal=False, size=264))),
            ["--heads", "4"],
        )
        path, known = folder / "model.safetensors", "TinyLlama"
    else:
        path, more, known = write(tmp_path / name, DITS[name], random_tensors(dit_shapes(DITS[name]))), [], "gpt2"
    for command in (["sample", str(path)], ["convert", str(path), str(tmp_path / "out"), *more]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"anyorder convert {path} OUT --tokenizer FOLDER" in said
    assert known in said
    (tmp_path / "t.json").write_text(byte_tokenizer(mask=None))
    assert main(["convert", str(path), str(tmp_path / "out"), *more, "--tokenizer", str(tmp_path / "t.json")]) == 0
    assert main(["sample", str(tmp_path / "out"), "--length", "4"]) == 0


def test_what_lies_beside_a_model_stays_beside_it(llada, tmp_path, capsys):
    kept = {
        "tokenizer_config.json": json.dumps({"chat_template": "{{ messages[0].content }}", "mask_token": "<|mask|>"}),
        "chat_template.jinja": "{{ messages }}",
        "special_tokens_map.json": "{}",
        "generation_config.json": json.dumps({"eos_token_id": 256}),
    }
    for name, text in kept.items():
        (llada / name).write_text(text)
    told(capsys, "convert", llada, tmp_path / "ours")
    told(capsys, "convert", tmp_path / "ours", tmp_path / "back", "--to", "llada")
    for folder in ("ours", "back"):
        assert {name: (tmp_path / folder / name).read_text() for name in kept} == kept
    (tmp_path / "t").mkdir()
    (llada / "tokenizer.json").rename(tmp_path / "t" / "tokenizer.json")
    told(capsys, "convert", llada, tmp_path / "other", "--tokenizer", tmp_path / "t")
    assert not (tmp_path / "other" / "chat_template.jinja").exists()  # it was of the tokenizer that is not used
    assert (tmp_path / "other" / "generation_config.json").exists()


def test_bd3lm_writes_its_own_blocks_from_the_beginning_of_the_row(tmp_path, capsys):
    shapes = dit_shapes(DITS["bd3lm"])  # blocks of 4
    folder = write(tmp_path / "m", DITS["bd3lm"], random_tensors(shapes), tokenizer=byte_tokenizer(mask=None))
    for block in ([], ["--block", 4]):
        order = told(capsys, "sample", folder, "--prompt", "abcde", "--length", 12, *block)["samples"][0]["order"]
        assert [sorted(part) for part in (order[5:8], order[8:])] == [[0, 1, 2], [3, 4, 5, 6]]
    for options, message in (
        (["sample", "--block", 5], "block=5: the model's attention was trained on blocks of 4 tokens"),
        (["sample", "--stride", 4], "stride=4: would move the model's blocks of 4 tokens"),
        (["infill", "ab[[2]]cdef"], "sees nothing behind the block of 4 tokens it writes"),
    ):
        assert main([options[0], str(folder), *map(str, options[1:])]) == 2
        assert message in capsys.readouterr().err
    assert told(capsys, "infill", folder, "abcdef[[1]]h")["samples"][0]["num_tokens"] == 1  # inside one block


WRONG = {
    "dtype": (["--dtype", "int3"], r"dtype='int3': unknown"),
    "family": (["--to", "lama"], r"to='lama': unknown; did you mean 'llama'?"),
    "tokenizer": (["--tokenizer", "nothing.json"], r"nothing.json: no such file; put the checkpoint's tokenizer.json"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_sentence(llada, tmp_path, capsys, case):
    options, message = WRONG[case]
    assert main(["convert", str(llada), str(tmp_path / "out"), *options]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_inspect_of_things_that_are_no_checkpoint(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("hello")
    for path, message in (("text.txt", "is a file; name the folder it is in"), ("none", "no such folder")):
        assert main(["inspect", str(tmp_path / path)]) == 2
        assert message in capsys.readouterr().err
