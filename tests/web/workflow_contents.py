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


def note(top: int, height: int, title: str, text: str, left: int = -1180) -> Node:
    """Return a note, by default in the column to the left of everything else."""
    return Node(title, "MarkdownNote", (left, top, 380, height), title=title, widgets={"": text.strip()})


def training(output_name: str, dataset: dict[str, Any], settings: dict[str, Any], preview_top: int) -> tuple[Node, ...]:
    """Return the nodes of a training and its results, except the samples, which each workflow shows in its own way."""
    return (
        Node("dataset", "CrucibleLoadDataset", (-360, 0, 320, 640), widgets=dataset),
        Node(
            "dataset_preview",
            "PreviewImage",
            (0, preview_top, 320, 640 - preview_top),
            inputs={"images": ("dataset", "preview")},
            title="The images as they will be trained",
        ),
        Node("config", "CrucibleConfigureLoRA", (-740, 0, 300, 1490), widgets=settings),
        Node(
            "train",
            "CrucibleTrainLoRA",
            (380, 0, 340, 500),
            inputs={
                "model": ("base", "model"),
                "clip": ("base", "clip"),
                "vae": ("base", "vae"),
                "dataset": ("dataset", "dataset"),
                "config": ("config", "config"),
            },
            widgets={"output_name": output_name},
        ),
        Node("loss", "LossGraphNode", (800, 310, 380, 330), inputs={"loss": ("train", "loss")}),
        Node("report", "PreviewAny", (1220, 0, 720, 640), inputs={"source": ("train", "report")}, title="Report"),
    )


def samples(images: tuple[str, str]) -> Node:
    """Return the node that shows the samples of a training."""
    title = "Samples: before, during and after"
    return Node("samples", "PreviewImage", (800, 0, 380, 266), inputs={"images": images}, title=title)


def prompts(text: str, latent: dict[str, int], latent_title: str) -> tuple[Node, ...]:
    """Return the prompts and the empty latent that the samplers share."""
    clip = {"clip": ("base", "clip")}
    return (
        Node(
            "positive",
            "CLIPTextEncode",
            (0, 755, 320, 110),
            inputs=clip,
            widgets={"text": text},
            title="Prompt, with the trigger word",
        ),
        Node(
            "negative",
            "CLIPTextEncode",
            (0, 905, 320, 104),
            inputs=clip,
            widgets={"text": ""},
            title="Negative prompt",
        ),
        Node("latent", "EmptyLatentImage", (0, 1049, 320, 118), widgets=latent, title=latent_title),
    )


def sampler(key: str, left: int, top: int, model: tuple[str, str], steps: int, cfg: float) -> tuple[Node, Node]:
    """Return a sampler and its decoder. The same seed everywhere: before and after differ only in the model."""
    return (
        Node(
            key,
            "KSampler",
            (left, top, 270, 262),
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
            f"{key}_decode",
            "VAEDecode",
            (left, top + 302, 270, 54),
            inputs={"samples": (key, "LATENT"), "vae": ("base", "vae")},
        ),
    )


def enlarged(key: str, place: tuple[int, int, int], images: tuple[str, str]) -> Node:
    """Return a node that enlarges images: those of the demo are tiny, and the classic canvas does not enlarge them."""
    return Node(
        key,
        "ImageScaleBy",
        (*place, 88),
        inputs={"image": images},
        widgets={"upscale_method": "bicubic", "scale_by": 4.0},
        title="Enlarge for viewing",
    )


def groups(lower_height: int) -> tuple[Group, ...]:
    """Return the groups that the two training workflows share."""
    return (
        Group("Settings (all optional)", (-760, -75, 340, 1585), GREEN),
        Group("1. Model and images", (-380, -75, 720, 760), BLUE),
        Group("2. Train", (360, -75, 380, 760), GREEN),
        Group("3. Results", (780, -75, 1180, 760), GREY),
        Group("4. Prompt", (-20, 700, 360, lower_height), BLUE),
        Group("5. Before: the model without your LoRA", (360, 700, 780, lower_height), GREY),
        Group("6. After: same prompt, same seed, with your LoRA", (1160, 700, 800, lower_height), GREEN),
    )


