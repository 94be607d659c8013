"""What a command shows while it works: bars on a terminal, lines in a file or a pipe, or events as JSON."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..events.callbacks import Callbacks
    from ..events.start import RunStart
    from ..events.step import StepReport

SAMPLE_SHOWN = 200
"""The most characters of a sample answer that are shown while training; all of it is in a file."""

LINES = 100
"""The number of lines about steps in the whole of a run; a shorter run has a line for each step."""

LINES_OF_WORK = 10
"""The most lines about other work."""

SECONDS_OF_WORK = 2.0
"""The seconds between two lines about other work, apart from its first and its last."""


class Display:
    """Shows nothing, as for a process beside the one that writes the files of a run.

    Attributes:
        run: what is known about the run that is trained, as values that JSON has; empty before its first step.
    """

    def __init__(self) -> None:
        self.run: dict[str, Any] = {}
        self._began = (0.0, 0)

    def working(self, what: str, done: int, total: int, unit: str = "", detail: str = "") -> None:
        """Show how far some work is.

        Args:
            what: the work in a word, such as "Encoding".
            done, total: the number of parts that are done, and of all of them, or bytes if that is the unit.
            unit: the word for a part in the singular, or "B" for bytes.
            detail: what is being worked on right now.
        """

    def say(self, text: str) -> None:
        """Show a line of text about the progress."""

    def warn(self, text: str) -> None:
        """Show a warning."""

    def planned(self, start: RunStart) -> None:
        """Show what a run is about to do."""
        self.run = {"name": start.name, "lora": str(start.lora), "folder": str(start.folder)}
        self._began = (time.monotonic(), start.step)
        for line in start.memory:
            self.say(line)

    def stepped(self, report: StepReport, steps: int) -> None:
        """Show a step."""

    def sampled(self, step: int, steps: int, samples: Image | tuple[str, ...]) -> None:
        """Show that samples were drawn, and the last of them if it is a text."""
        shown = ""
        if isinstance(samples, tuple) and samples:
            shown = f": {shorten(samples[-1], SAMPLE_SHOWN, placeholder='…')}"
        self.say(f"Sample after step {step} of {steps}{shown}")

    def validated(self, step: int, error: float) -> None:
        """Show an error that was measured."""
        self.say(f"Measured error after step {step}: {error:.4f}")

    def saved(self, step: int, folder: Path) -> None:
        """Show that a checkpoint was written."""
        self.say(f"Saved a checkpoint after step {step}: {folder}")

    def finished(self, facts: Mapping[str, Any]) -> None:
        """Show the end of the command, whatever it was."""

    def close(self) -> None:
        """Leave nothing unfinished on the terminal."""

    def seconds_left(self, step: int, steps: int) -> float:
        """Return how long the rest of a run takes at the pace so far, samples and validation included."""
        began, first = self._began
        return (time.monotonic() - began) / max(step - first, 1) * (steps - step)


class Bars(Display):
    """Shows bars on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None
        self._what = ""

    def _shown(self, what: str, unit: str, total: int, initial: int = 0) -> Any:
        from tqdm import tqdm

        if self._bar is None or self._what != what:
            self.close()
            in_bytes = unit == "B"
            self._what = what
            self._bar = tqdm(
                desc=what,
                unit=unit or "part",
                unit_scale=in_bytes,
                total=total,
                initial=initial,
                dynamic_ncols=True,
                leave=what == "Training",
            )
        return self._bar

    def working(self, what: str, done: int, total: int, unit: str = "", detail: str = "") -> None:
        bar = self._shown(what, unit, total)
        if detail:
            bar.set_postfix_str(detail, refresh=False)
        bar.total, bar.n = total, done
        bar.refresh()

    def say(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(text)

    def warn(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)

    def stepped(self, report: StepReport, steps: int) -> None:
        bar = self._shown("Training", "step", steps, report.step - 1)
        bar.set_postfix(loss=f"{report.loss:.3f}", refresh=False)
        bar.update()

    def saved(self, step: int, folder: Path) -> None:
        pass  # one a minute would push everything else off the screen

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


class Lines(Display):
    """Shows whole lines, at once, without anything that moves the cursor.

    Args:
        stream: the stream to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._work: tuple[str, int, float] | None = None

    def working(self, what: str, done: int, total: int, unit: str = "", detail: str = "") -> None:
        tenth, now = done * LINES_OF_WORK // total if total else 0, time.monotonic()
        if self._work is not None and self._work[0] == what:
            _, shown, when = self._work
            if tenth == shown or (done < total and now - when < SECONDS_OF_WORK):
                return
        self._work = what, tenth, now
        if unit == "B":
            from ..messages.wording import size_text

            self.say(f"{what} {detail}: {size_text(done)} of {size_text(total)}")
        else:
            self.say(f"{what}: {done} of {total} {unit}{'s' * bool(unit)}".rstrip())

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def warn(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def stepped(self, report: StepReport, steps: int) -> None:
        every = max(steps // LINES, 1)
        if report.step % every and report.step != steps:
            return
        left = duration_text(self.seconds_left(report.step, steps))
        rest = f", {left} left" if report.step < steps else ""
        skipped = ", skipped" if report.skipped else ""
        self.say(f"Step {report.step} of {steps}: loss {report.loss:.4f}, {report.seconds:.2g} s{skipped}{rest}")


class Events(Display):
    """Writes events to a stream, each as an object of JSON on a line of its own.

    Args:
        stream: the stream to write to.
        common: what every event tells.
    """

    def __init__(self, stream: TextIO, common: Mapping[str, Any]) -> None:
        super().__init__()
        self._stream, self._common = stream, common
        self._work: tuple[str, int] | None = None

    def _tell(self, event: str, **facts: Any) -> None:
        line = json.dumps(_in_json({"event": event, **self._common, **facts}), ensure_ascii=False)
        self._stream.write(line + "\n")
        self._stream.flush()

    def working(self, what: str, done: int, total: int, unit: str = "", detail: str = "") -> None:
        hundredth = done * 100 // total if total else 0
        if self._work != (what, hundredth):
            self._work = (what, hundredth)
            self._tell("preparing", what=what, done=done, total=total)

    def warn(self, text: str) -> None:
        self._tell("warning", text=text)

    def planned(self, start: RunStart) -> None:
        super().planned(start)
        self._tell(
            "plan",
            **self.run,
            step=start.step,
            steps=start.steps,
            settings=start.settings,
            reasons=start.reasons,
            memory=start.memory,
            notes=start.notes,
        )

    def stepped(self, report: StepReport, steps: int) -> None:
        self._tell(
            "step",
            step=report.step,
            steps=steps,
            loss=report.loss,
            learning_rates=report.learning_rates,
            gradient_norm=report.gradient_norm,
            seconds=report.seconds,
            memory_gb=report.memory_gb,
            skipped=report.skipped,
            seconds_left=round(self.seconds_left(report.step, steps), 1),
        )

    def sampled(self, step: int, steps: int, samples: Image | tuple[str, ...]) -> None:
        files = sorted(Path(self.run["folder"], "samples").glob(f"step_{step:06}_*"))
        texts = list(samples) if isinstance(samples, tuple) else []
        self._tell("sample", step=step, steps=steps, files=list(map(str, files)), texts=texts)

    def validated(self, step: int, error: float) -> None:
        self._tell("validation", step=step, error=error)

    def saved(self, step: int, folder: Path) -> None:
        self._tell("checkpoint", step=step, folder=str(folder))

    def finished(self, facts: Mapping[str, Any]) -> None:
        self._tell("finished", **facts)


def _in_json(value: Any) -> Any:
    """Return a value as JSON can hold it: no NaN or infinity, which become null, and text for what it does not know."""
    if isinstance(value, Mapping):
        return {str(key): _in_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_in_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


_current: list[Display] = []


def display() -> Display:
    """Return what shows the progress of the command that is running."""
    return _current[-1] if _current else Lines(sys.stdout)


@contextmanager
def shown_by(one: Display) -> Iterator[Display]:
    """Let a display show the progress of everything inside the context."""
    _current.append(one)
    try:
        yield one
    finally:
        one.close()
        _current.remove(one)


def run_callbacks(check: Callable[[], None], unit: str) -> Callbacks:
    """Return the callbacks that show a run, and let it stop where `check` raises.

    Args:
        check: a function that raises to stop the run.
        unit: the word for an example in the singular.
    """
    from ..events.callbacks import Callbacks

    one = display()

    def preparing(done: int, total: int, what: str) -> None:
        check()
        one.working(what[:1].upper() + what[1:], done, total, unit)

    return Callbacks(
        preparing=preparing,
        planned=one.planned,
        stepped=one.stepped,
        sampled=one.sampled,
        validated=one.validated,
        saved=one.saved,
    )


def duration_text(seconds: float) -> str:
    """Return a duration in the largest unit of which there are at least two."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}" if size > 60 else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
