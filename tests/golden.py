"""Golden values: what the package computes today, recorded in golden.json and compared after each change of its shape.

    python tests/golden.py record [FILE] [--only AREA] [--slow]
    python tests/golden.py check [FILE] [--only AREA] [--slow]

Minutes of one core, so no test of its own. `check` prints area by area what differs and exits 1. Each area imports what
it needs of the package at its top: after a rename only that line changes, and names in results go into `NAMES`.
Tokens, counts and texts must be equal; floats to the tolerance of their area, relative to the largest of their column.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import io
import json
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "hub"), str(HERE)]  # small checkpoints in published layouts
NAMES: dict[str, str] = {}  # today's key of a result -> its key when it was recorded
DROPPED = {"seconds", "tokens_per_second", "sha256", "package", "folder", "path", "device", "tokenizer"}
FULL, HEAD = 12, 4  # values of a column that are kept whole; of a longer one, how many beside its sums or hash
LEAST = 0.05  # of the scale of a column: below it differences are rounding, as of two equal likelihoods
SHOWN = 8  # differences of an area that are printed
Cases = Iterator[tuple[str, Any]]


# From results to columns of numbers


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar of a result under the names that lead to it; places in lists are not named."""
    if isinstance(value, Tensor):
        value = value.detach().flatten().tolist()
    elif isinstance(value, BaseModel):
        value = value.model_dump()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for key, inner in value.items():
            name = NAMES.get(str(key), str(key))
            if name not in DROPPED:
                yield from leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from leaves(inner, path)
    elif not isinstance(value, Path):
        yield path, value


def columns(value: Any) -> dict[str, Any]:
    """A result as one column for each name: exact values, and floats under the name with a ~."""
    found: dict[str, list[Any]] = {}
    for path, leaf in leaves(value):
        found.setdefault(path, []).append(leaf)
    out: dict[str, Any] = {}
    for path, values in found.items():
        floats = [v for v in values if isinstance(v, float) and math.isfinite(v)]
        exact = ["~" if isinstance(v, float) and math.isfinite(v) else str(v) if isinstance(v, float) else v
                 for v in values]  # fmt: skip
        if floats:
            out[f"{path}~"] = [short(v) for v in floats] if len(floats) <= FULL else sums(floats)
        if len(floats) < len(values):
            out[path] = exact if len(exact) <= FULL and len(str(exact)) < 400 else hashed(exact)
    return out


def short(value: float) -> float:
    return float(f"{value:.12g}")


def sums(values: list[float]) -> dict[str, Any]:
    """What a long column is compared by: its length, its first values, its sum, and a sum that knows their order."""
    moment = math.fsum(v * (i * 7919 % 997 / 997) for i, v in enumerate(values))
    total, size = math.fsum(values), math.fsum(map(abs, values))
    return {"n": len(values), "head": [short(v) for v in values[:HEAD]], "sums": [*map(short, (total, moment, size))]}


def hashed(values: list[Any]) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
    return {"n": len(values), "head": [v if len(str(v)) < 80 else str(v)[:80] for v in values[:HEAD]], "sha": digest}


def equal(old: Any, new: Any, tolerance: float) -> bool:
    """Whether two columns of floats agree, relative to the largest of them."""
    if isinstance(old, dict) != isinstance(new, dict):
        return False
    if isinstance(old, dict):
        size = old["sums"][-1]
        near = all(abs(a - b) <= tolerance * max(size, LEAST) for a, b in zip(old["sums"], new["sums"]))
        scale = max(size / old["n"], LEAST, *map(abs, old["head"]))
        heads = all(abs(a - b) <= tolerance * scale for a, b in zip(old["head"], new["head"]))
        return old["n"] == new["n"] and near and heads
    scale = max([LEAST, *map(abs, old)])
    return len(old) == len(new) and all(abs(a - b) <= tolerance * scale for a, b in zip(old, new))


def differences(old: dict[str, Any], new: dict[str, Any], tolerance: float) -> list[str]:
    out = []
    for path in sorted(old.keys() | new.keys()):
        if path not in old or path not in new:
            out.append(f"{path}: {'is new' if path not in old else 'is missing'}")
        elif not (equal(old[path], new[path], tolerance) if path.endswith("~") else old[path] == new[path]):
            out.append(f"{path}: {str(old[path])[:150]} -> {str(new[path])[:150]}")
    return out


# What several areas are about


def at(name: str) -> Any:
    from anyorder.core.noise import Noise

    return Noise.of(20).at(name)


def networks(eos: int = 0) -> dict[str, Any]:
    """Small networks of every kind with random weights, over four tokens of which one ends a document."""
    from anyorder.core.types import Vocab
    from anyorder.models.config import ModelConfig
    from anyorder.models.flexmdm import FlexTransformer
    from anyorder.models.network import network

    vocab = Vocab(size=6, mask_id=6, pad_id=7, eos_id=eos)
    shape = ModelConfig(num_layers=2, num_heads=2, d_model=16, d_ff=24, max_length=16)
    made = {
        "mdm": network(shape, vocab),
        "arm": network(shape.model_copy(update={"causal": True}), vocab),
        "ilm": network(shape.model_copy(update={"insertion": True}), vocab),
        "it": network(shape.model_copy(update={"insertion": True, "slots": True}), vocab),
        "local": network(shape.model_copy(update={"local": True, "num_kv_heads": 1, "qk_norm": True}), vocab),
        "flexmdm": FlexTransformer(shape, vocab),
    }
    return {name: sharp(model, name) for name, model in made.items()}


