"""The four public scorers of images as rewards: ImageReward, HPS v2, GenEval's detector, DPG-Bench's answering model.

Each reads the picture and the caption of a row (`PicturedTask`). Its package and its weights must be there: nothing is
downloaded, and one sentence says which package is missing and which file goes where.
"""

import contextlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from anyorder.core.config import nearest
from anyorder.core.text import json_rows
from anyorder.data.geneval import COUNTING, THRESHOLD, Found, Request, evaluate, kept
from anyorder.data.tasks.base import PicturedTask
from anyorder.rl.rewards import dpg, hps, image_reward
from anyorder.rl.rewards.base import Samples

Asked = TypeVar("Asked")
Picture = UInt8[Tensor, "H W 3"]
THUDM: Final = "THUDM/ImageReward on the hub"
VERSIONS: Final = {"v2.0": "HPS_v2_compressed.pt", "v2.1": "HPS_v2.1_compressed.pt"}
DETECTOR: Final = "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco"
ANSWERER: Final = "mplug_visual-question-answering_coco_large_en"
COLORS: Final = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES: Final = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
GREY: Final = 0x99  # what hides the surroundings of an object whose colour is asked


def require(
    name: str, weights: str, *, packages: Mapping[str, str], files: Mapping[str, str]
) -> tuple[list[Any], Path]:
    """The modules of a scorer, and the folder of its files, which is `weights`/`name`.

    Args:
        packages: module to import, and how its package is installed.
        files: path in the folder, and where it is published.
    Raises:
        ValueError: packages or files are missing; all of them are named.
    """
    folder = Path(weights) / name
    modules, missing = list[Any](), list[str]()
    for module, install in packages.items():
        try:
            modules.append(importlib.import_module(module))
        except ImportError:
            missing.append(f"the package {module.partition('.')[0]} ({install})")
    missing += [f"{folder / file} ({source})" for file, source in files.items() if not (folder / file).exists()]
    if missing:
        raise ValueError(f"reward {name!r}: missing {' and '.join(missing)}; put it there, nothing is downloaded")
    return modules, folder


@final
@dataclass(frozen=True)
class ImageReward:
    """ImageReward of each row: around 0 for an ordinary image, of deviation about 1. It reads 35 tokens of a caption.

    Args:
        weights: the folder in which the folder `image-reward` lies.
        device: as PyTorch names it.
    """

    task: PicturedTask
    weights: str = "scorers"
    device: str = "cpu"

    def __post_init__(self) -> None:
        _ = self._model

    @cached_property
    def _model(self) -> Any:
        packages = {"ImageReward": "pip install image-reward"}
        words = "bert-base-uncased/vocab.txt"
        files = {"ImageReward.pt": THUDM, "med_config.json": THUDM, words: "google-bert/bert-base-uncased on the hub"}
        (package,), folder = require("image-reward", self.weights, packages=packages, files=files)
        with contextlib.chdir(folder):  # the package asks for bert-base-uncased, and a folder comes before the hub
            model = package.load("ImageReward.pt", device=self.device, med_config="med_config.json")
        if (model.mean, model.std) != (image_reward.MEAN, image_reward.STD):
            raise ValueError(
                f"reward 'image-reward': the package normalises by {model.mean} and {model.std}; update it"
            )
        return model

    def __call__(self, samples: Samples) -> Float[Tensor, " B"]:
        return _scored(self.task, samples, lambda picture, caption: self._model.score(caption, _pil(picture)))


@final
@dataclass(frozen=True)
class Hps:
    """HPS v2 of each row: 100 times a cosine, 20 to 35 for customary images.

    Args:
        weights: the folder in which the folder `hps` lies.
        version: "v2.0" or "v2.1"; their scores are not comparable.
        device: as PyTorch names it.
    """

    task: PicturedTask
    weights: str = "scorers"
    version: str = "v2.0"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise ValueError(f"reward 'hps': version={self.version!r} is unknown; {nearest(self.version, VERSIONS)}")
        _ = self._parts

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        """Model, preparation of images, tokenizer; read once, where the package reads them for every image."""
        file = VERSIONS[self.version]
        packages = {"hpsv2.src.open_clip": "pip install hpsv2"}
        (clip,), folder = require("hps", self.weights, packages=packages, files={file: "xswu/HPSv2 on the hub"})
        model, _, prepare = clip.create_model_and_transforms(
            "ViT-H-14", str(folder / file), device=self.device, light_augmentation=True
        )
        return model.eval(), prepare, clip.get_tokenizer("ViT-H-14")

    def __call__(self, samples: Samples) -> Float[Tensor, " B"]:
        model, prepare, tokenize = self._parts

        @torch.no_grad()
        def score(picture: Picture, caption: str) -> float:
            image = model.encode_image(prepare(_pil(picture))[None].to(self.device))
            text = model.encode_text(tokenize([caption]).to(self.device))
            return float(hps.preference(image, text))

        return _scored(self.task, samples, score)