DEMO = Workflow(
    "train_your_first_lora_no_downloads",
    (
        Node("base", "CrucibleDemoModel", (0, 0, 320, 98)),
        *training("my_first_lora", {}, {}, preview_top=140),
        enlarged("large_samples", (380, 550, 340), ("train", "samples")),
        samples(("large_samples", "IMAGE")),
        *prompts(
            "crux, a red circle on a white background",
            {"width": 64, "height": 64, "batch_size": 4},
            "Four images of 64 x 64",
        ),
        *sampler("before", 380, 755, ("base", "model"), 20, 4.0),
        enlarged("before_large", (380, 1151, 270), ("before_decode", "IMAGE")),
        Node(
            "before_shown", "PreviewImage", (690, 755, 430, 484), {"images": ("before_large", "IMAGE")}, title="Before"
        ),
        *sampler("after", 1180, 755, ("train", "model"), 20, 4.0),
        enlarged("after_large", (1180, 1151, 270), ("after_decode", "IMAGE")),
        Node("after_shown", "PreviewImage", (1490, 755, 450, 484), {"images": ("after_large", "IMAGE")}, title="After"),
        note(
            -45,
            350,
            "Train your first LoRA (no downloads)",
            """
# Train your first LoRA

This workflow teaches a tiny model a style that it has never seen. It needs no download and no graphics card.

1. Press **Run**.
2. Watch **Train LoRA**: it draws samples while it learns.
3. Compare the images at the bottom: same prompt, same seed, **before** and **after** training.

Your LoRA is saved as **my_first_lora.safetensors** in **output/loras**. Any node that loads LoRAs has it in its list.
""",
        ),
        note(
            350,
            315,
            "What you see",
            """
## What you see

- **Samples**: from before the first step to after the last.
- **Loss**: the training error. It jumps up and down, which is normal. The samples tell you more.
- **Report**: what was done, and the values chosen for all settings that are 0 or auto.

The LoRA reacts to its trigger word, **crux**. Remove it from the prompt and press Run again: only the images are \
drawn again, nothing is trained twice.
""",
        ),
        note(
            710,
            545,
            "Your own images, your own model",
            """
## Your own images, your own model

1. Put 15 to 100 images into a new folder inside ComfyUI's **input** folder. Next to each image, put a text file of \
the same name that says what it shows: **01.png**, **01.txt**.
2. Press **R**, choose the folder in **Load Dataset**, and make up a trigger word.
3. Replace **Demo Model** with **Load Checkpoint**.
4. Draw at the size your model was made for: 512 for SD1.5, 1024 for SDXL.

The template **train_lora_on_your_checkpoint_sdxl** has all this ready for SDXL.
""",
        ),
    ),
    groups(575),
)

SDXL_URL = "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors"

