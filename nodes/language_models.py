"""The language model in a CLIP, as the trainer uses it."""


def language_model(clip, row_settings=None):
    """Return the base model for the CLIP that a loader made; ComfyUI's Cancel stops what it computes.

    Args:
        row_settings: the settings of the rows that it is to read; None for the defaults.

    Raises:
        CrucibleError: the CLIP has no language model that can be trained.
    """
    from comfy.model_management import throw_exception_if_processing_interrupted

    from ..trainer.config import RowSettings
    from ..trainer.models.comfyui.language.model import ClipLanguageBaseModel

    settings = row_settings or RowSettings()
    return ClipLanguageBaseModel(
        clip,
        throw_exception_if_processing_interrupted,
        max_seq_length=settings.max_seq_length,
        train_on_prompts=settings.train_on_prompts,
    )
