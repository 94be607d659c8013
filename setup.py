"""Finds the packages of `trainer/`, which is installed under the name `lora_crucible`.

Everything else about the project is in pyproject.toml, where setuptools can find packages but not rename them.
"""

from setuptools import find_packages, setup

setup(
    package_dir={"lora_crucible": "trainer"},
    packages=["lora_crucible", *(f"lora_crucible.{name}" for name in find_packages("trainer"))],
)
