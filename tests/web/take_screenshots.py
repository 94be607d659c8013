"""Takes the screenshots of the README and the thumbnails of the templates: `python tests/web/take_screenshots.py`.

It runs the whole demo workflow in Nodes 2.0, as a user would. Run this script again after changing the workflows, the
look of the nodes or the demo model. It writes

    docs/demo_workflow.jpg      the demo workflow after a run
    example_workflows/*.jpg     the thumbnails
"""

from __future__ import annotations

import argparse
import io
import json
import textwrap
import urllib.parse
from pathlib import Path

from browser import ROOT, ComfyPage, comfy_page, running_server
from PIL import Image, ImageDraw, ImageFont
from safetensors.numpy import save_file
from server import PACK_FOLDER, Server

DEMO = "train_your_first_lora_no_downloads"
SDXL = "train_lora_on_your_checkpoint_sdxl"
CAPTION = "caption_and_check_a_dataset"
STACK = "stack_and_merge_loras"
LANGUAGE = "teach_a_language_model_your_words_then_draw_them"
EXAMPLES = ROOT / "example_workflows"

SCALE = 0.62
LEFT, TOP, MARGIN = 90, 150, 10
"""The position of the graph on the page, clear of side bar, buttons and messages, and the margin around it."""
VIEWPORT = {"width": 2100, "height": 1340}
WIDTH = 1600
"""The width in pixels of the screenshot in the README."""
THUMBNAIL, GAP, LABEL = 400, 8, 28
LONGEST_LINE = 40
"""The most letters of a line below an image of a thumbnail."""
LORAS = {"ink_drawing.safetensors": 0.8, "soft_light.safetensors": 0.5, "my_cat.safetensors": 0.7}
AROUND_STACK = (310, -45, 400, 400)
AROUND_TRAINING = (665, -70, 690, 690)
AROUND_IMAGES = (740, -45, 520, 520)
"""The parts of the workflows to show: left, top, width and height."""
PAPER, INK = (24, 24, 27), (228, 228, 231)


def main() -> None:
    """Parse the command line, start a server and take all screenshots."""
    parser = argparse.ArgumentParser(description="Retake the screenshots of README and templates.")
    parser.add_argument("--steps", type=int, help="number of training steps (default: that of the workflow)")
    steps = parser.parse_args().steps
    with running_server() as server:
        for name in LORAS:
            save_file({}, server.base / "models" / "loras" / name)
        take(server, steps)


def take(server: Server, steps: int | None) -> None:
    """Run the workflows and write all images."""
    with comfy_page(server, "vue", **VIEWPORT) as comfy:
        comfy.load_template(PACK_FOLDER, STACK)
        rows = [{"name": name, "strength_model": strength} for name, strength in LORAS.items()]
        comfy.set_widgets({"CrucibleLoRAStack": {"loras": json.dumps(rows)}})
        write(screenshot(comfy, AROUND_STACK).resize((THUMBNAIL, THUMBNAIL)), EXAMPLES / f"{STACK}.jpg")
        comfy.load_template(PACK_FOLDER, SDXL)
        write(screenshot(comfy, AROUND_TRAINING).resize((THUMBNAIL, THUMBNAIL)), EXAMPLES / f"{SDXL}.jpg")
        comfy.load_template(PACK_FOLDER, CAPTION)
        comfy.run().wait(seconds=60)  # the demo's images have captions, so no captioner is downloaded
        write(screenshot(comfy, AROUND_IMAGES).resize((THUMBNAIL, THUMBNAIL)), EXAMPLES / f"{CAPTION}.jpg")
        comfy.load_template(PACK_FOLDER, LANGUAGE)
        prompt_id = comfy.run().wait(seconds=3600)
        texts = server.get(f"/history/{prompt_id}")[prompt_id]["outputs"][comfy.node_id("What it writes")]["text"]
        drawn = pictures(server, prompt_id, comfy.node_id("Drawn: before and after"))
        write(written_and_drawn(texts, drawn), EXAMPLES / f"{LANGUAGE}.jpg")
        comfy.load_template(PACK_FOLDER, DEMO)
        if steps is not None:
            comfy.set_widgets({"CrucibleConfigureLoRA": {"max_train_steps": steps}})
        prompt_id = comfy.run().wait(seconds=3600)
        comfy.wait_for_pictures("PreviewImage", [10, 4])
        drawn = pictures(server, prompt_id, comfy.node_id("Samples: before, during and after"))
        write(before_and_after(drawn[:2], drawn[-2:]), EXAMPLES / f"{DEMO}.jpg")
        graph = screenshot(comfy, comfy.bounds())
        write(graph.resize((WIDTH, round(WIDTH * graph.height / graph.width))), ROOT / "docs" / "demo_workflow.jpg")


