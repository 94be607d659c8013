"""What a file or a pipe gets while a run works: whole lines, few enough to read, and at once."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from lora_crucible.cli import display as module
from lora_crucible.cli.display import Display, Lines, duration_text
from lora_crucible.events.start import RunStart
from lora_crucible.events.step import StepReport


class Flushed(io.StringIO):
    """A stream that only holds what was flushed."""

    seen = ""

    def flush(self) -> None:
        self.seen = self.getvalue()


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def start(step: int, steps: int) -> RunStart:
    return RunStart("mine", Path("out/mine"), Path("out/mine.safetensors"), step, steps, {}, {}, ("Memory: 8",), ())


def step(number: int) -> StepReport:
    return StepReport(number, 0.25, (), {"model": 1e-4}, 1.0, 2.0, 1.0)


def test_a_long_run_has_a_line_every_hundredth_and_says_what_is_left(clock):
    stream = Flushed()
    lines = Lines(stream)
    lines.planned(start(100, 1100))
    for number in range(101, 1101):
        clock[0] += 2
        lines.stepped(step(number), 1100)
    said = stream.seen.splitlines()
    assert said[0] == "Memory: 8"
    assert len(said) == 1 + 91
    assert said[1] == "Step 110 of 1100: loss 0.2500, 2 s, 33 minutes left"
    assert said[-1] == "Step 1100 of 1100: loss 0.2500, 2 s"
    assert "\r" not in stream.seen


def test_a_short_run_has_a_line_for_each_step(clock):
    stream = Flushed()
    lines = Lines(stream)
    lines.planned(start(0, 3))
    for number in (1, 2, 3):
        lines.stepped(step(number), 3)
        assert stream.seen.count("Step") == number


def test_other_work_has_few_lines_and_always_its_end(clock):
    stream = Flushed()
    lines = Lines(stream)
    for done in range(2001):
        lines.working("Encoding", done, 2000, "image")
        clock[0] += 0.1
    said = stream.seen.splitlines()
    assert (said[0], said[-1]) == ("Encoding: 0 of 2000 images", "Encoding: 2000 of 2000 images")
    assert len(said) == 11
    stream = Flushed()
    lines = Lines(stream)
    for done in range(21):  # done in no time
        lines.working("Checking", done, 20, "image")
    assert stream.seen.splitlines() == ["Checking: 0 of 20 images", "Checking: 20 of 20 images"]


def test_downloads_are_in_bytes(clock):
    stream = Flushed()
    Lines(stream).working("Downloading", 500_000_000, 2_000_000_000, "B", "model.safetensors")
    assert stream.seen == "Downloading model.safetensors: 500.0 MB of 2.0 GB\n"


def test_a_process_beside_the_one_that_writes_shows_nothing(capsys):
    one = Display()
    one.planned(start(0, 3))
    one.stepped(step(1), 3)
    one.sampled(1, 3, ("a text",))
    one.saved(1, Path("out"))
    one.warn("careful")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (150, "2 minutes"), (9000, "2.5 hours"), (200_000, "2.3 days")],
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text
