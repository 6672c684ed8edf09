import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from anyorder.data import shards as shards_file
from anyorder.data.atomic import make_once, waiting_lock
from anyorder.data.shards import Shards, write_shards
from anyorder.data.tokenizer import BpeTokenizer, ByteTokenizer, SymbolTokenizer

BYTES = ByteTokenizer()
DOCUMENTS = [BYTES.encode(text) for text in ("abc", "é", "a longer document", "z", "no")]


def write(folder, documents=DOCUMENTS, **given):
    return write_shards(
        folder, iter(documents), **{"tokenizer": BYTES, "corpus": "made", "corpus_sha256": "ab"} | given
    )


@pytest.mark.parametrize("tokens_per_shard", [1, 6, 2**20])
def test_documents_come_back_with_eos_whatever_the_shards(tmp_path, tokens_per_shard):
    manifest = write(tmp_path / "s", tokens_per_shard=tokens_per_shard)
    found = Shards.open(tmp_path / "s", tokenizer_hash=BYTES.hash)
    assert len(manifest.shards) == {1: 5, 6: 3, 2**20: 1}[tokens_per_shard]
    assert [found.document(i).tolist() for i in range(5)] == [[*d, 256] for d in DOCUMENTS]
    stream = [i for d in DOCUMENTS for i in [*d, 256]]
    assert (found.num_tokens, found.num_documents) == (len(stream), 5)
    assert found.starts.tolist() == np.cumsum([0, *(len(d) + 1 for d in DOCUMENTS)]).tolist()
    for start in range(len(stream)):
        for length in range(1, len(stream) - start + 1):
            assert found.read(start, length=length).tolist() == stream[start : start + length]
    assert manifest.bytes == sum(map(len, DOCUMENTS))  # of UTF-8, EOS none
    assert found.bytes_per_token == manifest.bytes / len(stream)


def test_the_manifest_says_what_is_inside(tmp_path):
    write(tmp_path / "s")
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    (entry,) = manifest.pop("shards")
    assert entry.pop("tokens_sha256") != entry.pop("index_sha256")
    assert entry == {"name": "shard_00000", "tokens": 30, "documents": 5}
    assert manifest == {"format": "anyorder-shards", "version": 1, "dtype": "uint16", "vocab_size": 257, "eos_id": 256,
                        "eos": "after every document", "bos": "never", "tokenizer_sha256": BYTES.hash, "corpus": "made",
                        "corpus_sha256": "ab", "tokens": 30, "documents": 5, "bytes": 25}  # fmt: skip
    assert (tmp_path / "s" / "shard_00000.bin").stat().st_size == 60


def test_large_vocabularies_take_four_bytes(tmp_path):
    large = SymbolTokenizer("".join(map(chr, range(0x10000, 0x10000 + 2**16))))
    ids = [0, 2**16 - 1, 7]
    manifest = write(tmp_path / "s", [ids], tokenizer=large)
    assert manifest.dtype == "uint32"
    assert Shards.open(tmp_path / "s").document(0).tolist() == [*ids, 2**16]


@pytest.mark.parametrize("suffix", ["bin", "idx"])
def test_truncated_longer_altered_and_missing_shards_are_refused(tmp_path, suffix):
    write(tmp_path / "s")
    path = tmp_path / "s" / f"shard_00000.{suffix}"
    data = path.read_bytes()
    at = re.escape(str(path))
    for wrong, sentence in (
        (data[:-2], rf"the shard is truncated, {len(data) - 2} bytes and not {len(data)}"),
        (data + b"\0", rf"the shard is too long, {len(data) + 1} bytes and not {len(data)}"),
        (data[:8] + bytes([data[8] ^ 1]) + data[9:], "the shard was altered, its checksum is not the manifest's"),
    ):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=f"^{at}: {sentence}; delete the folder and prepare the data again$"):
            Shards.open(tmp_path / "s")
    Shards.open(tmp_path / "s", verify=False)  # sizes are right
    path.unlink()
    with pytest.raises(ValueError, match=f"^{at}: the shard is missing; delete"):
        Shards.open(tmp_path / "s", verify=False)


