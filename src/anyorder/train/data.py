"""The rows of a run: from text, or from a made task, as its configuration says."""

from anyorder.core.noise import Noise
from anyorder.data.config import Say, prepare, say_nothing
from anyorder.data.rows import TaskRows
from anyorder.data.tasks import ValidatedTask, make_task
from anyorder.train.config import RunConfig
from anyorder.train.loop import RunData


def run_data(config: RunConfig, *, say: Say = say_nothing) -> RunData:
    """What the run trains and validates on; text is tokenized on first use and found again afterwards.

    Raises:
        ValueError: text that cannot be read or is shorter than a row, altered prepared data, or an unknown task.
        OSError: the disk is full; nothing is left behind.
    """
    return text_data(config, say=say) if config.task is None else task_data(config)


def text_data(config: RunConfig, *, say: Say = say_nothing) -> RunData:
    """Both splits of the corpus of `config.data`."""
    prepared = prepare(config.data, say=say)
    return RunData(train=prepared.rows("train"), valid=prepared.rows("valid"), tokenizer=prepared.tokenizer)


def task_data(config: RunConfig) -> RunData:
    """Training rows of a task; validation measures the answers of its held-out instances, given their prompts."""
    assert config.task is not None
    task, noise = make_task(config.task), task_noise(config)
    problems = task.valid(noise=noise) if isinstance(task, ValidatedTask) else task.test(noise=noise)
    valid = TaskRows(tokens=problems.x0, target=~problems.canvas.fixed, vocab=task.tokenizer.vocab)
    return RunData(train=task.train(noise=noise), valid=valid, tokenizer=task.tokenizer)


def task_noise(config: RunConfig) -> Noise:
    """The stream that makes a task's instances and splits them; tests of a run draw its held-out ones from it again."""
    return Noise.of(config.seed).at("task")
