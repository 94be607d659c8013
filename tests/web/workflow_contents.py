"""The contents of the example workflows: nodes, links and notes. Widgets that are not named keep their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

GREY, BLUE, GREEN = "#888", "#3f789e", "#8A8"


@dataclass(frozen=True)
class Node:
    """A node of a workflow.

    Attributes:
        key: the name by which the links of the other nodes refer to this one.
        type: the node id of its class.
        inputs: the linked inputs, each with the key of the source node and the name of its output.
        widgets: the values of the other inputs.
        title: the title shown on the node, or "" for the default.
        properties: entries to add to the node's properties.
        muted: whether the node is muted.
    """

    key: str
    type: str
    place: tuple[int, int, int, int]
    """Left, top, width and height, without the title bar. A node that needs more space grows."""
    inputs: dict[str, tuple[str, str]] = field(default_factory=dict)
    widgets: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    properties: dict[str, Any] = field(default_factory=dict)
    muted: bool = False


@dataclass(frozen=True)
class Group:
    """A coloured frame behind nodes; `place` is its left, top, width and height."""

    title: str
    place: tuple[int, int, int, int]
    color: str


@dataclass(frozen=True)
class Workflow:
    """An example workflow; `name` is its file name without the extension."""

    name: str
    nodes: tuple[Node, ...]
    groups: tuple[Group, ...]


def note(place: tuple[int, int, int, int], title: str, text: str) -> Node:
    return Node(title, "MarkdownNote", place, title=title, widgets={"": text.strip()})


def training(output_name: str, dataset: dict[str, Any]) -> tuple[Node, ...]:
    """Return the nodes of a training, from left to right."""
    return (
        Node("dataset", "CrucibleLoadDataset", (340, 0, 300, 420), widgets=dataset),
        Node(
            "config",
            "CrucibleConfigureLoRA",
            (680, 0, 300, 420),
            inputs={"dataset": ("dataset", "dataset"), "model": ("base", "model")},
        ),
        Node(
            "train",
            "CrucibleTrainLoRA",
            (1020, 0, 320, 420),
            inputs={
                "model": ("base", "model"),
                "clip": ("base", "clip"),
                "vae": ("base", "vae"),
                "dataset": ("dataset", "dataset"),
                "config": ("config", "config"),
            },
            widgets={"output_name": output_name},
        ),
    )


def prompts(left: int, top: int, text: str, latent: dict[str, int], clip: str) -> tuple[Node, ...]:
    """Return the prompts, one below the other, and the empty latent."""
    inputs = {"clip": (clip, "clip")}
    return (
        Node("positive", "CLIPTextEncode", (left, top, 300, 110), inputs, {"text": text}, title="Prompt"),
        Node("negative", "CLIPTextEncode", (left, top + 160, 300, 90), inputs, {"text": ""}, title="Negative prompt"),
        Node("latent", "EmptyLatentImage", (left, top + 300, 300, 118), widgets=latent, title="Image size"),
    )


def sampler(left: int, top: int, model: tuple[str, str], steps: int, cfg: float) -> tuple[Node, Node]:
    """Return a sampler and its decoder, one below the other."""
    return (
        Node(
            "sampler",
            "KSampler",
            (left, top, 320, 262),
            inputs={
                "model": model,
                "positive": ("positive", "CONDITIONING"),
                "negative": ("negative", "CONDITIONING"),
                "latent_image": ("latent", "LATENT"),
            },
            widgets={
                "seed": 7,
                "control_after_generate": "fixed",
                "steps": steps,
                "cfg": cfg,
                "sampler_name": "euler",
                "scheduler": "normal",
            },
        ),
        Node(
            "decode",
            "VAEDecode",
            (left, top + 312, 320, 54),
            inputs={"samples": ("sampler", "LATENT"), "vae": ("base", "vae")},
        ),
    )


def shown(key: str, place: tuple[int, int, int, int], images: tuple[str, str], title: str) -> Node:
    return Node(key, "PreviewImage", place, inputs={"images": images}, title=title)


def enlarged(key: str, place: tuple[int, int], images: tuple[str, str]) -> Node:
    """Return a node that enlarges images: those of the demo are tiny, and the classic canvas does not enlarge them."""
    return Node(
        key,
        "ImageScaleBy",
        (*place, 300, 88),
        inputs={"image": images},
        widgets={"upscale_method": "bicubic", "scale_by": 4.0},
        title="Enlarge for viewing",
    )


DEMO = Workflow(
    "train_your_first_lora_no_downloads",
    (
        note(
            (0, 0, 300, 120),
            "Start here",
            "Press **Run**. A tiny model learns a style from 24 drawings, without a download or a graphics card.",
        ),
        Node("base", "CrucibleDemoModel", (0, 180, 300, 98)),
        *training("my_first_lora", {}),
        enlarged("large_samples", (1380, 0), ("train", "samples")),
        shown("samples", (1380, 140, 480, 280), ("large_samples", "IMAGE"), "Samples: before, during and after"),
        *prompts(
            680,
            640,
            "crux, a red circle on a white background",
            {"width": 64, "height": 64, "batch_size": 4},
            clip="train",
        ),
        *sampler(1020, 640, ("train", "model"), 20, 4.0),
        enlarged("large", (1380, 640), ("decode", "IMAGE")),
        shown("shown", (1380, 780, 480, 280), ("large", "IMAGE"), "Your prompt, drawn with your LoRA"),
    ),
    (
        Group("1. Model and images", (-20, -75, 680, 615), BLUE),
        Group("2. Train", (660, -75, 700, 615), GREEN),
        Group("3. See what it learned", (1360, -75, 520, 615), GREY),
        Group("4. Use it: the LoRA is in output/loras", (660, 565, 1220, 515), GREEN),
    ),
)

SDXL_URL = "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors"


def sdxl(place: tuple[int, int, int, int]) -> Node:
    """Return the loader of an SDXL checkpoint, which says where to find it."""
    return Node(
        "base",
        "CheckpointLoaderSimple",
        place,
        widgets={"ckpt_name": "sd_xl_base_1.0.safetensors"},
        properties={"models": [{"name": "sd_xl_base_1.0.safetensors", "url": SDXL_URL, "directory": "checkpoints"}]},
    )


SDXL = Workflow(
    "train_lora_on_your_checkpoint_sdxl",
    (
        note(
            (0, 0, 300, 120),
            "Start here",
            "Put images with captions into a folder in **input**, press **R**, choose it and your model, then **Run**.",
        ),
        sdxl((0, 180, 300, 98)),
        *training("my_sdxl_lora", {"trigger_word": "ohwx"}),
        shown("samples", (1380, 0, 480, 190), ("train", "samples"), "Samples: before, during and after"),
        Node("report", "PreviewAny", (1380, 240, 480, 180), {"source": ("train", "report")}, title="Report"),
        shown("dataset_preview", (0, 640, 300, 420), ("dataset", "preview"), "The images as they will be trained"),
        Node(
            "lora",
            "CrucibleLoadLoRA",
            (680, 640, 300, 300),
            inputs={"model": ("base", "model"), "clip": ("base", "clip"), "lora": ("train", "lora")},
        ),
        *prompts(
            340,
            640,
            "ohwx, in a park at sunset",
            {"width": 1024, "height": 1024, "batch_size": 1},
            clip="lora",
        ),
        *sampler(1020, 640, ("lora", "model"), 25, 6.0),
        shown("shown", (1380, 640, 480, 420), ("decode", "IMAGE"), "Your prompt, drawn with your LoRA"),
    ),
    (
        Group("1. Model and images", (-20, -75, 680, 615), BLUE),
        Group("2. Train", (660, -75, 700, 615), GREEN),
        Group("3. See what it learned", (1360, -75, 520, 615), GREY),
        Group("Check the images", (-20, 565, 340, 515), GREY),
        Group("4. Use it: the LoRA is in output/loras", (320, 565, 1560, 515), GREEN),
    ),
)

CAPTION = Workflow(
    "caption_and_check_a_dataset",
    (
        note(
            (0, 0, 300, 120),
            "Start here",
            "Put images into a folder in **input**, press **R**, choose it, then **Run**. Files stay as they are.",
        ),
        Node("dataset", "CrucibleLoadDataset", (0, 180, 300, 490)),
        Node("report", "PreviewAny", (340, 0, 380, 670), {"source": ("dataset", "report")}, title="Report: problems"),
        shown("dataset_preview", (760, 0, 480, 670), ("dataset", "preview"), "The images as they will be trained"),
        Node("caption", "CrucibleAutoCaption", (1280, 0, 320, 670), inputs={"dataset": ("dataset", "dataset")}),
        Node("texts", "PreviewAny", (1640, 0, 380, 670), {"source": ("caption", "texts")}, title="All captions"),
    ),
    (
        Group("1. Check", (-20, -75, 1280, 765), BLUE),
        Group("2. Caption what has no caption", (1260, -75, 780, 765), GREEN),
    ),
)

STACK = Workflow(
    "stack_and_merge_loras",
    (
        note(
            (0, 0, 300, 120),
            "Start here",
            "Choose a model, add LoRAs, then **Run**. To keep the mix, select a gray node, press **Ctrl+M**, and Run.",
        ),
        sdxl((0, 180, 300, 98)),
        Node("stack", "CrucibleLoRAStack", (340, 0, 340, 240)),
        Node(
            "lora",
            "CrucibleLoadLoRA",
            (720, 0, 300, 300),
            inputs={"model": ("base", "model"), "clip": ("base", "clip"), "lora_stack": ("stack", "lora_stack")},
        ),
        Node("info", "PreviewAny", (1060, 0, 380, 420), {"source": ("lora", "info")}, title="About each LoRA"),
        *prompts(
            340,
            540,
            "a house by the sea, in the style of your LoRAs",
            {"width": 1024, "height": 1024, "batch_size": 1},
            clip="lora",
        ),
        *sampler(720, 540, ("lora", "model"), 25, 6.0),
        shown("shown", (1080, 540, 400, 420), ("decode", "IMAGE"), "Your prompt, drawn with the LoRAs"),
        Node(
            "merge",
            "CrucibleMergeLoRA",
            (1540, 0, 320, 420),
            inputs={"lora_stack": ("lora", "lora_stack"), "model": ("base", "model"), "clip": ("base", "clip")},
            muted=True,
        ),
        Node(
            "save",
            "CheckpointSave",
            (1540, 540, 320, 120),
            inputs={"model": ("lora", "model"), "clip": ("lora", "clip"), "vae": ("base", "vae")},
            widgets={"filename_prefix": "checkpoints/with_loras"},
            muted=True,
        ),
    ),
    (
        Group("1. Choose", (-20, -75, 720, 515), BLUE),
        Group("2. Apply", (700, -75, 760, 515), BLUE),
        Group("3. Draw", (320, 465, 1180, 515), GREEN),
        Group("4. Keep: one LoRA, or a whole checkpoint", (1520, -75, 360, 1055), GREY),
    ),
)

LANGUAGE = Workflow(
    "teach_a_language_model_your_words_then_draw_them",
    (
        Node("language", "CrucibleDemoLanguageModel", (0, 0, 300, 60)),
        Node(
            "rows",
            "CrucibleLoadTextDataset",
            (340, 0, 360, 500),
            inputs={"clip": ("language", "clip")},
            # Each of the 60 rows is needed to learn its word, and the model's own answers keep what it knew.
            widgets={"validation_percent": 0, "regularization_rows": True, "reg_data_dir": "demo"},
        ),
        Node(
            "config",
            "CrucibleConfigureLanguageLoRA",
            (740, 0, 320, 500),
            inputs={"dataset": ("rows", "dataset"), "clip": ("language", "clip")},
            widgets={"lora_rank": 16, "learning_rate": 0.005, "max_train_steps": 250, "batch_size": 8},
        ),
        Node(
            "train",
            "CrucibleTrainLanguageLoRA",
            (1100, 0, 400, 500),
            inputs={
                "clip": ("language", "clip"),
                "dataset": ("rows", "dataset"),
                "config": ("config", "config"),
            },
            widgets={"output_name": "my_words"},
        ),
        Node(
            "both",
            "CreateList",
            (0, 640, 300, 90),
            inputs={"inputs.input0": ("language", "clip"), "inputs.input1": ("train", "clip")},
            title="Before and after",
        ),
        Node(
            "ask",
            "TextGenerate",
            (340, 640, 360, 300),
            inputs={"clip": ("both", "list")},
            widgets={"prompt": "i want a leaf", "max_length": 48, "sampling_mode": "off"},
            title="Generate Text: your words",
        ),
        Node(
            "texts", "PreviewAny", (740, 640, 320, 160), {"source": ("ask", "generated_text")}, title="What it writes"
        ),
        Node("base", "CrucibleDemoModel", (0, 840, 300, 98)),
        Node(
            "prompt",
            "CLIPTextEncode",
            (740, 860, 320, 80),
            {"clip": ("base", "clip"), "text": ("texts", "STRING")},
            title="Prompt: what it wrote",
        ),
        Node(
            "latent",
            "EmptyLatentImage",
            (1100, 640, 300, 106),
            widgets={"width": 64, "height": 64, "batch_size": 1},
            title="Image size",
        ),
        Node(
            "sampler",
            "KSampler",
            (1100, 800, 300, 262),
            inputs={
                "model": ("base", "model"),
                "positive": ("prompt", "CONDITIONING"),
                "negative": ("prompt", "CONDITIONING"),  # has no effect at a CFG of 1
                "latent_image": ("latent", "LATENT"),
            },
            widgets={
                "seed": 8,
                "control_after_generate": "fixed",
                "steps": 20,
                "cfg": 1.0,
                "sampler_name": "euler",
                "scheduler": "normal",
            },
        ),
        Node(
            "decode",
            "VAEDecode",
            (1440, 640, 240, 46),
            inputs={"samples": ("sampler", "LATENT"), "vae": ("base", "vae")},
        ),
        enlarged("large", (1700, 640), ("decode", "IMAGE")),
        shown("shown", (1440, 800, 560, 262), ("large", "IMAGE"), "Drawn: before and after"),
    ),
    (
        Group("1. A language model and rows with new words", (-20, -75, 740, 595), BLUE),
        Group("2. Press Run: a minute of training", (720, -75, 800, 595), GREEN),
        Group("3. Ask it, before and after", (-20, 565, 1100, 515), GREY),
        Group("4. Draw what it wrote, with a model that was not trained", (1080, 565, 940, 515), GREEN),
    ),
)

WORKFLOWS = (DEMO, SDXL, CAPTION, STACK, LANGUAGE)