def screenshot(comfy: ComfyPage, bounds: tuple[float, float, float, float]) -> Image.Image:
    """Return a screenshot of a part of the graph, given as left, top, width and height, without pop-up messages."""
    left, top, width, height = bounds
    comfy.look_at(LEFT / SCALE - left, TOP / SCALE - top, SCALE)
    comfy.wait_for_quiet()
    clip = {
        "x": LEFT - MARGIN,
        "y": TOP - MARGIN,
        "width": width * SCALE + 2 * MARGIN,
        "height": height * SCALE + 2 * MARGIN,
    }
    return Image.open(io.BytesIO(comfy.page.screenshot(clip=clip)))


def pictures(server: Server, prompt_id: str, node_id: str) -> list[Image.Image]:
    """Return the images that a node showed in a run."""
    images = server.get(f"/history/{prompt_id}")[prompt_id]["outputs"][node_id]["images"]
    contents = [server.get_bytes("/view?" + urllib.parse.urlencode(image)) for image in images]
    return [Image.open(io.BytesIO(content)) for content in contents]


def before_and_after(before: list[Image.Image], after: list[Image.Image]) -> Image.Image:
    """Return a sheet with two images of each kind, labelled below: the template browser covers the top left corner."""
    sheet = Image.new("RGB", (THUMBNAIL, THUMBNAIL), PAPER)
    draw = ImageDraw.Draw(sheet)
    side = (THUMBNAIL - 2 * LABEL - GAP) // 2
    for row, (text, images) in enumerate((("before", before), ("after", after))):
        top = row * (LABEL + side + GAP)
        for column, image in enumerate(images[:2]):
            left = (THUMBNAIL - 2 * side - GAP) // 2 + column * (side + GAP)
            sheet.paste(image.resize((side, side)), (left, top))
        middle = (THUMBNAIL / 2, top + side + LABEL / 2)
        draw.text(middle, text, fill=INK, font=ImageFont.load_default(18), anchor="mm")
    return sheet


def written_and_drawn(texts: list[str], drawn: list[Image.Image]) -> Image.Image:
    """Return a sheet with the image of each text, and the text below it."""
    sheet = Image.new("RGB", (THUMBNAIL, THUMBNAIL), PAPER)
    draw = ImageDraw.Draw(sheet)
    side = (THUMBNAIL - 4 * LABEL - GAP) // 2
    for row, (text, image) in enumerate(zip(texts, drawn, strict=True)):
        top = row * (2 * LABEL + side + GAP)
        sheet.paste(image.resize((side, side)), ((THUMBNAIL - side) // 2, top))
        lines = "\n".join(textwrap.wrap(text, LONGEST_LINE))
        middle = (THUMBNAIL / 2, top + side + LABEL)
        draw.text(middle, lines, fill=INK, font=ImageFont.load_default(18), anchor="mm", align="center")
    return sheet


def write(picture: Image.Image, path: Path) -> None:
    """Save an image as JPEG, and print its size."""
    path.parent.mkdir(exist_ok=True)
    picture.convert("RGB").save(path, quality=88, optimize=True)
    print(f"{path.relative_to(ROOT)}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
