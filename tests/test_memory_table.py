"""Tests that the table in docs/rented_gpu.md agrees with the sizes of models."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def memory_table():
    spec = importlib.util.spec_from_file_location("memory_table", Path(__file__).parent / "memory_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_planned_memory_is_that_of_the_sizes(memory_table):
    written = memory_table.PAGE.read_text(encoding="utf-8")
    assert written == memory_table.page_with(memory_table.table()), "run python tests/memory_table.py"


@pytest.mark.parametrize(
    ("model", "billions"), [("Flux.1", 11.9), ("Qwen-Image", 20.4), ("Z-Image", 6.15), ("Flux.2 dev", 32)]
)
def test_parameters_are_those_that_are_published(memory_table, model, billions):
    assert memory_table.sizes()[model][0] / 1e9 == pytest.approx(billions, rel=0.03)
