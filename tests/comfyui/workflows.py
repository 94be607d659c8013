"""Building prompts in ComfyUI's API format, node by node."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from lora_crucible.demo import DEMO_PROMPTS, TRIGGER_WORD

Link = list[Any]
"""A link to a node's output: [node id, index of the output]."""

PROMPT = f"{TRIGGER_WORD}, {DEMO_PROMPTS[0]}"
SAMPLING = {"seed": 7, "steps": 6, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal"}
"""The sampler settings of every image that the tests draw."""

SHORT_TRAINING = {
    "max_train_steps": 12,
    "batch_size": 4,
    "learning_rate": 0.005,
    "seed": SAMPLING["seed"],
    "sample_prompts": PROMPT,
    "sample_steps": SAMPLING["steps"],
    "sample_cfg": SAMPLING["cfg"],
}
"""Settings that train just enough to change the model; samples are drawn with the settings of `SAMPLING`."""


REQUEST = "i want a leaf"
"""A request with a word that the demo language model does not know until it is taught; it is not among the rows."""

SHORT_LANGUAGE_TRAINING = {
    "max_train_steps": 40,
    "batch_size": 8,
    "learning_rate": 0.005,
    "seed": 7,
    "sample_prompts": REQUEST,
    "max_new_tokens": 48,
    "measure": "never",
}
"""Settings that train the demo language model just enough to change its answers."""


@dataclass(frozen=True)
class Node:
    id: str
    outputs: list[str]

    def __getitem__(self, output: str) -> Link:
        return [self.id, self.outputs.index(output)]


class Graph:
    """A prompt that nodes can be added to; `prompt` is in the format that the server accepts.

    Args:
        object_info: the server's description of all nodes.
    """

    def __init__(self, object_info: dict[str, Any]) -> None:
        self.object_info = object_info
        self.prompt: dict[str, Any] = {}

    def add(self, node_type: str, node_id: str | None = None, **inputs: Any) -> Node:
        """Add a node with the given widgets and links; other widgets get their defaults, as in the browser.

        Settings that are not on the node itself are put on nodes for options, which are connected to it.
        """
        info = self.object_info[node_type]
        own = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        if "options" in own:
            for option_type, names in self._option_nodes(own["options"][0]).items():
                if chosen := {name: inputs.pop(name) for name in names if name in inputs and name not in own}:
                    earlier = {"options": inputs["options"]} if "options" in inputs else {}
                    inputs["options"] = self.add(option_type, **chosen, **earlier)["options"]
        node_id = node_id or str(len(self.prompt) + 1)
        defaults = {name: _default(spec) for name, spec in info["input"].get("required", {}).items()}
        self.prompt[node_id] = {"class_type": node_type, "inputs": {**defaults, **inputs}}
        return Node(node_id, info["output_name"])

    def _option_nodes(self, socket: str) -> dict[str, list[str]]:
        """Return the inputs of each node for options that has a socket of this type."""
        return {
            node_type: list(info["input"]["optional"])
            for node_type, info in self.object_info.items()
            if info["category"] == "LoRA Crucible/options" and info["output"] == [socket]
        }

    def show(self, name: str, text: Link) -> None:
        """Add a node that shows a text in the outputs of `Server.run` under `name`."""
        self.add("PreviewAny", name, source=text)


class DemoGraph(Graph):
    """A graph that starts with the demo model."""

    def __init__(self, object_info: dict[str, Any]) -> None:
        super().__init__(object_info)
        demo = self.add("CrucibleDemoModel", "demo model")
        self.model, self.clip, self.vae = demo["model"], demo["clip"], demo["vae"]

    def draw(
        self, name: str, model: Link, clip: Link | None = None, prompt: str = PROMPT, count: int = 1, **sampling: Any
    ) -> None:
        """Add nodes that draw images for the outputs of `Server.run` under `name`."""
        clip = clip or self.clip
        latent = self.add("EmptyLatentImage", width=64, height=64, batch_size=count)
        sampled = self.add(
            "KSampler",
            model=model,
            positive=self.add("CLIPTextEncode", clip=clip, text=prompt)["CONDITIONING"],
            negative=self.add("CLIPTextEncode", clip=clip, text="")["CONDITIONING"],
            latent_image=latent["LATENT"],
            **{**SAMPLING, **sampling},
        )
        pixels = self.add("VAEDecode", samples=sampled["LATENT"], vae=self.vae)["IMAGE"]
        self.add("SaveImage", name, images=pixels, filename_prefix=name)

    def draw_anew(self, name: str, model: Link, seed: int = SAMPLING["seed"]) -> None:
        """Add nodes that draw an image even if ComfyUI has it in its cache."""
        self.draw(name, model, seed=seed, not_from_cache=uuid.uuid4().hex)

    def train(
        self,
        output_name: str,
        dataset: Link | None = None,
        clip: Link | None = None,
        vae: Link | None = None,
        base_settings: dict[str, Any] = SHORT_TRAINING,
        **settings: Any,
    ) -> Node:
        """Add a training on the demo model; `settings` are widgets of Configure LoRA that override `base_settings`."""
        dataset = dataset or self.add("CrucibleLoadDataset")["dataset"]
        config = self.add("CrucibleConfigureLoRA", **{**base_settings, **settings})
        return self.add(
            "CrucibleTrainLoRA",
            model=self.model,
            clip=clip or self.clip,
            vae=vae or self.vae,
            dataset=dataset,
            config=config["config"],
            output_name=output_name,
        )

    def core_lora(self, lora_name: str, model: Link | None = None, strength: float = 1.0) -> Node:
        return self._lora("LoraLoader", model, strength, lora_name=lora_name)

    def lora(self, model: Link | None = None, strength: float = 1.0, **inputs: Any) -> Node:
        return self._lora("CrucibleLoadLoRA", model, strength, **inputs)

    def _lora(self, node_type: str, model: Link | None, strength: float, **inputs: Any) -> Node:
        strengths = {"strength_model": strength, "strength_clip": strength}
        return self.add(node_type, model=model or self.model, clip=self.clip, **strengths, **inputs)


class LanguageGraph(DemoGraph):
    """A graph that starts with the demo model and the demo language model."""

    def __init__(self, object_info: dict[str, Any]) -> None:
        super().__init__(object_info)
        self.language = self.add("CrucibleDemoLanguageModel", "demo language model")["clip"]

    def ask(self, name: str, clip: Link, prompt: str = REQUEST, **inputs: Any) -> None:
        """Add nodes that show core's likeliest answer in the outputs of `Server.run` under `name`."""
        settings = {"max_length": 48, "sampling_mode": "off", **inputs}
        self.show(name, self.add("TextGenerate", clip=clip, prompt=prompt, **settings)["generated_text"])

    def ask_anew(self, name: str, clip: Link) -> None:
        """Add nodes that show an answer even if ComfyUI has it in its cache."""
        self.ask(name, clip, not_from_cache=uuid.uuid4().hex)

    def teach(self, output_name: str, dataset: Link | None = None, **settings: Any) -> Node:
        """Add a training on the demo language model.

        Args:
            settings: widgets of Configure Language LoRA that override those of `SHORT_LANGUAGE_TRAINING`.
        """
        dataset = dataset or self.add("CrucibleLoadTextDataset")["dataset"]
        config = self.add("CrucibleConfigureLanguageLoRA", **{**SHORT_LANGUAGE_TRAINING, **settings})
        return self.add(
            "CrucibleTrainLanguageLoRA",
            clip=self.language,
            dataset=dataset,
            config=config["config"],
            output_name=output_name,
        )


def _default(spec: list[Any]) -> Any:
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    choices = kind if isinstance(kind, list) else options.get("options")
    return options.get("default", choices[0] if choices else None)