def test_errors_of_manifests_and_tokenizers(tmp_path):
    with pytest.raises(ValueError, match=r"manifest.json: no such file; .* make one with anyorder data$"):
        Shards.open(tmp_path)
    write(tmp_path / "s")
    bpe = BpeTokenizer.train(["a"], size=257)
    with pytest.raises(
        ValueError, match=f"made with tokenizer {BYTES.hash[:12]}, not {bpe.hash[:12]}; use the tokenizer"
    ):
        Shards.open(tmp_path / "s", tokenizer_hash=bpe.hash)
    path = tmp_path / "s" / "manifest.json"
    good = path.read_text()
    for text, sentence in (
        (
            good.replace('"version": 1', '"version": 2').replace('"version":1', '"version":2'),
            "version: input should be 1",
        ),
        (good.replace('"bos"', '"boss"'), "boss: extra inputs are not permitted"),
        (good[:40], "not a JSON text"),
        ("[]", "the manifest: input should be a valid dictionary"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"manifest.json: {sentence}"):
            Shards.open(tmp_path / "s")


def test_errors_of_writing_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"^made: holds no document; give at least one that is not empty$"):
        write(tmp_path / "s", [])
    with pytest.raises(
        ValueError, match=r"^document 1: holds a token id outside 0..256; was another tokenizer used\?$"
    ):
        write(tmp_path / "s", [[1], [257]])
    with pytest.raises(ValueError, match=r"^document 0: holds a token id outside"):
        write(tmp_path / "s", [[-1]])
    assert not list(tmp_path.iterdir())
    write(tmp_path / "s")
    with pytest.raises(ValueError, match=r"already exists; delete it or choose another folder$"):
        write(tmp_path / "s")
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    written = []

    def write_bytes(path, data):
        written.append(path)
        path.touch()
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return len(data)

    monkeypatch.setattr(shards_file.Path, "write_bytes", write_bytes)
    with pytest.raises(
        OSError, match=r"disk full while writing .*/s; nothing was half-written, free some space"
    ) as error:
        write(tmp_path / "s", tokens_per_shard=1)
    assert error.value.errno == errno.ENOSPC
    assert len(written) == 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, PermissionError])
def test_an_interrupted_folder_leaves_nothing(tmp_path, error):
    def fill(new):
        (new / "x").write_text("half")
        raise error

    with pytest.raises(error):
        make_once(tmp_path / "f", fill)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_not_there_before_it_is_whole(tmp_path):
    folder = tmp_path / "deep" / "f"
    seen = []

    def fill(new):
        (new / "x").write_text("1")
        seen.append(folder.exists())

    assert make_once(folder, fill)
    assert not make_once(folder, fill)
    assert seen == [False]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["f"]


KILLED = """
import os, sys
from pathlib import Path
from anyorder.data.atomic import make_once

def fill(new):
    (new / "old").write_text("half")
    os.kill(os.getpid(), 9)

make_once(Path(sys.argv[1]), fill)
"""


def test_what_a_killed_process_left_behind_is_removed(tmp_path):
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "f")], check=False)
    assert died.returncode == -signal.SIGKILL
    assert not (tmp_path / "f").exists()
    assert list(tmp_path.rglob("old"))
    assert make_once(tmp_path / "f", lambda new: (new / "new").touch())
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["f", "f/new"]


@pytest.mark.parametrize("name", list("abcdefgh"))
def test_writers_at_the_same_time_do_the_work_once(tmp_path, name):
    worked = []

    def fill(new):
        (new / "x").write_text("1")
        time.sleep(0.005)
        worked.append(1)

    def work():
        make_once(tmp_path / name, fill)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert not any(thread.is_alive() for thread in threads)
    assert worked == [1]
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_waiter_takes_the_lock_that_counts(tmp_path):
    """The holder it waited for removed the lock file, and a third made a new one: it must wait for the third, too."""
    path, entered = tmp_path / "lock", threading.Event()

    def wait():
        with waiting_lock(path):
            entered.set()

    first = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(first, fcntl.LOCK_EX)
    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)  # it waits for the file that goes now
    path.unlink()
    with waiting_lock(path):
        os.close(first)
        assert not entered.wait(0.1)
    assert entered.wait(600)
    thread.join()
    assert not path.exists()