def sharp(model: Any, name: str) -> Any:
    """The network with random weights that make for definite opinions, none of them left at 0."""
    model.init_weights(at("weights").at(name))
    with torch.no_grad():
        for index, p in enumerate(model.parameters()):
            extra = at(name).normal(index, 0, torch.arange(p.numel())).view(p.shape)
            p.mul_(2.0).add_(0.1 * extra.to(p.dtype))
    return model


def growing(vocab: Any, given: tuple[int, ...] = (), *, rows: int = 4, room: int = 6) -> Any:
    """Rows that begin with end-of-document and some tokens, and have room to grow at the right."""
    from anyorder.core.types import Canvas

    x = torch.full((rows, 1 + len(given) + room), vocab.pad_id)
    x[:, : 1 + len(given)] = torch.tensor([vocab.eos_id, *given])
    valid = x != vocab.pad_id
    fixed = valid & (x != vocab.mask_id)
    return Canvas(x=x, fixed=fixed, window=valid.clone(), segment=valid.long(), row_id=torch.arange(rows))


# Areas: each yields the name of a case and its result


VARIED = (
    "top-prob:noise=0.5", "margin:noise=0.5", "entropy:noise=0.5", "threshold:tau=0.4", "factor:f=0.5",
    "entropy-bound:gamma=1", "low-confidence:noise=0.5", "dream-maskgit-plus:alg_temp=0.5", "dream-margin:alg_temp=0.5",
    "dream-entropy:alg_temp=0.5", "maskgit:noise=1", "moment:beta=1.5", "remdm-cap:eta=0.3", "remdm-rescale:eta=0.3",
    "remdm-conf:eta=0.5", "remdm-switch:eta=0.3,start=0.7", "remdm-loop:eta=0.3,level=0.7", "dfm-corrector:scale=3",
    "psi:kappa=0.5", "psi-plateau:kappa=0.5", "p2:eta=0.5", "llada-edit:tau=0.5,edit=0.4", "bd3-lm:crossing=1",
)  # fmt: skip
OF_EOS = ("low-confidence:logits_eos_inf=1", "low-confidence:confidence_eos_eot_inf=1,eot=1",
          "llada-random:logits_eos_inf=1")  # fmt: skip
COOL = {"temperature": 0.7, "top_k": 3, "top_p": 0.8}


def prompted(vocab: Any, length: int = 10) -> Any:
    """Three rows: empty, with a prompt on the left and on the right, and padded."""
    from anyorder.core.types import Canvas

    x = torch.full((3, length), vocab.mask_id)
    x[1, :2], x[1, -1], x[2, 4], x[2, -2:] = torch.tensor([1, 3]), 2, 1, vocab.pad_id
    return Canvas.of(x, vocab=vocab, segment=(x != vocab.pad_id).long(), row_id=torch.tensor([5, 7, 10**9]))


def written(model: Any, name: Any, canvas: Any = None, *, score: bool = False, **options: Any) -> dict[str, Any]:
    """A sample, by a preset's name and settings or by a sampler; and the likelihood of its steps, if it has one."""
    from anyorder.core.protocols import Scorable
    from anyorder.samplers.base import generate, step_log_probs, steps
    from anyorder.trace.record import Settings

    canvas = prompted(model.vocab) if canvas is None else canvas
    settings = Settings(name=name, **options) if isinstance(name, str) else None
    sampler, asked = (name, model) if settings is None else (settings.build(), settings.around(model))
    done = generate(sampler, asked, canvas, noise=at("write"))
    out = {"x": done.canvas.x, "order": done.order, "nfe": done.nfe, "revised": done.revised, "logp": done.logp}
    out["exact"] = sampler.exact
    if score and isinstance(sampler, Scorable):
        with contextlib.suppress(ValueError), torch.no_grad():  # some settings leave steps without a likelihood
            taken = list(steps(sampler, asked, canvas, noise=at("write")))
            out["scored"] = torch.stack(list(step_log_probs(sampler, asked, canvas, taken=taken))).sum(0)
    return out


