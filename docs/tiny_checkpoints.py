"""Write a small checkpoint of every published family, with random weights: python docs/tiny_checkpoints.py tiny

Layouts and configurations are those of `tests/hub`; docs/checkpoints.md shows what `anyorder inspect`
says of them, and a test holds that up to date.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "hub"))
from checkpoints import CONFIGS, DITS, byte_tokenizer, dit_shapes, random_tensors, shapes_of, smdm_shapes, write
from test_ilm import saved


def tiny_checkpoints(out: Path) -> None:
    """One folder for each family; the folder must not be there yet."""
    for name, config in CONFIGS.items():
        if name == config["model_type"].lower():  # not its variants
            write(out / name, config, random_tensors(shapes_of(config)), tokenizer=byte_tokenizer())
    for name in ("mdlm", "bd3lm"):
        write(out / name, DITS[name], random_tensors(dit_shapes(DITS[name])), tokenizer=byte_tokenizer(mask=None))
    saved(out / "ilm")
    bare = random_tensors(smdm_shapes(causal=False, size=264))
    write(out / "smdm", None, bare, tokenizer=byte_tokenizer())


if __name__ == "__main__":
    tiny_checkpoints(Path(sys.argv[1]))
