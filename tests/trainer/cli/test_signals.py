"""SIGTERM at any moment of a run ends it with everything saved, and the same command goes on to the same LoRA."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from lora_crucible.cli.interrupt import Stopped, asked_to_stop, stopped_by_signals
from stopped_runs import STATUSES, stopped_and_resumed, undisturbed


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.3, 0.5, 0.6, 0.75, 0.9])
def test_sigterm_at_a_moment_of_a_run(whole, tmp_path: Path, moment: float) -> None:
    lora, seconds = whole
    found = stopped_and_resumed(tmp_path, moment * seconds, lora)
    assert found["status"] in STATUSES, found
    assert found["equal"], found


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, pytest.param(getattr(signal, "SIGHUP", None), id="SIGHUP")]
)
def test_a_run_stops_where_it_may(number, capfd):
    with asked_to_stop() as check:
        check()
        os.kill(os.getpid(), number)
        with pytest.raises(Stopped) as raised:
            check()
    assert raised.value.status == 128 + number
    assert "Stopping after this batch and saving" in capfd.readouterr().err


def test_a_signal_that_is_sent_again_by_a_launcher_does_not_end_it(capfd):
    with asked_to_stop() as check:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
        with pytest.raises(Stopped) as raised:
            check()
    assert raised.value.status == 130  # by the first
    assert "without saving" not in capfd.readouterr().err


def test_other_commands_stop_at_once():
    with pytest.raises(Stopped) as raised, stopped_by_signals():
        os.kill(os.getpid(), signal.SIGTERM)  # handled before the next line
    assert raised.value.status == 143


def test_a_signal_that_comes_twice_stops_a_command_once():
    """The terminal sends Ctrl-C to all, and what trains several configs passes it on to the one that trains."""
    with stopped_by_signals():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except Stopped:
            os.kill(os.getpid(), signal.SIGINT)  # raises nothing that would hide how the command ended


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_under_nohup_a_lost_connection_stops_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with asked_to_stop() as check:
            os.kill(os.getpid(), signal.SIGHUP)
            check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_handlers_of_before_are_back_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with asked_to_stop():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