def samples() -> Cases:
    from anyorder.samplers.dreamon import ExpandAndDelete
    from anyorder.samplers.flexmdm import InsertMasks
    from anyorder.samplers.plan import Planned
    from anyorder.samplers.presets import INSERTING, PRESETS
    from anyorder.samplers.schedules import HANDS, hand
    from anyorder.samplers.steered import Steered
    from anyorder.samplers.unmask import Unmask
    from anyorder.testing.growth import GrowthOracle, RandomGrowth
    from anyorder.testing.oracle import CausalView, MarkovOracle, RandomTable
    from anyorder.testing.strings import InsertionOracle, Strings

    table, chain = RandomTable(4, at("table"), scale=1.5), MarkovOracle.random(4, noise=at("chain"))
    five = Strings.of({"a": 0.25, "ab": 0.25, "abc": 0.25, "ba": 0.125, "aabb": 0.125})
    one = prompted(table.vocab, 6)
    one = replace(one, x=one.x[:1], fixed=one.fixed[:1], window=one.window[:1], segment=None, row_id=one.row_id[:1])
    for spec in (*PRESETS, *VARIED):
        paced = {"num_steps": 4} if PRESETS[spec.split(":")[0]].paced else {}
        model = CausalView(chain) if spec == "causal" else table
        yield f"{spec}, chain", written(CausalView(chain) if spec == "causal" else chain, spec, **paced)
        yield spec, written(model, spec, score=True, **paced)
        if spec in PRESETS:
            preset = PRESETS[spec]
            yield f"{spec}, as described", [preset.exact, preset.paced, preset.settings]
            if not ("256" in preset.about or "1000" in preset.about):
                yield f"{spec}, own steps", written(model, spec, one)
            yield f"{spec}, cool", written(model, spec, **paced, **COOL)
            yield f"{spec}, greedy", written(model, spec, temperature=0.0, **paced)
            yield f"{spec}, blocks", written(model, spec, block=4, **paced)
            yield f"{spec}, guided", written(model, spec, guidance=1.5, guidance_interval=(0.2, 0.9), **paced)
            yield f"{spec}, sliding", written(model, spec, window=6, stride=3, **paced)
    for name in HANDS:
        for order in ("draw_first", "choose_first"):
            sampler = Steered(hand(name, 4), order=order, tempered=name == "adanat", may_wait=name == "show-o")
            yield f"{name}, {order}", written(table, sampler)
    yield "planned", written(table, Unmask(Planned((1, 3, 6))))
    oracle = InsertionOracle(five)
    for spec in (*INSERTING, "insertion:at_once=2", "insertion:stop=0.4,position_top_p=0.7"):
        yield spec, written(oracle, spec, growing(five.vocab))
        yield f"{spec}, cool", written(oracle, spec, growing(five.vocab), **COOL)
    yield "insertion, a gap of 2 to 3", written(oracle, "insertion", growing(five.vocab), gaps=((2, 3),))
    grown = RandomGrowth(3, at("growth"))
    for order in ("uniform", "sure"):
        yield f"flexmdm, {order}", written(GrowthOracle(five), InsertMasks(order=order), growing(five.vocab))
        sampler = InsertMasks(order=order, leap=1.5)
        yield f"flexmdm, {order}, leaps", written(grown, sampler, growing(grown.vocab, (2, grown.vocab.mask_id)))
    resized = replace(RandomTable(6, at("resized")), scale=1.5)
    asked = growing(replace(resized.vocab, eos_id=0), (1, 6, 6, 2))
    yield "dreamon", written(_WithVocab(resized, replace(resized.vocab, eos_id=3)), ExpandAndDelete(budget=3), asked)


@dataclass(frozen=True)
class _WithVocab:
    """A denoiser whose vocabulary has an end of document."""

    inner: Any
    vocab: Any
    nfe: int = 1

    def __call__(self, canvas: Any, at: Tensor) -> Tensor:
        return self.inner(canvas, at)


def samples_of_networks() -> Cases:
    from anyorder.samplers.flexmdm import InsertMasks
    from anyorder.samplers.presets import INSERTING, PRESETS

    made = networks()
    for spec in (*PRESETS, *OF_EOS):
        paced = {"num_steps": 4} if PRESETS[spec.split(":")[0]].paced else {}
        if spec == "causal":
            yield spec, written(made["arm"], spec)
            yield f"{spec}, cache", written(made["arm"], spec, cache="exact", **COOL)
            continue
        yield spec, written(made["mdm"], spec, **paced)
        for cache in ("prefix", "dual"):
            yield f"{spec}, {cache}", written(made["mdm"], spec, block=5, cache=cache, **paced)
    yield "local embedding", written(made["local"], "first-hitting", guidance=1.0)
    for spec in INSERTING:
        yield spec, written(made["ilm"], spec, growing(made["ilm"].vocab))
        yield f"{spec}, slots", written(made["it"], spec, growing(made["it"].vocab))
    yield "flexmdm", written(made["flexmdm"], InsertMasks(leap=0.5), growing(made["flexmdm"].vocab, (1, 6, 2)))


