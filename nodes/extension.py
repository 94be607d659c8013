"""The extension that gives ComfyUI all nodes of this pack."""

from .auto_caption import CrucibleAutoCaption
from .comfy_io import ComfyExtension
from .configure_language_lora import CrucibleConfigureLanguageLoRA
from .configure_lora import CrucibleConfigureLoRA
from .dataset_from_images import CrucibleDatasetFromImages
from .demo_language_model import CrucibleDemoLanguageModel
from .demo_model import CrucibleDemoModel
from .load_dataset import CrucibleLoadDataset
from .load_lora import CrucibleLoadLoRA
from .load_text_dataset import CrucibleLoadTextDataset
from .lora_stack import CrucibleLoRAStack
from .merge_lora import CrucibleMergeLoRA
from .options import OPTION_NODES
from .prompts import leave_out_empty_numbers
from .tagger_options import CrucibleTaggerOptions
from .text_dataset_from_lists import CrucibleTextDatasetFromLists
from .train_language_lora import CrucibleTrainLanguageLoRA
from .train_lora import CrucibleTrainLoRA


class CrucibleExtension(ComfyExtension):
    async def on_load(self):
        from server import PromptServer

        PromptServer.instance.add_on_prompt_handler(leave_out_empty_numbers)

    async def get_node_list(self):
        return [
            CrucibleDemoModel,
            CrucibleDemoLanguageModel,
            CrucibleLoadDataset,
            CrucibleDatasetFromImages,
            CrucibleAutoCaption,
            CrucibleTaggerOptions,
            CrucibleConfigureLoRA,
            *OPTION_NODES.values(),
            CrucibleTrainLoRA,
            CrucibleLoadLoRA,
            CrucibleLoRAStack,
            CrucibleMergeLoRA,
            CrucibleLoadTextDataset,
            CrucibleTextDatasetFromLists,
            CrucibleConfigureLanguageLoRA,
            CrucibleTrainLanguageLoRA,
        ]
