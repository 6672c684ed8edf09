"""Meissonic: its layout, its network against a second forward pass, painting by our sampler, learning from a reward."""

import json
import math
from pathlib import Path

import pytest
import torch
from meissonic_folder import PUBLISHED, TRANSFORMER, Second, shapes, write_folder
from safetensors.torch import load_file, save_file

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas
from anyorder.guidance.classifier_free import guided
from anyorder.hub.meissonic import load_meissonic, meissonic_config
from anyorder.models import meissonic
from anyorder.models.meissonic import MeissonicNetwork
from anyorder.rl.advantage import group_advantages
from anyorder.rl.config import ObjectiveConfig
from anyorder.rl.parts import check_parity
from anyorder.rl.rollout import replayed, roll_out
from anyorder.rl.update import model_gradients
from anyorder.samplers.base import generate
from anyorder.samplers.schedules import hand
from anyorder.samplers.steered import Steered

diffusers = pytest.importorskip("diffusers", reason="diffusers is an extra (images)")
transformers = pytest.importorskip("transformers", reason="transformers is an extra (images)")

NOISE = Noise.of(5)
PROMPTS = ["a red cube", "two dogs"]
SIZE = (32, 32)  # 8 x 8 tokens
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("meissonic") / "published")


@pytest.fixture(scope="module")
def painter(folder):
    return load_meissonic(folder)


@pytest.fixture
def model(painter):
    return painter.asked(PROMPTS, negative="blurry", size=SIZE)


def second(folder):
    return Second(TRANSFORMER, load_file(folder / "transformer" / WEIGHTS))


def prompt_of(model, number):
    return model.prompts.states[number], model.prompts.pooled[number], model.prompts.micro[number]


def partly_written(model, prompt=(1, 2, 2)):
    """Rows in which about half of the image is there."""
    canvas = model.blank(torch.tensor(prompt))
    row, place = torch.arange(len(prompt))[:, None], torch.arange(canvas.x.shape[1])
    u = NOISE.at("u").uniform(row, place)
    given = (u < 0.5) & ~canvas.fixed
    x = torch.where(given, (u * 2 * TRANSFORMER["codebook_size"]).long(), canvas.x)
    return Canvas(x, canvas.fixed, canvas.window, None, canvas.row_id)


def test_names_shapes_and_totals_of_the_published_sizes():
    for config in (PUBLISHED, TRANSFORMER | {"downsample": False, "upsample": False}):
        with torch.device("meta"):
            network = MeissonicNetwork(meissonic_config(config, source="config.json"))
        assert {name: tuple(p.shape) for name, p in network.named_parameters()} == shapes(config)
        assert network.state_dict().keys() == shapes(config).keys()
    assert sum(math.prod(shape) for shape in shapes(PUBLISHED).values()) == 1_006_946_304
    assert len(shapes(PUBLISHED)) == 867


@pytest.mark.parametrize("halves", [True, False])
def test_a_second_forward_pass_agrees(tmp_path, halves):
    config = TRANSFORMER | {"downsample": halves, "upsample": halves}
    painter = load_meissonic(write_folder(tmp_path / "m", config=config))
    model = painter.asked(PROMPTS, negative="blurry", size=(24, 32))
    assert isinstance(model, Denoiser)
    canvas = partly_written(model)
    found = model(canvas, canvas.open(model.vocab))
    again = Second(config, load_file(tmp_path / "m" / "transformer" / WEIGHTS))
    rows = []
    for x in canvas.x:
        tokens = x[1:].view(6, 8)
        asked = prompt_of(model, int(x[0]) - TRANSFORMER["vocab_size"])
        rows.append(again.logits(tokens, *asked)[tokens == model.vocab.mask_id])
    wanted = torch.cat(rows)
    assert wanted.std() > 0.3
    torch.testing.assert_close(found.double(), wanted, atol=2e-4, rtol=2e-4)


def test_half_precision_is_near(folder, painter):
    names = {"negative": "blurry", "size": SIZE}
    whole, half = (p.asked(PROMPTS, **names) for p in (painter, load_meissonic(folder, dtype=torch.bfloat16)))
    canvas = partly_written(whole)
    at = canvas.open(whole.vocab)
    apart = whole(canvas, at) - half(canvas, at)
    assert 0 < float(apart.square().mean().sqrt()) < 0.1