def likelihoods() -> Cases:
    from anyorder.core.schedule import SCHEDULES
    from anyorder.likelihood.bound import Rows, count_form, time_form
    from anyorder.likelihood.by_count import loss_by_count
    from anyorder.likelihood.chain import chain_rule, exact_causal, order_mixture
    from anyorder.likelihood.conditional import Question, score_answers
    from anyorder.likelihood.exact import any_order_mixture, nelbo_any_order, nelbo_enumerated
    from anyorder.likelihood.given import given_bound
    from anyorder.likelihood.groups import group_nll
    from anyorder.likelihood.insertion import insertion_bound, insertion_exact
    from anyorder.likelihood.references import llada_form, smdm_form
    from anyorder.likelihood.rolling import rolling
    from anyorder.likelihood.subsets import subset_form
    from anyorder.rl.estimators import ESTIMATORS
    from anyorder.rl.estimators.spg import sandwich
    from anyorder.rl.estimators.trace import trace
    from anyorder.samplers.forced import Forced
    from anyorder.samplers.presets import make_sampler
    from anyorder.testing.oracle import CausalView, MarkovOracle, RandomTable
    from anyorder.testing.strings import InsertionOracle, Strings

    table, chain = RandomTable(4, at("table")), MarkovOracle.random(4, noise=at("chain"))
    left, noise = CausalView(chain), at("estimate")
    x = chain.sample(4, 6, noise=at("rows"))
    target = torch.ones_like(x, dtype=torch.bool)
    target[1, :2], target[2, 3:] = False, False
    ids = torch.tensor([3, 1, 4, 10**9])
    rows, whole = Rows(x, target, None, ids), Rows(x[[0, 3]], target[[0, 3]], None, ids[:2])
    plain = {"target": target, "row_id": ids}
    for name, model in {"table": table, "chain": chain}.items():
        yield f"count form, {name}", count_form(model, x, draws=16, noise=noise, **plain)
        for schedule, kind in SCHEDULES.items():
            with contextlib.suppress(ValueError):  # schedules that end short of their ends have no time form
                form = time_form(model, x, draws=16, noise=noise, schedule=kind(), **plain)
                yield f"time form, {schedule}, {name}", form
        yield f"chain rule, {name}", chain_rule(model, x, **plain)
        yield f"chain rule, backwards, {name}", chain_rule(model, x, order=-torch.arange(6).expand(4, -1), **plain)
        yield f"orders, {name}", order_mixture(model, x, orders=3, noise=noise, **plain)
        for exact in (nelbo_enumerated, nelbo_any_order, any_order_mixture):
            yield f"{exact.__name__}, {name}", exact(model, x, target=target)
        yield f"SMDM, {name}", smdm_form(model, rows, draws=32, noise=noise)
        yield f"LLaDA, {name}", llada_form(model, rows, draws=32, noise=noise)
        yield f"subsets, {name}", subset_form(model, whole)
        yield f"given, {name}", given_bound(model, whole, draws=8, noise=noise)
        yield f"groups, {name}", group_nll(model, x, groups=[1, 2, 3], row_id=ids, noise=noise)
        yield f"by count, {name}", loss_by_count(model, x, counts=[1, 2, 3], noise=noise, **plain)
        for kind, estimator in ESTIMATORS.items():
            yield f"rl {kind}, {name}", estimator(model, rows, noise=noise)
        yield f"rl sandwich, {name}", sandwich(model, rows, noise=noise, draws=2)
        yield f"rl trace, {name}", trace(model, rows, step_map=torch.arange(6).expand(4, -1) % 4)
    yield "causal", exact_causal(left, x, **plain)
    documents = [chain.sample(1, n, noise=at("document").at(n))[0].tolist() for n in (3, 11, 20)]
    oracle = InsertionOracle(Strings.of({"a": 0.25, "ab": 0.25, "abc": 0.25, "ba": 0.125, "aabb": 0.125}))
    texts = [[0], [0, 1], [0, 0, 1, 1]]
    settings = {"draws": 8, "noise": noise, "length": 8}
    for kind, model in {"count": table, "chain": table, "causal": left}.items():
        yield f"rolling, {kind}", rolling(model, documents, names=[1, 2, 3], estimator=kind, context=3, **settings)
        questions = [Question((1, 2), ((0,), (1, 3), (2, 0, 1, 2, 3))), Question((), ((0, 1, 2, 3, 1), (1, 1)))]
        yield f"answers, {kind}", score_answers(model, questions, estimator=kind, draws=8, noise=noise)
    yield "answers, until settled", score_answers(table, questions, noise=noise)
    yield "rolling, insertion", rolling(oracle, texts, names=[1, 2, 3], estimator="insertion", **settings)
    y = torch.tensor([[0, 0, 1, 1], [0, 1, 2, oracle.vocab.eos_id]])
    everywhere = torch.ones_like(y, dtype=torch.bool)
    yield "insertion bound", insertion_bound(oracle, y, target=everywhere, row_id=ids[:2], draws=8, noise=noise)
    yield "insertion exact", insertion_exact(oracle, y, row_id=ids[:2])
    for spec in ("top-prob", "threshold:tau=0.5", "entropy-bound:gamma=0.7"):
        canvas = prompted(table.vocab, 6)
        blank = replace(canvas, x=torch.full_like(x, table.vocab.mask_id)[:3], fixed=target[:3] & False, segment=None)
        yield f"forced, {spec}", written(table, Forced(make_sampler(spec), x[:3], canvas.row_id), blank)["logp"]


def processes() -> Cases:
    from anyorder.core.types import Batch
    from anyorder.processes import PROCESSES, ProcessConfig
    from anyorder.processes.dreamon import DreamOn
    from anyorder.processes.flexmdm import FlexMDM

    made = networks(eos=3)
    made |= {"smdm": made["mdm"], "dreamon": made["mdm"]}
    x = torch.tensor([[0, 2, 1, 1, 0], [2, 0, 0, 1, 7], [1, 0, 2, 7, 7], [0, 1, 3, 2, 2]])
    target = torch.ones_like(x, dtype=torch.bool) & (x != 7)
    target[1, :2] = False
    segment = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 2, 2]])
    configs = [{"form": "time"}, {"form": "time", "schedule": "cosine-mdlm", "t_min": 1e-3}, {"weight": "flat"}]
    configs += [{"density": "bell"}, {"density": "bell", "bell_steps": 1}, {"draw": "independent"}]
    configs += [{"kind": "ilm", "length_weight": "document"}, {"kind": "ilm", "stop_class_weight": 0.3}]
    configs += [{"kind": "ilm", "stop_loss_weight": 0.5, "draw": "independent"}, {"kind": "it", "tau": 0.5}]
    cases = {name: (name, build()) for name, build in PROCESSES.items()}
    cases |= {str(c): (c.get("kind", "mdm"), ProcessConfig(**c).build(group=4)) for c in configs}
    cases |= {"flexmdm, rate 1": ("flexmdm", FlexMDM(rate=1.0)), "dreamon": ("dreamon", DreamOn(deletions=3))}
    for name, (kind, process) in cases.items():
        model, records = made[kind], []
        for step in range(5):
            model.zero_grad()
            batch = Batch(x, target, segment, torch.arange(4) + 4 * step)
            loss = process.loss(model, batch, noise=at("corrupt"))
            loss.total.backward()
            grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
            weights = [torch.linspace(-1, 1, g.numel(), dtype=torch.float64) for g in grads]
            check = [float((g.double().flatten() * w).sum()) for g, w in zip(grads, weights)]
            norm = float(torch.stack([g.double().square().sum() for g in grads]).sum().sqrt())
            records.append({"loss": loss, "norm": norm, "check": check})
        yield name, records


