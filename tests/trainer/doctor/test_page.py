"""Tests that the report stays readable where it is pasted."""

from __future__ import annotations

from pathlib import Path

from lora_crucible.doctor.page import Advice, Section, page, path_text


def test_lines_are_short_and_commands_whole():
    command = "python -m pip install " + "package " * 20
    section = Section(
        "Things",
        [("short", "one"), ("longer name", "word " * 30)],
        obstacles=[Advice("It is broken. " * 10, command), Advice("So is this.")],
        notes=[Advice("A remark. " * 20)],
    )
    lines = page("Report", [section]).splitlines()
    assert max(len(line) for line in lines if line.strip() != command.strip()) <= 78
    assert f"     {command}" in lines
    assert "  short        one" in lines
    assert lines.index("Notes") < lines.index("Fix this before training:")
    assert lines[-1] == "2. So is this."


def test_a_report_without_obstacles_says_so():
    assert page("Report", [Section("Things", [("a", "b")])]).endswith("\n\nThis computer is ready for training.")


def test_paths_do_not_tell_the_users_name(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path / "jane"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "jane"))
    assert path_text(tmp_path / "jane" / "ComfyUI") == str(Path("~", "ComfyUI"))
    assert path_text(tmp_path / "jane") == "~"
    assert path_text(tmp_path / "janet") == str(tmp_path / "janet")
