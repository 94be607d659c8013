"""The example configs for accelerate are read by accelerate itself, and start what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

FOLDER = Path(__file__).parent.parent / "examples" / "accelerate"
PROCESSES = {
    "cpu_2_processes.yaml": (1, 2),
    "one_machine_2_gpus.yaml": (1, 2),
    "one_machine_8_gpus.yaml": (1, 8),
    "two_machines.yaml": (2, 16),
}
"""The number of machines and of processes of each example that trains data-parallel."""


@pytest.mark.parametrize("name", PROCESSES)
def test_an_example_starts_as_many_processes_as_it_says(name):
    machines, processes = PROCESSES[name]
    config = load_config_from_file(str(FOLDER / name))
    assert (config.num_machines, config.num_processes, config.machine_rank) == (machines, processes, 0)
    given = ["--config_file", str(FOLDER / name), "-m", "trainer", "train", "CONFIG.yaml"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(given))
    assert arguments.multi_gpu  # otherwise accelerate starts a single process
    assert not arguments.cpu
    assert (arguments.num_machines, arguments.num_processes) == (machines, processes)
    assert arguments.mixed_precision == "no"
    assert f"{name}" in (FOLDER / name).read_text()