@final
@dataclass(frozen=True)
class GenEval:
    """1 for each row on which GenEval's detector finds what the caption asks for, else 0.

    Args:
        weights: the folder in which the folder `geneval` lies. Captions are prompts of its evaluation_metadata.jsonl.
        device: as PyTorch names it.
    """

    task: PicturedTask
    weights: str = "scorers"
    device: str = "cpu"

    def __post_init__(self) -> None:
        _ = self._parts

    @cached_property
    def _parts(self) -> tuple[Any, "Namer", list[str], dict[str, dict[str, Any]]]:
        """Detection of a picture, naming of colours, names of classes, and what each prompt asks for."""
        config, public = f"configs/mask2former/{DETECTOR}.py", "github.com/djghosh13/geneval"
        packages = {"mmdet.apis": "mmdetection 2.x", "open_clip": "pip install open-clip-torch"}
        files = {
            f"{DETECTOR}.pth": f"{public}, download_models.sh",
            config: "github.com/open-mmlab/mmdetection 2.x, with its bases",
            "ViT-L-14.pt": "openai/CLIP",
            "object_names.txt": public,
            "evaluation_metadata.jsonl": public,
        }
        (mmdet, clip), folder = require("geneval", self.weights, packages=packages, files=files)
        detector = mmdet.init_detector(str(folder / config), str(folder / f"{DETECTOR}.pth"), device=self.device)
        model, _, prepare = clip.create_model_and_transforms(
            "ViT-L-14-quickgelu", pretrained=str(folder / "ViT-L-14.pt"), device=self.device
        )
        namer = Namer(model.eval(), prepare, clip.get_tokenizer("ViT-L-14"), self.device)
        asked = {entry["prompt"]: entry for _, entry in json_rows(folder / "evaluation_metadata.jsonl")}

        def detect(picture: Picture) -> Any:
            return mmdet.inference_detector(detector, picture.flip(-1).cpu().numpy())  # blue, green, red

        return detect, namer, (folder / "object_names.txt").read_text(encoding="utf-8").splitlines(), asked

    def __call__(self, samples: Samples) -> Float[Tensor, " B"]:
        detect, namer, names, prompts = self._parts

        def score(picture: Picture, caption: str) -> float:
            asked = _asked("geneval", caption, prompts)
            request = Request.of(asked)
            threshold = COUNTING if asked["tag"] == "counting" else THRESHOLD
            painted = {clause.name for clause in request.include if clause.color is not None}
            found = []
            for name, boxes, masks in zip(names, *detect(picture)):
                for (*box, confidence), mask in zip(boxes.tolist(), masks):
                    seen = confidence > threshold and name in painted
                    color = namer(picture, torch.as_tensor(mask), tuple(box), name) if seen else None
                    found.append(Found(name, tuple(box), color, confidence))
            return float(evaluate(kept(found, threshold=threshold), request))

        return _scored(self.task, samples, score)


@final
@dataclass(frozen=True)
class Namer:
    """Names the colour of an object as GenEval does: by the nearest of ten captions, each an average of templates."""

    model: Any
    prepare: Any
    tokenize: Any
    device: str

    @torch.no_grad()
    def __call__(self, picture: Picture, mask: Bool[Tensor, "H W"], box: tuple[float, ...], name: str) -> str:
        alone = torch.where(mask[..., None], picture.cpu(), GREY).to(torch.uint8)
        crop = self.prepare(_pil(alone).crop(box))[None].to(self.device)
        image = F.normalize(self.model.encode_image(crop), dim=-1)
        captions = [[t.format(color=color, name=name) for t in TEMPLATES] for color in COLORS]
        texts = [
            F.normalize(self.model.encode_text(self.tokenize(c).to(self.device)), dim=-1).mean(0) for c in captions
        ]
        return COLORS[int((F.normalize(torch.stack(texts), dim=-1) @ image[0]).argmax())]


@final
@dataclass(frozen=True)
class Dpg:
    """DPG-Bench's score of each row, in [0, 1]: the share of its caption's questions that count as answered with yes.

    Args:
        weights: the folder in which the folder `dpg` lies. Captions are prompts of its dpg_bench.csv.
        device: "cpu" or "gpu", as ModelScope names it.
    """

    task: PicturedTask
    weights: str = "scorers"
    device: str = "cpu"

    def __post_init__(self) -> None:
        _ = self._parts

    @cached_property
    def _parts(self) -> tuple[Any, dict[str, dpg.Questions]]:
        """What answers, and the questions of each prompt."""
        table = "dpg_bench.csv"
        files = {
            f"{ANSWERER}/configuration.json": f"damo/{ANSWERER} of ModelScope",
            table: "github.com/TencentQQGYLab/ELLA",
        }
        packages = {"modelscope.pipelines": "pip install modelscope"}
        (modelscope,), folder = require("dpg", self.weights, packages=packages, files=files)
        answerer = modelscope.pipeline("visual-question-answering", model=str(folder / ANSWERER), device=self.device)
        return answerer, dpg.read_questions((folder / table).read_text(encoding="utf-8"))

    def __call__(self, samples: Samples) -> Float[Tensor, " B"]:
        answerer, prompts = self._parts

        def score(picture: Picture, caption: str) -> float:
            questions, image = _asked("dpg", caption, prompts), _pil(picture)
            said = {q.number: answerer({"image": image, "question": q.text})["text"] for q in questions.asked}
            return questions.score({number: answer == dpg.YES for number, answer in said.items()})

        return _scored(self.task, samples, score)


def _scored(task: PicturedTask, samples: Samples, score: Callable[[Picture, str], float]) -> Float[Tensor, " B"]:
    """A score for the picture and the caption of each row."""
    values = [score(task.picture(row), task.caption(row)) for row in samples.x]
    return torch.tensor(values, dtype=torch.float64, device=samples.x.device)


def _asked(name: str, caption: str, known: Mapping[str, Asked]) -> Asked:
    if caption not in known:
        raise ValueError(f"reward {name!r}: {caption!r} is none of its prompts; add it to its file of prompts")
    return known[caption]


def _pil(picture: Picture) -> Any:
    """A picture as the packages want it; all of them bring PIL."""
    return importlib.import_module("PIL.Image").fromarray(picture.cpu().numpy())
