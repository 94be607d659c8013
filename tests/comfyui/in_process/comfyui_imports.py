"""Imports ComfyUI, set up as by `main.py --cpu`, and the slow libraries that most tests of this folder need."""

from __future__ import annotations

import sys

import torch

arguments, sys.argv = sys.argv, ["main.py", "--cpu"]
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import comfy.sd  # noqa: E402
import diffusers.loaders.peft  # noqa: E402, F401
import peft  # noqa: E402, F401

sys.argv = arguments
# One thread, because these models are too small for more to be faster.
torch.set_num_threads(1)