def rl() -> Cases:
    from anyorder.core.log import read_records
    from anyorder.models.config import ModelConfig
    from anyorder.models.transformer import Transformer
    from anyorder.rl.config import RlConfig
    from anyorder.rl.estimators import ESTIMATORS
    from anyorder.rl.loop import METRICS, learn
    from anyorder.rl.make import make_lesson

    usual = {"task": "scenes:grid=4,num_train=24,num_valid=6,num_test=6", "mode": "joint", "dtype": "float32",
             "schedule": {"num_steps": 3, "body": "table"}, "prompts": 2, "group": 4, "iterations": 3,
             "lr_model": 3e-3, "lr_schedule": 3e-2, "evaluate_every": 3, "evaluate_problems": 4, "save_every": 3,
             "reward": "cells"}  # fmt: skip
    table = usual["schedule"]
    order = {"likelihood": "position_first", "sampler": {"order": "choose_first"}}
    cases = {kind: {"likelihood": kind, "inner": 2} for kind in ("fill", "all", "augmented", *ESTIMATORS)}
    cases |= {f"body {body}": {"schedule": {"num_steps": 3, "body": body}} for body in ("figures", "adaptive")}
    cases |= {mode: {"mode": mode, "model_iterations": 1, "schedule_iterations": 1}
              for mode in ("model_only", "schedule_only", "alternate")}  # fmt: skip
    cases |= {f"explore {e}": {"schedule": table | {"explore": e}, "likelihood": "augmented"}
              for e in ("ratio", "ratio-only")}  # fmt: skip
    cases |= {
        "position first": order,
        "position first, ratio": order | {"schedule": table | {"explore": "ratio"}},
        "counts": {"schedule": table | {"counts": True}},
        "prices": {"step_price": 0.1, "step_price_max": 0.5, "evaluate_prices": 2, "sampler": {"may_finish": True}},
        "wd1": {"objective": {"wd1": True}},
        "kl": {"objective": {"beta": 0.1, "beta_schedule": 0.1}, "inner": 2},
        "kl k1, dapo": {"objective": {"beta": 0.1, "kl": "k1", "normaliser": "dapo", "level": "sequence"}},
        "kl k2, dr_grpo": {"objective": {"beta": 0.1, "kl": "k2", "normaliser": "dr_grpo", "scale": "none"}},
        "bnpo, batch": {"objective": {"normaliser": "bnpo", "scale": "batch", "std": "population"}, "decay": 0.5},
        "lora": {"lora": 2},
        "a sum of rewards": {"reward": "cells+0.5*format", "reward_scale": True, "reward_shared": True},
        "apart": {"common_noise": False, "mode": "schedule_only", "schedule": table | {"hand": "show-o"}},
        "countdown": {"task": "countdown:num_train=12,num_valid=4,num_test=4", "reward": "format+correct"},
        "sudoku": {"task": "sudoku:num_train=12,num_test=4", "reward": "correct+0.1*cells"},
    }
    for name, changed in cases.items():
        config = RlConfig.model_validate(usual | changed)
        lesson = make_lesson(config)
        shape = ModelConfig(num_layers=1, num_heads=2, d_model=16, d_ff=24, max_length=lesson.task.length)
        model = Transformer(shape, lesson.task.tokenizer.vocab)
        model.init_weights(at("weights"))
        with tempfile.TemporaryDirectory() as folder:
            learn(config, model, lesson.task.tokenizer, lesson, Path(folder), quiet=True)
            records = read_records(Path(folder) / METRICS)
        parameters = torch.stack([p.detach().double().square().sum().sqrt() for p in model.parameters()])
        yield name, {"records": records, "weights": parameters}


CORPUS = "".join(
    f"def {a}_{b}(x, y):\n    return x {o} y\n\n" for a in ("ada", "bob", "cy") for b in "stuv" for o in "+-*"
)


