"""The command `doctor`: what this machine can do, what `auto` chooses on it and why, and what would make it faster."""

import dataclasses
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from anyorder.cli.parser import Parser, add_device
from anyorder.cli.show import finish, pairs
from anyorder.core.files import check_output

EXTRAS = {
    "hub": ("huggingface_hub", "datasets"),
    "eval": ("transformers", "lm_eval", "jinja2"),
    "images": ("diffusers", "transformers"),
    "mauve": ("mauve",),
    "test": ("pytest", "hypothesis", "beartype", "xdist", "scipy"),
    "dev": ("ruff", "mypy"),
    "docs": ("mkdocs", "mkdocstrings"),
}
BUSY = 0.7  # of a core: with less, something else is running
SECONDS = 0.15  # of each rate measured on a GPU
SQUARE = (256, 256, 256)  # of the products measured on a CPU
LEAST_FREE = 1 << 30  # bytes of disk that prepared data and checkpoints of small runs take


@dataclass(frozen=True)
class Report:
    """What `doctor` finds.

    Args:
        device: what `--device auto` takes.
        dtype, reason: what `dtype: auto` takes there, and why.
        gflops: matrix products a second of each dtype; on a CPU of one thread.
        cores: that this process may use.
        threads: of PyTorch.
        free: the share of a core that one thread got while this was measured.
        memory_gib, available_gib: of the machine; None where it does not tell.
        compiler: the C++ compiler of `--compile`; None without one.
        extras: whether each optional part of the package is installed.
        cache: the folder of prepared data; `cache_problem` says why it cannot be used, or None.
        advice: what would make this machine faster.
    """

    system: str
    python: str
    torch: str
    processor: str
    device: str
    dtype: str
    reason: str
    gflops: dict[str, float]
    cores: int
    threads: int
    free: float
    memory_gib: float | None
    available_gib: float | None
    compiler: str | None
    extras: dict[str, bool]
    cache: str
    cache_problem: str | None
    advice: list[str]


def doctor(args: list[str]) -> None:
    parser = Parser(
        "doctor",
        usage="[--device NAME] [--json]",
        about="Show what this machine can do: device, speed of each dtype, threads and how many are free, memory,\n"
        "compiler, optional parts; what `auto` chooses and why; and what would make it faster. About two seconds.",
        example="  anyorder doctor\n  anyorder doctor --json",
    )
    add_device(parser)
    found = parser.parse(args)
    from anyorder.core import dist

    dist.use(found.device)
    report = examine()
    finish(dataclasses.asdict(report), as_json=found.json, text=shown(report))


def examine() -> Report:
    """Ask and measure this machine."""
    import torch

    from anyorder.core import dist
    from anyorder.core.device import cpp_compiler, free_share, pick_dtype, product_rate, usable_cores
    from anyorder.data.config import DataConfig
    from anyorder.train.peak import matmul_peak

    device = dist.device()
    choice = pick_dtype("auto", device)
    names = ("float32",) if device.type == "mps" else ("float32", "bfloat16")

    def rate(dtype: torch.dtype) -> float:
        """FLOP/s; on a CPU of one thread in its own time, so that a busy machine shows the same."""
        on_cpu = device.type == "cpu"
        return product_rate(dtype, shape=SQUARE) if on_cpu else matmul_peak(dtype, seconds=SECONDS)

    gflops = {name: rate(getattr(torch, name)) / 1e9 for name in names}
    cache = DataConfig().cache.expanduser()
    memory, available = memory_gib()
    report = Report(
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        processor=torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        device=str(device),
        dtype=choice.name,
        reason=choice.reason,
        gflops={name: round(rate, 1) for name, rate in gflops.items()},
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        free=round(free_share(), 2),
        memory_gib=memory,
        available_gib=available,
        compiler=cpp_compiler(),
        extras={name: all(map(is_installed, modules)) for name, modules in EXTRAS.items()},
        cache=str(cache),
        cache_problem=cache_problem(cache),
        advice=[],
    )
    hidden_gpu = device.type == "cpu" and not torch.cuda.is_available() and shutil.which("nvidia-smi") is not None
    return dataclasses.replace(report, advice=advise(report, hidden_gpu=hidden_gpu))


def advise(report: Report, *, hidden_gpu: bool = False) -> list[str]:
    """What would make the machine of a report faster, one sentence each; nothing if nothing would.

    Args:
        hidden_gpu: there is an NVIDIA GPU that PyTorch does not see.
    """
    advice = []
    if hidden_gpu:
        advice.append("there is an NVIDIA GPU, and this PyTorch does not see it: install a build with CUDA")
    if report.device == "cpu" and report.free < BUSY:
        advice.append(
            f"the machine is busy: a thread gets {report.free:.0%} of a core; close other programs before long runs"
        )
    if report.device == "cpu" and report.threads < report.cores:
        advice.append(
            f"PyTorch uses {report.threads} of {report.cores} cores: unset OMP_NUM_THREADS, or set it to {report.cores}"
        )
    if report.compiler is None and report.device == "cpu":
        advice.append("no C++ compiler: with g++ or clang++, train --compile is 1.1 to 1.3 times faster after a minute")
    if report.cache_problem is not None:
        advice.append(f"{report.cache}: {report.cache_problem}; name another folder with --data.cache")
    if report.device == "cpu" and report.dtype == "float32":
        advice.append("a GPU, or a CPU with AVX512-bf16 or AMX instructions, would train several times faster")
    return advice


def cache_problem(folder: Path) -> str | None:
    """Why prepared data cannot be written there: no permission, or a full disk; None if it can."""
    try:
        check_output(folder, option="data.cache", folder=True)
    except ValueError:
        return "cannot be written"
    place = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(place).free
    return f"the disk has only {free / 2**30:.1f} GiB free" if free < LEAST_FREE else None


def memory_gib() -> tuple[float | None, float | None]:
    """Memory of the machine and what is available of it, in GiB; None where the system does not tell."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        total, available = (int(fields[key].split()[0]) / 2**20 for key in ("MemTotal", "MemAvailable"))
        return round(total, 1), round(available, 1)
    except (OSError, KeyError, ValueError):
        pass
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1), None
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None, None


def processor_name() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def shown(report: Report) -> str:
    """The report for people."""
    memory = "unknown" if report.memory_gib is None else f"{report.memory_gib:.1f} GiB"
    memory += "" if report.available_gib is None else f", {report.available_gib:.1f} available"
    a_thread = " a thread" if report.device == "cpu" else ""
    extras = [f"{name}{'' if there else ' (no)'}" for name, there in report.extras.items()]
    lines = [
        ("machine", f"{report.processor}, {report.system}, Python {report.python}, torch {report.torch}"),
        ("device", f"{report.device}{'' if sys.platform != 'darwin' else ' (mps only by --device mps)'}"),
        ("dtype", f"auto is {report.dtype}: {report.reason}"),
        ("speed", ", ".join(f"{name} {rate:,.1f} GFLOP/s" for name, rate in report.gflops.items()) + a_thread),
        ("threads", f"{report.threads} of {report.cores} cores; a thread gets {report.free:.0%} of a core now"),
        ("memory", memory),
        ("compiler", report.compiler or "none"),
        ("extras", ", ".join(extras)),
        ("cache", report.cache + ("" if report.cache_problem is None else f" ({report.cache_problem})")),
    ]
    advice = "\n".join(f"  - {line}" for line in report.advice)
    return pairs(lines) + (f"\n\nto be faster:\n{advice}" if advice else "")
