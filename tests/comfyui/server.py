"""A real ComfyUI server with this node pack, used over HTTP as by any client."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 300
PACK_FOLDER = "lora-crucible"
POLL_SECONDS = 0.05
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""Environment variables for processes that run side by side on models too small for several threads to be faster."""


class PromptFailed(Exception):
    """Raised when the server rejects a prompt or one of its nodes fails; `details` is the server's answer."""

    def __init__(self, details: Any) -> None:
        super().__init__(json.dumps(details, indent=1)[:4000])
        self.details = details

    @property
    def message(self) -> str:
        """The text that the user sees: the failed node's message, or all errors of a rejected prompt."""
        if isinstance(self.details, list):
            return dict(self.details)["execution_error"]["exception_message"]
        return json.dumps(self.details["node_errors"])


@dataclass(frozen=True)
class Outputs:
    """The outputs that the nodes of a prompt showed.

    Attributes:
        pictures: images (images, height, width, 3) uint8 by node id.
        texts: texts by node id.
        cached: the ids of nodes that ComfyUI did not run because it had cached their results.
    """

    pictures: dict[str, np.ndarray]
    texts: dict[str, str]
    cached: frozenset[str]


def read_picture(file: Any) -> np.ndarray:
    """Read an image file as an array (height, width, 3) uint8."""
    return np.array(Image.open(file).convert("RGB"))


def largest_difference(first: np.ndarray, second: np.ndarray) -> int:
    """Return the largest difference between corresponding values of two uint8 images, 0 to 255."""
    assert first.shape == second.shape
    return int(np.abs(first.astype(int) - second.astype(int)).max())


class Server:
    """ComfyUI on the CPU, with its own base folder, so that tests do not see each other's files.

    Args:
        comfyui: the folder of ComfyUI.
        python: the Python to run ComfyUI with.
        base: the base folder.
        arguments: additional arguments for ComfyUI.
        environment: additional environment variables.
    """

    def __init__(
        self,
        comfyui: Path,
        python: str,
        base: Path,
        *arguments: str,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.base = base
        for name in ("custom_nodes", "input", "output", "models/loras", "models/checkpoints", "temp", "user"):
            (base / name).mkdir(parents=True, exist_ok=True)
        link = base / "custom_nodes" / PACK_FOLDER
        if not link.exists():
            link.symlink_to(ROOT, target_is_directory=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = base / "server.log"
        command = [python, "main.py", "--cpu", "--port", str(self.port), "--base-directory", str(base)]
        # No test uses the nodes that call web services, and importing them takes a second.
        command += ["--disable-auto-launch", "--disable-api-nodes", "--disable-all-custom-nodes"]
        command += ["--whitelist-custom-nodes", PACK_FOLDER, *arguments]
        # Otherwise, bytecode files would be written into the checkout.
        variables = {**os.environ, **ONE_THREAD, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, cwd=comfyui, stdout=log, stderr=subprocess.STDOUT, env=variables)
        self._wait_until_up()

    def _wait_until_up(self) -> None:
        deadline = time.time() + START_SECONDS
        while time.time() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended at its start:\n{self.log_text()[-4000:]}")
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(POLL_SECONDS)
        self.stop()
        raise RuntimeError(f"ComfyUI did not start in {START_SECONDS} s:\n{self.log_text()[-4000:]}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> Path:
        return self.base / "output"

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def get_bytes(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=60) as response:
            return response.read()

    def get(self, path: str) -> Any:
        return json.loads(self.get_bytes(path))

    def post(self, path: str, content: Any) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(content).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                body = response.read()
        except urllib.error.HTTPError as error:
            raise PromptFailed(json.loads(error.read())) from None
        return json.loads(body) if body else None

    def queue(self, prompt: dict[str, Any]) -> str:
        """Queue a prompt in API format and return its id.

        Raises:
            PromptFailed: the server refuses a part of it, even if it would run the rest.
        """
        reply = self.post("/prompt", {"prompt": prompt})
        if reply["node_errors"]:
            raise PromptFailed(reply)
        return reply["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = 600) -> dict[str, Any]:
        """Wait until a prompt has ended, whether or not it succeeded, and return its history entry."""
        deadline = time.time() + seconds
        while time.time() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended:\n{self.log_text()[-4000:]}")
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"prompt {prompt_id} did not end in {seconds} s:\n{self.log_text()[-4000:]}")

    def run(self, prompt: dict[str, Any], seconds: float = 600) -> Outputs:
        """Queue a prompt, wait for it and return the outputs of its nodes.

        Raises:
            PromptFailed: the server rejected the prompt, or a node raised an error.
        """
        return self.outputs(self.queue(prompt), seconds)

    def outputs(self, prompt_id: str, seconds: float = 600) -> Outputs:
        """Wait for a queued prompt and return the outputs of its nodes.

        Raises:
            PromptFailed: a node raised an error, or the prompt was cancelled.
        """
        entry = self.wait(prompt_id, seconds)
        if entry["status"]["status_str"] != "success":
            raise PromptFailed(entry["status"]["messages"])
        shown = entry["outputs"].items()
        return Outputs(
            {node: self._pictures(output["images"]) for node, output in shown if "images" in output},
            {node: "\n".join(output["text"]) for node, output in shown if "text" in output},
            frozenset(dict(entry["status"]["messages"])["execution_cached"]["nodes"]),
        )

    def _pictures(self, images: list[dict[str, str]]) -> np.ndarray:
        contents = [self.get_bytes("/view?" + urllib.parse.urlencode(image)) for image in images]
        return np.stack([read_picture(io.BytesIO(content)) for content in contents])

    def options(self, node_type: str, widget: str) -> list[str]:
        """Return the current options of a list widget."""
        inputs = self.get(f"/object_info/{node_type}")[node_type]["input"]
        kind, details = {**inputs.get("required", {}), **inputs.get("optional", {})}[widget]
        return kind if isinstance(kind, list) else details["options"]

    def lora(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Return the tensors and metadata of a finished LoRA."""
        with safe_open(self.output / "loras" / f"{name}.safetensors", "np") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118

    def steps_done(self, name: str) -> int:
        """Return the number of steps that a run has logged."""
        log = self.output / "crucible" / name / "log.jsonl"
        return len(log.read_text().splitlines()) if log.exists() else 0