def runs() -> Cases:
    """Five steps of training of every kind, on text and on tasks: what is logged, and the weights."""
    from anyorder.core.log import read_records
    from anyorder.train.config import RunConfig
    from anyorder.train.data import run_data
    from anyorder.train.loop import METRICS, train

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        texts = [t for t in CORPUS.split("\n\n") if t]
        (place / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
        text = {"corpus": str(place / "texts.jsonl"), "cache": str(place / "cache"), "tokenizer": "bytes", "length": 48}
        whole, bpe = text | {"packing": "documents"}, text | {"tokenizer": "bpe", "vocab_size": 270}
        usual = {"data": text, "size": "tiny", "dtype": "float32", "batch": {"rows": 8}, "num_steps": 5,
                 "log_every": 1, "evaluate": {"every": 5, "rows": 8, "draws": 2}, "save_every": 5}  # fmt: skip
        cases: dict[str, dict[str, Any]] = {
            "mdm": {"process": {"kind": "mdm"}, "batch": {"rows": 8, "num_micro": 2}},
            "arm": {"process": {"kind": "arm"}},
            "ilm": {"process": {"kind": "ilm"}, "data": whole},
            "it": {"process": {"kind": "it"}, "data": whole},
            "time form": {
                "process": {"form": "time", "schedule": "cosine-mdlm"},
                "optim": {"kind": "muon", "ema": 0.9},
            },
            "bell, wsd": {"process": {"density": "bell", "bell_steps": 3}, "optim": {"schedule": "wsd"}},
            "documents, random lengths": {"data": whole | {"random_length": 0.5}, "optim": {"schedule": "constant"}},
            "bpe": {"data": bpe, "seed": 3},
        }
        small = {"sudoku": "sudoku", "star": "star:num_train=30,num_valid=6,num_test=6",
                 "arithmetic": "arithmetic:num_test=6", "zebra": "zebra", "nae-sat": "nae-sat",
                 "countdown": "countdown:num_train=30,num_valid=6,num_test=6"}  # fmt: skip
        cases |= {f"task {name}": {"task": spec} for name, spec in small.items()}
        cases["task star, ilm"] = {"task": small["star"], "process": {"kind": "ilm"}}
        for number, (name, changed) in enumerate(cases.items()):
            config = RunConfig.model_validate(usual | changed)
            out = place / str(number)
            train(config, run_data(config), out, quiet=True)
            yield name, read_records(out / METRICS)


def families() -> Cases:
    """The logits of a small random checkpoint of every published layout, through its folder."""
    import checkpoints as made
    import meissonic_folder
    import test_ilm

    from anyorder.core.types import Canvas
    from anyorder.hub.convert import convert
    from anyorder.hub.load import load_model
    from anyorder.hub.meissonic import load_meissonic

    def logits(folder: Path, *, canvas: Any = None) -> dict[str, Any]:
        loaded = load_model(folder)
        vocab = loaded.model.vocab
        u = at("ids").uniform(torch.arange(2)[:, None], 0, torch.arange(12))
        x = (u * 256).long().masked_fill(u < 0.3, vocab.mask_id)
        asked = Canvas.of(x, vocab=vocab) if canvas is None else canvas(vocab=vocab)
        with torch.no_grad():
            said = loaded.model(asked, torch.ones_like(asked.fixed))
        return {"kind": loaded.kind, "vocab": vocab, "logits": said}

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, config in made.CONFIGS.items():
            tensors = made.random_tensors(made.shapes_of(config))
            yield name, logits(made.write(place / name, config, tensors, tokenizer=made.byte_tokenizer()))
            convert(place / name, place / f"{name} ours")
            yield f"{name}, converted", logits(place / f"{name} ours")
        for name, config in made.DITS.items():
            tensors = made.random_tensors(made.dit_shapes(config)) | made.dit_buffers(config)
            yield name, logits(made.write(place / name, config, tensors, tokenizer=made.byte_tokenizer(mask=None)))
        (place / "tokenizer.json").write_text(made.sentencepiece_tokenizer())
        for causal in (False, True):
            bare = made.write(
                place / f"b{causal}", None, made.random_tensors(made.smdm_shapes(causal=causal, size=265))
            )
            convert(bare / "model.safetensors", place / f"s{causal}", tokenizer=place / "tokenizer.json", heads=4)
            yield f"smdm, {'arm' if causal else 'mdm'}", logits(place / f"s{causal}")
        rows = ([5, 6, 7], [8, 9, 10, 11, 4])
        test_ilm.saved(place / "ilm")
        yield "ilm", logits(place / "ilm", canvas=lambda vocab: test_ilm.canvas_of(*rows, vocab=vocab))
        try:
            meissonic_folder.write_folder(place / "meissonic")
        except ImportError:
            return  # the libraries of images are not installed: what is recorded of them is not compared
        model = load_meissonic(place / "meissonic").asked(["a red cube", "two dogs"], negative="blurry", size=(32, 32))
        canvas = model.blank(torch.tensor((1, 2, 2)))
        yield "meissonic", model(canvas, canvas.open(model.vocab))


PROMPT = "def add(a, b):\n    return"


def api() -> Cases:
    """The starter through the Python API, and insertion and autoregressive models beside it."""
    import anyorder
    from anyorder import GAP
    from anyorder.data.tokenizer import ByteTokenizer
    from anyorder.hub.save import save_model
    from anyorder.models.config import ModelConfig
    from anyorder.models.network import network

    model = anyorder.load("starter", device="cpu")
    yield "sample", model.sample(PROMPT, n=2, length=24, seed=3)
    yield "sample, cool", model.sample(PROMPT, length=24, sampler="top-prob", num_steps=6, **COOL)
    yield "sample, blocks", model.sample(length=16, sampler="low-confidence", num_steps=2, block=8, cache="dual")
    yield "sample, guided", model.sample(PROMPT, length=20, guidance=1.0, guidance_interval=(0.0, 0.8), num_steps=5)
    yield "sample, longer than the model", model.sample(length=model.max_length + 8, num_steps=8, stride=64)
    yield "infill", model.infill(["def ", GAP(3), "(a, b):\n    return a", GAP(2), "\n"], n=2, seed=1)
    yield "infill, a range", model.infill(["import os\n\n", GAP(1, 3), "\n"], sampler="top-prob", temperature=0.0)
    held: list[Any] = []
    model.infill(["a = ", GAP(4)], sampler="remdm-cap", num_steps=6, on_record=held.append)
    yield "record", held
    yield "score", model.score([PROMPT, "import os\n" * 40], draws=4, context=8)
    yield "answer", model.answer("import ", ["os", "sys\n", "return x"])
    yield "answer, draws", model.answer("import ", ["os.path.join(a, b, c)", "x"], draws=8, guidance=0.5)
    tokenizer = ByteTokenizer()
    shape = ModelConfig(num_layers=1, num_heads=2, d_model=16, d_ff=16, max_length=25)
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("arm", "ilm"):
            values = {"causal": kind == "arm", "insertion": kind == "ilm"}
            net = network(shape.model_copy(update=values), tokenizer.vocab)
            save_model(Path(folder) / kind, sharp(net, kind), tokenizer)
            other = anyorder.load(Path(folder) / kind, device="cpu")
            yield f"{kind}, sample", other.sample("ab", n=2, length=12, seed=2)
            gaps = ["ab", GAP(3)] if kind == "arm" else ["ab", GAP(1, 4), "c", GAP()]
            yield f"{kind}, infill", other.infill(gaps, n=2, seed=2)
            yield f"{kind}, score", other.score(["abcd"], draws=4)
            if kind == "arm":
                yield f"{kind}, answer", other.answer("ab", ["c", "de"])


def said(*words: str) -> dict[str, Any]:
    """What a command prints: its text, and the JSON of its last line.

    Raises:
        RuntimeError: it ended with another code than 0.
    """
    from anyorder.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(words))
    if code:
        raise RuntimeError(f"{' '.join(words)}: ended with {code}, {err.getvalue().strip()}")
    lines = out.getvalue().splitlines()
    last = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None
    return {"json": last, "text": lines[:-1] if last is not None else lines}


