"""Tests that docs/models.md agrees with the table of architectures."""

import importlib.util
from pathlib import Path


def test_the_table_of_models_is_that_of_the_rows():
    spec = importlib.util.spec_from_file_location("models_table", Path(__file__).parent / "models_table.py")
    models_table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models_table)
    written = models_table.PAGE.read_text(encoding="utf-8")
    assert written == models_table.page_with(models_table.table()), "run python tests/models_table.py"