SDXL = Workflow(
    "train_lora_on_your_checkpoint_sdxl",
    (
        Node(
            "base",
            "CheckpointLoaderSimple",
            (0, 0, 320, 98),
            widgets={"ckpt_name": "sd_xl_base_1.0.safetensors"},
            properties={
                "models": [{"name": "sd_xl_base_1.0.safetensors", "url": SDXL_URL, "directory": "checkpoints"}],
            },
        ),
        *training("my_sdxl_lora", {"trigger_word": "ohwx"}, {"gradient_checkpointing": True}, preview_top=165),
        samples(("train", "samples")),
        *prompts("ohwx, in a park at sunset", {"width": 1024, "height": 1024, "batch_size": 1}, "Image size"),
        *sampler("before", 380, 755, ("base", "model"), 25, 6.0),
        Node(
            "before_shown", "PreviewImage", (690, 755, 430, 606), {"images": ("before_decode", "IMAGE")}, title="Before"
        ),
        Node(
            "lora",
            "CrucibleLoadLoRA",
            (1180, 755, 270, 300),
            inputs={"model": ("base", "model"), "clip": ("base", "clip"), "lora": ("train", "lora")},
        ),
        *sampler("after", 1180, 1105, ("lora", "model"), 25, 6.0),
        Node(
            "after_shown", "PreviewImage", (1490, 755, 450, 606), {"images": ("after_decode", "IMAGE")}, title="After"
        ),
        note(
            -45,
            440,
            "Train a LoRA on your SDXL checkpoint",
            """
# Train a LoRA on your checkpoint

1. **Load Checkpoint**: choose one of your SDXL models. If Run says *Value not in list*, you do not have the file \
named there.
2. Put 15 to 100 images into a new folder inside ComfyUI's **input** folder, each with a text file of the same name \
that says what it shows: **01.png**, **01.txt**.
3. Press **R**, then choose that folder in **Load Dataset**. The default, **demo**, has tiny drawings that are no use \
for SDXL.
4. **Trigger word**: make up a word that has no meaning. Use the same word in the prompt below.
5. Press **Run**.

Cancel saves what was trained so far; Run continues from there.
""",
        ),
        note(
            440,
            370,
            "Settings",
            """
## Settings

Settings that are 0 or auto are chosen for your model and your images. The **report** shows each value and the reason.

- The LoRA is too weak? Train more **steps**.
- It only copies your images? Train fewer **steps**, or set **strength_model** to 0.7 in Load LoRA.
- **Gradient checkpointing**, an advanced setting, is on here: it saves much memory but takes about a third more \
time. Turn it off if you have memory to spare.
""",
        ),
        note(
            855,
            505,
            "Use it later",
            """
## Use it later

The file is in **output/loras**. Choose it in any node that loads LoRAs, and put the trigger word in the prompt.

In **Load LoRA** here, the connected **lora** is used instead of the file in the list. To try another LoRA, disconnect \
it and choose a file. Changing the strength only draws a new image; nothing is trained again.

Samples, log and settings of the training are in **output/crucible**.
""",
        ),
    ),
    groups(800),
)

CAPTION = Workflow(
    "caption_and_check_a_dataset",
    (
        Node("dataset", "CrucibleLoadDataset", (-360, 0, 320, 850), widgets={"train_data_dir": "demo"}),
        Node(
            "report",
            "PreviewAny",
            (0, 0, 400, 850),
            inputs={"source": ("dataset", "report")},
            title="Report: contents and problems",
        ),
        Node(
            "dataset_preview",
            "PreviewImage",
            (440, 0, 560, 850),
            inputs={"images": ("dataset", "preview")},
            title="The images as they will be trained",
        ),
        Node("caption", "CrucibleAutoCaption", (1060, 0, 340, 850), inputs={"dataset": ("dataset", "dataset")}),
        Node("texts", "PreviewAny", (1440, 0, 400, 850), inputs={"source": ("caption", "texts")}, title="All captions"),
        note(
            -45,
            440,
            "Caption and check a dataset",
            """
# Caption and check a dataset

1. Put your images into a new folder inside ComfyUI's **input** folder, with or without captions.
2. Press **R**, choose the folder in **Load Dataset**, and make up a trigger word.
3. Press **Run**. The **report** lists problems with your images and captions, the most serious first, and what to do \
about them.
4. Look at the **images**: are the crops right, and does each caption fit?
""",
            left=-800,
        ),
        note(
            440,
            455,
            "Captions",
            """
## Captions

**Auto Caption** writes the missing captions. Its list shows the captioners in **models/captioners**, and some that it \
can download, with their size. Switch **download** on to allow that.

The captions are part of the dataset output; your files are not changed unless you choose so in **write**.

Then connect its **dataset** to **Train LoRA**, as in the other two workflows of this pack.
""",
            left=-800,
        ),
    ),
    (
        Group("1. Check", (-380, -75, 1400, 945), BLUE),
        Group("2. Caption", (1040, -75, 820, 945), GREEN),
    ),
)