def cli() -> Cases:
    yield "sample", said("sample", "starter", "--prompt", PROMPT, "--length", "20", "--n", "2", "--json")["json"]
    words = ("--sampler", "entropy", "--steps", "4", "--temperature", "0.5", "--guidance", "1", "--json")
    yield "sample, options", said("sample", "starter", "--length", "16", *words)["json"]
    yield "infill", said("infill", "starter", "def f([[2]]):\n    return [[1-3]]", "--json")["json"]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # no name of this folder in a result
        Path("a.txt").write_text(CORPUS[:400])
        yield "score", said("score", "starter", "--text", "a.txt", "--draws", "4", "--json")["json"]
        task = {"prompt": "import ", "answers": ["os", "return"], "gold": 0}
        Path("t.jsonl").write_text((json.dumps(task) + "\n") * 2)
        yield "eval", said("eval", "starter", "--tasks", "t.jsonl", "--no-cache", "--quiet", "--json")["json"]
        said("sample", "starter", "--length", "8", "--trace", "trace.jsonl", "--json")
        yield "replay", said("replay", "trace.jsonl", "--json")["json"]
    yield "methods", said("methods", "--json")["json"]
    yield "inspect", said("inspect", "starter", "--json")["json"]


def study(name: str, *more: str, patches: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `anyorder study NAME --quick` writes to its file; `patches` are values of the study's module, smaller."""
    import importlib

    from anyorder.studies import STUDIES

    module = importlib.import_module(f"anyorder.studies.{STUDIES[name].module}")
    kept = {key: getattr(module, key) for key in patches or {}}
    try:
        for key, value in (patches or {}).items():
            setattr(module, key, value(kept[key]) if callable(value) else value)
        with tempfile.TemporaryDirectory() as folder:
            for split in ("train", "valid", "test") if name == "infilling" else ():
                lines = [f"{split}_{i} = function_{i % 7}(value_{i * i}, key={i}) + {i}" for i in range(60)]
                (Path(folder) / "corpus").mkdir(exist_ok=True)
                text = "".join(json.dumps({"text": line}) + "\n" for line in lines)
                (Path(folder) / "corpus" / f"{split}.jsonl").write_text(text)
            said("study", name, "--quick", "--out", folder, "--device", "cpu", *more)
            result: dict[str, Any] = json.loads((Path(folder) / f"{name}.json").read_text())
            result.pop("costs", None)  # what draws take on a clock
            result["checks"] = {k: c for k, c in result["checks"].items() if "time" not in k}
            return result
    finally:
        for key, value in kept.items():
            setattr(module, key, value)


def studies() -> Cases:
    """The payload of every quick study, in the small sizes that their tests have where the quick one takes longer."""
    yield "likelihood-variance", study("likelihood-variance")
    small: dict[str, Any] = {"SMALL_VOCAB": 64, "SMALL_BITS": 12, "OUR_STEPS": (16, 64, 64)}
    yield "numerics", study("numerics", patches=small)
    shares = (1 / 8, 1 / 4, 1 / 2, 1.0)
    sizes = {"tokens": 1 << 12, "token_lengths": (16, 24), "token_steps": (1, 4, 8), "sequence_lengths": (8, 16)}
    sizes |= {"shares": shares, "causal": 16, "points": 8}
    yield "error-rates", study("error-rates", patches={"QUICK": lambda q: replace(q, **sizes)})

    def fewer_steps(q: Any) -> Any:
        return replace(q, recipes={name: replace(r, rows=8, num_steps=2) for name, r in q.recipes.items()})

    yield "order", study("order", patches={"QUICK": fewer_steps})

    def few_paths(q: Any) -> Any:
        recipe = replace(q.recipe, num_steps=dict.fromkeys(q.recipe.num_steps, 2))
        return replace(q, recipe=recipe, problems=8, likely=4, draws=2)

    yield "planning", study("planning", patches={"QUICK": few_paths})

    def few_texts(q: Any) -> Any:
        shape = q.recipe.model.model_copy(update={"max_length": 49})
        recipe = replace(q.recipe, model=shape, length=48, rows=2, num_steps=2, rates=(2e-3,))
        return replace(q, recipe=recipe, few=2, documents=3, items={1: 2, 2: 2}, copies=2)

    yield "infilling", study("infilling", patches={"QUICK": few_texts})

    def one_topic(q: Any) -> Any:
        topic, exam = q.topics[0]
        learning = topic.learning | {"iterations": 1}
        topic = replace(topic, arms=dict.fromkeys(topic.arms, 1), steps=1, learning=learning)
        return replace(q, topics=((topic, replace(exam, problems=4, fewer=2, hands=("maskgit",))),), together=False)

    yield "cogrpo", study("cogrpo", patches={"QUICK": one_topic, "IMAGES": 4})
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        mdm = twins(Path())
        yield "guidance", study("guidance", "--run", str(mdm))
        yield "plan", said("plan", str(mdm), "--nfe", "6", "--rows", "8", "--json")["json"]
        words = ("--no-reference", "--n", "8", "--length", "32", "--steps", "4", "--json")
        yield "quality", said("quality", str(mdm), *words)["json"]


def twins(place: Path) -> Path:
    """A masked and an autoregressive model of bytes after a few steps, side by side; the folder of the first."""
    from anyorder.train.config import RunConfig
    from anyorder.train.data import run_data
    from anyorder.train.loop import train

    (place / "corpus.txt").write_text(CORPUS * 8)
    data = {"corpus": str(place / "corpus.txt"), "cache": str(place / "cache"), "tokenizer": "bytes", "length": 64}
    for kind in ("mdm", "arm"):
        values = {"data": data, "process": {"kind": kind}, "size": "tiny", "dtype": "float32", "num_steps": 10}
        config = RunConfig.model_validate(values | {"batch": {"rows": 8}})
        train(config, run_data(config), place / kind, quiet=True)
    return place / "mdm"


def studies_in_full() -> Cases:
    for name in ("numerics", "error-rates", "order", "planning", "infilling", "cogrpo"):
        yield name, study(name)


# The commands


@dataclass(frozen=True)
class Area:
    """Cases, how far floats may differ, and whether it takes minutes."""

    cases: Callable[[], Cases]
    tolerance: float
    slow: bool = False


AREAS = {
    "samples": Area(samples, 1e-9),
    "samples of networks": Area(samples_of_networks, 1e-5),
    "likelihoods": Area(likelihoods, 1e-9),
    "processes": Area(processes, 1e-5),
    "rl": Area(rl, 1e-5),
    "runs": Area(runs, 1e-5),
    "families": Area(families, 1e-5),
    "api": Area(api, 1e-5),
    "cli": Area(cli, 1e-5),
    "studies": Area(studies, 1e-5),
    "studies in full": Area(studies_in_full, 1e-5, slow=True),
}


def computed(area: Area) -> tuple[dict[str, Any], str]:
    """The columns of each case, and what stopped the area, if anything did."""
    out: dict[str, Any] = {}
    try:
        for name, value in area.cases():
            out[name] = columns(value)
    except Exception:
        return out, f"stopped after {list(out)[-1:]}: {traceback.format_exc(limit=-3)}"
    return out, ""


def compare(old: dict[str, Any], new: dict[str, Any], tolerance: float) -> list[str]:
    """One line for each difference; a new case is none."""
    out = [f"{case}: is missing" for case in old if case not in new and case not in OPTIONAL]
    for case in old.keys() & new.keys():
        out += [f"{case}: {line}" for line in differences(old[case], new[case], tolerance)]
    return sorted(out)


OPTIONAL = ("meissonic",)  # needs libraries that not every machine has


def write(path: Path, held: dict[str, Any]) -> None:
    """One line a case, so that a change of one is a change of a line."""
    text = ""
    for name, cases in held.items():
        lines = (f"{json.dumps(case)}: {json.dumps(value, separators=(',', ':'))}" for case, value in cases.items())
        text += ("{" if not text else ",") + "\n" + json.dumps(name) + ": {\n" + ",\n".join(lines) + "\n}"
    path.write_text(text + "\n}\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "check"])
    parser.add_argument("file", nargs="?", type=Path, default=HERE / "golden.json")
    parser.add_argument("--only", choices=AREAS, help="one area")
    parser.add_argument("--slow", action="store_true", help="the areas that take minutes, too")
    asked = parser.parse_args()
    held = json.loads(asked.file.read_text(encoding="utf-8")) if asked.file.exists() else {}
    wrong = 0
    for name, area in AREAS.items():
        if name != asked.only if asked.only else area.slow and not asked.slow:
            continue
        began = time.process_time()
        new, error = computed(area)
        took = time.process_time() - began
        if asked.what == "record" and not error:
            held = {key: held.get(key, {}) if key != name else new for key in AREAS if key in held or key == name}
            write(asked.file, held)
            print(f"{name:20s} {len(new):4d} cases recorded   {took:6.1f} s", flush=True)
            continue
        lines = compare(held.get(name, {}), new, area.tolerance) if not error else [error]
        wrong += len(lines)
        state = f"{len(lines)} differences" if lines else "equal"
        added = f", {n} new" if (n := len(new.keys() - held.get(name, {}).keys())) else ""
        print(f"{name:20s} {len(new):4d} cases {state}{added}   {took:6.1f} s", flush=True)
        for line in lines[:SHOWN]:
            print(f"    {line}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
