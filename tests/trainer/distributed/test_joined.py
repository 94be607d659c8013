"""What processes tell each other, and how they notice that one is lost or has failed."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from lora_crucible.distributed.processes import FailedElsewhere, OutOfMemoryTogether, Processes, current
from lora_crucible.distributed.shared_folder import sharing
from lora_crucible.errors import CrucibleError
from several import STOPPED, Launch, run_together


def is_oom(error: BaseException) -> bool:
    return isinstance(error, MemoryError)


def test_alone_nothing_is_exchanged():
    alone = current()
    assert (alone.rank, alone.count, alone.is_main, alone.on_this_machine) == (0, 1, True, 1)
    assert alone.gather("mine") == ["mine"]
    assert alone.together(lambda: 3) == [3]
    with pytest.raises(MemoryError):
        alone.together(lambda: raise_(MemoryError()), is_oom)


def raise_(error: BaseException) -> None:
    raise error


def test_they_tell_each_other_values_states_and_sums(tmp_path):
    state = {"weights": [torch.arange(6.0).view(2, 3), torch.tensor(True)], "step": (3, None), 5: "five"}

    def work(processes: Processes) -> None:
        rank = processes.rank
        assert current() is processes
        assert processes.gather({"rank": rank, "long": "ä" * 1000 * rank, "nan": 0.1}) == [
            {"rank": one, "long": "ä" * 1000 * one, "nan": 0.1} for one in range(3)
        ]
        assert processes.from_main([rank, "x"]) == [0, "x"]
        received = processes.state_from_main(state if rank == 0 else {})
        assert received.keys() == state.keys()
        assert torch.equal(received["weights"][0], state["weights"][0])
        assert received["weights"][1].dtype is torch.bool
        assert (received["step"], received[5]) == ((3, None), "five")
        assert processes.state_from_main(None) is None
        given = torch.full((2,), 5.0 + rank)
        processes.broadcast(given)
        assert given.tolist() == [5.0, 5.0]
        total = torch.full((4,), 10.0**rank)
        processes.sum(total)
        assert total.tolist() == [111.0] * 4
        assert processes.on_this_machine == 3

    run_together(3, work, tmp_path)


def test_together_all_get_all_results_or_all_fail(tmp_path):
    def work(processes: Processes) -> None:
        rank = processes.rank
        assert processes.together(lambda: rank * 2) == [0, 2, 4]
        with pytest.raises(OutOfMemoryTogether, match=r"process 1 of 3 \(on .*\): no room"):
            processes.together(lambda: raise_(MemoryError("no room")) if rank == 1 else rank, is_oom)
        error, text = (CrucibleError, "broken") if rank == 2 else (FailedElsewhere, "process 2 of 3")
        fails = [lambda: raise_(MemoryError()), lambda: None, lambda: raise_(CrucibleError("broken"))]
        with pytest.raises(error, match=text):  # an error of one outweighs another's lack of memory
            processes.together(fails[rank], is_oom)
        with pytest.raises(KeyboardInterrupt):
            processes.together(lambda: raise_(KeyboardInterrupt()) if rank == 0 else None)
        assert processes.gather(rank) == [0, 1, 2]  # they are still in step

    run_together(3, work, tmp_path)


def test_an_inner_failure_counts_once(tmp_path):
    """A process that fails before an exchange inside an action stays in step with those that fail in it."""

    def work(processes: Processes) -> None:
        def action() -> None:
            if processes.rank == 0:
                raise MemoryError("no room")
            processes.together(lambda: None)

        with pytest.raises(OutOfMemoryTogether):
            processes.together(action, is_oom)
        assert processes.gather(processes.rank) == [0, 1]

    run_together(2, work, tmp_path)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_in_an_inner_exchange_counts_once(tmp_path, failing):
    """One that has told of its error does not tell it again at the outer exchange, where nobody would listen."""

    def work(processes: Processes) -> None:
        def inner(error: BaseException) -> None:
            processes.together(lambda: raise_(error) if processes.rank == failing else None)

        expected = CrucibleError if processes.rank == failing else FailedElsewhere
        with pytest.raises(expected, match="broken image"):
            processes.together(lambda: inner(CrucibleError("broken image")))
        assert processes.gather(processes.rank) == [0, 1]  # they are still in step

        def stopped() -> None:
            if processes.rank == failing:
                raise KeyboardInterrupt
            processes.together(lambda: None)

        with pytest.raises(KeyboardInterrupt):
            processes.together(stopped)
        assert processes.gather(processes.rank) == [0, 1]

    run_together(2, work, tmp_path)


def test_a_failure_outside_of_exchanges_reaches_the_others(tmp_path):
    def work(processes: Processes) -> None:
        if processes.rank == 1:
            raise CrucibleError("its disk is full")
        processes.gather(None)

    for ended in Launch(3, work, tmp_path).ended():
        assert ended.status == 1
        assert "its disk is full" in ended.output


def test_they_leave_after_the_main_one(tmp_path):
    """A launcher ends all as soon as one has failed, which must not be while the main one is saving."""

    def work(processes: Processes) -> None:
        if processes.is_main:
            time.sleep(2)
        else:
            raise KeyboardInterrupt

    main, other = Launch(2, work, tmp_path).ended()
    assert (main.status, other.status) == (0, STOPPED)
    assert other.seconds > 1.9


@pytest.mark.slow
@pytest.mark.parametrize("halted", [0, 1])
def test_one_that_hangs_is_noticed_although_its_connections_stay(tmp_path, halted):
    def work(processes: Processes) -> None:
        processes.gather(None)
        if processes.rank == halted:
            os.kill(os.getpid(), signal.SIGSTOP)
        processes.gather(None)

    launch = Launch(2, work, tmp_path)
    ended = launch.ended_but(halted)
    launch.send(halted, signal.SIGKILL)
    launch.ended()
    assert ended.status == 1
    assert ended.seconds < 30
    assert f"rocess {halted} of 2 (on " in ended.output
    assert "is lost" in ended.output


@pytest.mark.slow
def test_nobody_there(monkeypatch, tmp_path):
    """The others never come: what to check is said."""
    monkeypatch.setattr("lora_crucible.distributed.joined.MEETING_SECONDS", 2)

    def work(processes: Processes) -> None:
        raise AssertionError

    launch = Launch(2, work, tmp_path, started=1)
    (ended,) = launch.ended()
    assert ended.status == 1
    assert "could not find each other at 127.0.0.1:" in ended.output
    assert "main_process_port" in ended.output


def test_which_processes_share_a_folder(tmp_path):
    def work(processes: Processes) -> None:
        assert sharing(tmp_path / "one", processes) == (0, 1, 2)
        own = tmp_path / ("a" if processes.rank == 1 else "b")
        assert sharing(own, processes) == ((1,) if processes.rank == 1 else (0, 2))
        processes.gather(None)
        assert not list(own.iterdir())
        (tmp_path / "file").touch()
        assert sharing(tmp_path / "file" / "below", processes) == (processes.rank,)

    run_together(3, work, tmp_path / "outputs")