def test_prompts_are_read_as_published(painter, folder, model):
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    clip = transformers.CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder")
    ids = [tokenizer(text).input_ids for text in ("blurry", *PROMPTS)]
    assert [tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids[1:]] == PROMPTS
    padded = torch.tensor([row + [tokenizer.pad_token_id] * (77 - len(row)) for row in ids])
    with torch.no_grad():
        said = clip(padded, output_hidden_states=True)
    torch.testing.assert_close(model.prompts.states, said.hidden_states[1])  # of two layers the one before the last
    torch.testing.assert_close(model.prompts.pooled, said.text_embeds)
    wide = painter.asked(["x " * 200], size=(24, 32))
    assert wide.prompts.states.shape == (2, 77, 24)
    assert wide.prompts.micro.tolist() == [[32.0, 24.0, 0.0, 0.0, 6.0]] * 2


def test_guidance_is_the_published_one(folder, model):
    again, canvas = second(folder), partly_written(model, prompt=(1,))
    given = canvas.x != model.vocab.mask_id
    canvas = Canvas(canvas.x, given, canvas.window, None, canvas.row_id)  # inpainting: what is there is given
    at, tokens = canvas.open(model.vocab), canvas.x[0, 1:].view(8, 8)
    without, with_it = (again.logits(tokens, *prompt_of(model, number))[tokens == 39] for number in (0, 1))
    scale = 9.0  # theirs; ours is one less
    wanted = (without + scale * (with_it - without)).log_softmax(-1)
    found = guided(model, canvas, at, torch.tensor([scale - 1]).double(), without="absent").log_softmax(-1)
    torch.testing.assert_close(found.double(), wanted, atol=5e-3, rtol=1e-3)
    assert (without - with_it).abs().max() > 0.1
    hidden = guided(model, canvas, at, torch.tensor([scale - 1]).double(), without="masked").log_softmax(-1)
    assert (hidden - found).abs().max() > 0.1  # the other way of guiding hides the given part of the image too


def paint(model, prompt, *, row_id=None):
    sampler = Steered(hand("meissonic", 6), without="absent")
    canvas = model.blank(torch.tensor(prompt))
    ids = canvas.row_id if row_id is None else torch.tensor(row_id)
    return generate(sampler, model, Canvas(canvas.x, canvas.fixed, canvas.window, None, ids), noise=NOISE)


def test_our_sampler_paints(painter, model):
    done = paint(model, [1, 2, 1])
    tokens = model.image(done.canvas.x)
    assert tokens.shape == (3, 8, 8)
    assert int(tokens.max()) < TRANSFORMER["codebook_size"]
    assert done.nfe.tolist() == [12, 12, 12]  # with the prompt and without
    assert done.order[:, 1:].amax(-1).tolist() == [5, 5, 5]
    assert torch.equal(done.canvas.x, paint(model, [1, 2, 1]).canvas.x)
    for row, prompt in enumerate([1, 2, 1]):
        alone = paint(model, [prompt], row_id=[row])
        assert torch.equal(alone.canvas.x[0], done.canvas.x[row])
        torch.testing.assert_close(alone.logp[0], done.logp[row], atol=1e-3, rtol=1e-4)
    assert not torch.equal(tokens[0], tokens[2])  # the same prompt, another row
    assert not torch.equal(paint(model, [2], row_id=[0]).canvas.x[0, 1:], done.canvas.x[0, 1:])  # the other way round
    pixels = painter.pixels(tokens)
    assert pixels.shape == (3, 32, 32, 3)
    assert pixels.dtype == torch.uint8
    assert len(pixels.unique()) > 50


def test_pixels_are_the_published_decoding(painter, folder):
    vq = diffusers.VQModel.from_pretrained(folder / "vqvae", low_cpu_mem_usage=False)
    tokens = (NOISE.at("tokens").uniform(torch.arange(2)[:, None], torch.arange(24)) * 32).long().view(2, 4, 6)
    with torch.no_grad():
        picture = vq.decode(tokens, force_not_quantize=True, shape=(2, 4, 6, 6)).sample.clip(0, 1)
    assert torch.equal(painter.pixels(tokens), (picture.permute(0, 2, 3, 1) * 255).round().to(torch.uint8))


