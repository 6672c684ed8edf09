"""Progress goes to standard error, in lines where there is no terminal."""

import re

from anyorder.train import progress
from anyorder.train.progress import Progress


class Clock:
    """Ten seconds pass between two looks."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 10.0
        return self.now


def test_lines_say_step_loss_rate_and_time_left(capsys, monkeypatch):
    monkeypatch.setattr(progress, "time", Clock())
    with Progress(10, 4, quiet=False) as shown:
        for done in range(5, 11):
            shown.update(done, 2.5, tokens=1000 * done)
    out = capsys.readouterr()
    assert out.out == ""
    lines = out.err.splitlines()
    first = re.fullmatch(r"  step (\d+)/10  loss 2.500 nats/token  100 tokens/s  (\d+) s left", lines[0])
    assert first, lines[0]
    done, left = int(first[1]), int(first[2])
    assert left == 10 * (10 - done)
    assert lines[-1].startswith("  step 10/10")
    assert lines[-1].endswith(" 0 s left")


def test_a_first_line_comes_soon_and_never_of_the_step_that_sets_up(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress(100, 0, quiet=False) as shown:
        for done in range(1, 11):
            now[0] += 40.0 if done == 1 else 1.0
            shown.update(done, 2.5, tokens=1000 * done)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[1:] for line in lines] == [
        ["step 2/100", "loss 2.500 nats/token", "1,000 tokens/s", "98 s left"]
    ]


def test_quiet_is_silent(capsys):
    with Progress(3, 0, quiet=True) as shown:
        for done in (1, 2, 3):
            shown.update(done, 1.0, tokens=done)
    assert capsys.readouterr() == ("", "")


def test_the_bar_of_a_terminal_keeps_off_standard_output(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Progress(3, 0, quiet=False) as shown:
        assert not shown.bar.disable
        for done in (1, 2, 3):
            shown.update(done, 1.0, tokens=done)
    assert capsys.readouterr().out == ""