STACK = Workflow(
    "stack_and_merge_loras",
    (
        Node(
            "base",
            "CheckpointLoaderSimple",
            (-740, 0, 320, 98),
            widgets={"ckpt_name": "sd_xl_base_1.0.safetensors"},
            properties={
                "models": [{"name": "sd_xl_base_1.0.safetensors", "url": SDXL_URL, "directory": "checkpoints"}],
            },
        ),
        Node("stack", "CrucibleLoRAStack", (-380, 0, 380, 300)),
        Node(
            "lora",
            "CrucibleLoadLoRA",
            (40, 0, 300, 300),
            inputs={"model": ("base", "model"), "clip": ("base", "clip"), "lora_stack": ("stack", "lora_stack")},
        ),
        Node("words", "PreviewAny", (380, 0, 400, 130), {"source": ("lora", "trigger_words")}, title="Trigger words"),
        Node("info", "PreviewAny", (380, 190, 400, 330), {"source": ("lora", "info")}, title="About each LoRA"),
        Node(
            "merge",
            "CrucibleMergeLoRA",
            (860, 0, 340, 300),
            inputs={"lora_stack": ("lora", "lora_stack"), "model": ("base", "model"), "clip": ("base", "clip")},
            muted=True,
        ),
        Node(
            "merged",
            "PreviewAny",
            (860, 360, 340, 160),
            {"source": ("merge", "info")},
            title="What was merged",
            muted=True,
        ),
        Node(
            "save",
            "CheckpointSave",
            (1240, 0, 340, 120),
            inputs={"model": ("lora", "model"), "clip": ("lora", "clip"), "vae": ("base", "vae")},
            widgets={"filename_prefix": "checkpoints/with_loras"},
            muted=True,
        ),
        Node(
            "positive",
            "CLIPTextEncode",
            (-740, 640, 360, 160),
            inputs={"clip": ("lora", "clip")},
            widgets={"text": "a house by the sea, in the style of your LoRAs"},
            title="Prompt",
        ),
        Node(
            "negative",
            "CLIPTextEncode",
            (-740, 850, 360, 110),
            inputs={"clip": ("lora", "clip")},
            widgets={"text": ""},
            title="Negative prompt",
        ),
        Node(
            "latent",
            "EmptyLatentImage",
            (-740, 1010, 360, 118),
            widgets={"width": 1024, "height": 1024, "batch_size": 1},
            title="Image size",
        ),
        *sampler("without", -340, 640, ("base", "model"), 25, 6.0),
        Node(
            "without_shown",
            "PreviewImage",
            (-40, 640, 430, 490),
            {"images": ("without_decode", "IMAGE")},
            title="Without the LoRAs",
        ),
        *sampler("with", 430, 640, ("lora", "model"), 25, 6.0),
        Node(
            "with_shown",
            "PreviewImage",
            (730, 640, 430, 490),
            {"images": ("with_decode", "IMAGE")},
            title="With the LoRAs",
        ),
        note(
            -45,
            440,
            "Stack and merge LoRAs",
            """
# Stack and merge LoRAs

1. **Load Checkpoint**: choose the model that your LoRAs are for.
2. **LoRA Stack**: press *Add LoRA* as often as you like. Each row has a strength and a switch; the arrows change the \
order.
3. Press **Run**. *About each LoRA* shows whether it fits, its trigger words, and a strength to start with.
4. Put the **trigger words** in the prompt.

A LoRA stack from another pack works, too.
""",
        ),
        note(
            440,
            560,
            "Merge them, or bake them in",
            """
## Merge them, or bake them in

**Merge LoRA** and **Save Checkpoint** are muted here, so they do nothing yet. When you like the images, select one of \
the nodes, press **Ctrl+M** to unmute it, and press **Run**.

- **Merge LoRA** combines the stack into one LoRA in **output/loras**. *linear* gives the same result as the stack; \
*ties* resolves conflicts between the LoRAs.
- **Save Checkpoint** saves the whole model with the LoRAs in it. The file takes gigabytes.

Without ComfyUI: **python -m trainer merge**.
""",
        ),
    ),
    (
        Group("1. Choose", (-760, -75, 780, 615), BLUE),
        Group("2. Apply", (20, -75, 780, 615), BLUE),
        Group("3. Keep", (840, -75, 760, 615), GREY),
        Group("4. Compare", (-760, 565, 1940, 585), GREEN),
    ),
)

WORKFLOWS = (DEMO, SDXL, CAPTION, STACK)