@pytest.mark.parametrize("kind", ["fill", "augmented"])
def test_it_learns_from_a_reward(painter, kind):
    model = painter.asked(PROMPTS, size=(16, 16)).requires_grad_(True)
    sampler = Steered(hand("meissonic", 3, guidance=0.25), without="absent")
    canvas = model.blank(torch.tensor([1, 1, 1, 2, 2, 2]))
    taken = roll_out(model, sampler, canvas, noise=NOISE, policy=None, explore=False)
    assert replayed(kind, sampler, model, taken) < 1e-4
    reward = (model.image(taken.final) < 16).double().mean((1, 2))
    options = {"kind": kind, "config": ObjectiveConfig(), "rows_per_pass": 4}
    found = model_gradients(model, sampler, taken, group_advantages(reward, size=3), **options)
    check_parity(taken, found)
    norms = {name: float(p.grad.norm()) for name, p in model.named_parameters() if p.grad is not None}
    assert len(norms) == len(shapes(TRANSFORMER))
    assert all(math.isfinite(norm) for norm in norms.values())
    assert norms["network.mlm_layer.conv2.weight"] > 1e-4
    model.zero_grad()
    model.requires_grad_(False)


def changed(folder, target, **keys):
    path = folder / target / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return path


@pytest.mark.parametrize(
    ("target", "keys", "said"),
    [
        ("transformer", {"upsample": False}, "upsample=False: only True"),
        ("transformer", {"patch_size": 2}, "patch_size=2: only 1"),
        ("transformer", {"axes_dims_rope": [4, 6, 8]}, r"axes_dims_rope=\[4, 6, 8\]: must be even"),
        ("transformer", {"pooled_projection_dim": 24}, "pooled_projection_dim=24: must be"),
        ("transformer", {"vocab_size": 33}, "vocab_size=33: must be >= codebook_size"),
        ("transformer", {"num_layers": 3}, r"tensor 'transformer_blocks.2[^ ]*' is missing"),
        ("transformer", {"joint_attention_dim": None}, "'joint_attention_dim' is missing"),
        ("transformer", {"axes_dims_rope": None}, "axes_dims_rope"),
        ("vqvae", {"num_vq_embeddings": 16}, "num_vq_embeddings=16: only 32"),
        ("vqvae", {"norm_type": "spatial"}, "norm_type='spatial': only 'group'"),
        ("text_encoder", {"projection_dim": 16}, "of another shape: text_projection.weight"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, target, keys, said):
    place = write_folder(tmp_path / "m")
    path = changed(place, target, **keys)
    with pytest.raises(ValueError, match=said) as error:
        load_meissonic(place)
    assert str(path.parent) in str(error.value)


def test_missing_files_and_tensors_are_named(tmp_path):
    place = write_folder(tmp_path / "m")
    weights = place / "transformer" / WEIGHTS
    tensors = load_file(weights)
    save_file(tensors | {"embed.extra": torch.ones(1)}, weights)
    with pytest.raises(ValueError, match=r"'embed.extra' is unknown"):
        load_meissonic(place)
    del tensors["project_to_hidden.weight"]
    save_file(tensors, weights)
    with pytest.raises(ValueError, match=r"'project_to_hidden.weight' is missing"):
        load_meissonic(place)
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ValueError, match=rf"missing .*transformer/{WEIGHTS} \(MeissonFlow/Meissonic on the hub\)"):
        load_meissonic(place)


def test_a_text_encoder_of_another_width_is_refused(tmp_path):
    place = write_folder(tmp_path / "m", config=TRANSFORMER | {"joint_attention_dim": 16})
    with pytest.raises(
        ValueError, match=r"hidden_size, projection_dim=\(24, 32\), and the transformer reads \(16, 32\)"
    ):
        load_meissonic(place)


def test_a_text_encoder_with_a_hole_is_refused(tmp_path):
    place = write_folder(tmp_path / "m")
    tensors = load_file(place / "text_encoder" / "model.safetensors")
    del tensors["text_projection.weight"]
    save_file(tensors, place / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"text_encoder: tensors are missing .*text_projection.weight"):
        load_meissonic(place)


def test_without_its_libraries_it_says_what_to_install(folder, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(meissonic.importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"needs the diffusers library; .*pip install 'anyorder\[images\]'"):
        load_meissonic(folder)


def test_impossible_sizes_and_prompts_are_refused(painter, model):
    with pytest.raises(ValueError, match="multiples of 4 pixels"):
        painter.asked(PROMPTS, size=(30, 32))
    with pytest.raises(ValueError, match="must be even"):
        painter.asked(PROMPTS, size=(20, 32))
    with pytest.raises(ValueError, match=r"prompt=\[3\]: must be in \[0, 2\]"):
        model.blank(torch.tensor([3]))


def test_the_documented_lines_paint(folder, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    lines = page.split("<!-- needs the extra images -->\n```python\n")[1].split("\n```\n")[0]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "meissonic").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(lines.replace("(1024, 1024)", "(16, 16)"), names)
    assert names["pictures"].shape == (2, 16, 16, 3)
    assert Path("image.png").read_bytes().startswith(b"\x89PNG")
