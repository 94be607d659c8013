"""The keys of ai-toolkit's jobs that stand for themselves, and what becomes of each."""

from __future__ import annotations

from ..config.foreign_keys import ELSEWHERE
from .conversion import Rule, choice, clipping, flag, housekeeping, lost, same
from .images import set_sampler

PRECISIONS = {"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16", "fp32": "fp32", "float32": "fp32"}

_HELD = "the base model is trained in the precision that it is loaded in"
_MEMORY = "memory: auto moves what does not fit to system RAM by itself"
_PAIRS = "pairs of a control image and a result are not trained from a config file"

RULES: dict[str, Rule] = {
    "training_folder": same("output_dir"),
    "trigger_word": same("trigger_word"),
    "model.name_or_path": same("base_model"),
    "train.batch_size": same("batch_size"),
    "train.gradient_checkpointing": flag("gradient_checkpointing"),
    "train.dtype": choice("mixed_precision", PRECISIONS, "auto", otherwise="auto here"),
    "train.max_grad_norm": clipping,
    "train.noise_offset": same("noise_offset"),
    "train.reg_weight": same("prior_loss_weight"),
    "train.prompt_dropout_prob": lost("the nearest is caption_dropout_rate"),
    "train.train_unet": lost("the model itself is always trained", True),
    "train.content_or_style": choice(
        "timestep_sampling", {}, "auto", otherwise="only balanced is offered; logit_mean favors low or high noise"
    ),
    "train.linear_timesteps": lost("all trained noise levels count the same"),
    "train.linear_timesteps2": lost("all trained noise levels count the same"),
    "train.diff_output_preservation": lost("the nearest is reg_data_dir with images of the class"),
    "train.diff_output_preservation_class": lost("the nearest is reg_data_dir with images of the class"),
    "train.diff_output_preservation_multiplier": lost("the nearest is prior_loss_weight", 1.0),
    "train.blank_prompt_preservation": lost(),
    "train.blank_prompt_preservation_multiplier": lost("not offered here", 1.0),
    "train.bypass_guidance_embedding": lost("set by the base model's own class"),
    "train.do_guidance_loss": lost("set by the base model's own class"),
    "train.switch_boundary_every": lost("one of two experts is trained in a run"),
    "train.min_denoising_steps": lost("all noise levels are trained; logit_mean and logit_std say which most often"),
    "train.max_denoising_steps": lost(
        "all noise levels are trained; logit_mean and logit_std say which most often", 999, 1000
    ),
    "train.lr_scheduler_params": lost("lr_scheduler_num_cycles and lr_scheduler_power are settings of their own"),
    "train.skip_first_sample": lost("samples are always drawn before the first step"),
    "train.disable_sampling": lost("samples are always drawn; sample_every_n_steps says how often"),
    "save.save_every": same("save_steps"),
    "save.max_step_saves_to_keep": same("checkpoints_kept"),
    "save.dtype": choice(
        "save_precision",
        {"float16": "fp16", "fp16": "fp16", "float32": "fp32", "fp32": "fp32"},
        "fp16",
        otherwise="files are saved in fp16 or fp32 here; fp16 has more digits, and holds every usual LoRA",
    ),
    "sample.sampler": set_sampler,
    "sample.sample_every": same("sample_every_n_steps"),
    "sample.sample_steps": same("sample_steps"),
    "sample.guidance_scale": same("sample_cfg"),
    "sample.neg": same("sample_negative_prompt"),
    "model.assistant_lora_path": lost("train on the base version of the model rather than its distilled one"),
    "model.lora_path": lost("merge it into the base model first, with the command merge --into"),
    "model.vae_path": lost("the base model's own files have it; for one in a single file, vae can name another"),
    "model.model_kwargs.train_high_noise": lost(
        "one of two experts is trained in a run, the one that base_model names"
    ),
    "model.model_kwargs.train_low_noise": lost("one of two experts is trained in a run, the one that base_model names"),
    "model.layer_offloading": lost(_MEMORY),
    "network.pretrained_lora_path": same("continue_from"),
    "network.lokr_factor": lost("LoKr's matrices are split as evenly as they can be", -1),
    "network.transformer_only": lost("target_modules says which layers are trained", True),
    **{f"model.{key}": lost(_HELD) for key in ("quantize", "qtype", "quantize_te", "qtype_te", "quantize_kwargs")},
    **{f"model.{key}": lost(_MEMORY) for key in ("low_vram", "layer_offloading_transformer_percent")},
    **{
        f"sample.{key}": lost("samples have the run's resolution and seed, all the same")
        for key in ("width", "height", "seed")
    },
    "sample.walk_seed": lost("every sample has a seed of its own, the same in every round"),
    "sample.fps": lost("images are trained as single frames"),
    "sample.num_frames": lost("images are trained as single frames", 1),
}

_ABOUT_FILES_MACHINES_AND_LOGS = """
job name type device performance_log_every sqlite_db_path meta.name meta.version save.push_to_hub save.hf_repo_id
save.hf_private save.save_format logging.log_every logging.verbose logging.use_wandb logging.use_ui_logger
logging.project_name logging.run_name sample.sample_start_step sample.format train.noise_scheduler
train.cache_text_embeddings train.unload_text_encoder train.xformers train.sdp train.attention_backend
train.disable_tqdm model.arch model.is_flux model.is_v3 model.is_xl model.is_v2 model.is_pixart model.is_auraflow
model.is_lumina2
model.is_v_pred model.compile model.te_name_or_path model.extras_name_or_path model.model_kwargs.match_target_res
network.old_lokr_format network.split_multistage_loras log_dir train.force_first_sample train.do_paramiter_swapping
"""
RULES |= dict.fromkeys(_ABOUT_FILES_MACHINES_AND_LOGS.split(), housekeeping)

_OF_CACHES = """
cache_latents cache_latents_to_disk cache_text_embeddings cache_tensors_to_disk cache_clip_vision_to_disk num_workers
prefetch_factor fast_image_size type cache_latents_num_workers debug
"""

OF_DATASETS: dict[str, Rule] = {
    "caption_dropout_rate": same("caption_dropout_rate"),
    "shuffle_tokens": flag("shuffle_caption"),
    "keep_tokens": same("keep_tokens"),
    "flip_x": flag("horizontal_flip"),
    "random_crop": flag("random_crop"),
    "buckets": flag("aspect_ratio_buckets"),
    "bucket_tolerance": same("bucket_step"),
    "trigger_word": same("trigger_word"),
    "token_dropout_rate": lost(ELSEWHERE["caption_tag_dropout_rate"]),
    "default_caption": lost("trigger_word is the caption of images that have none"),
    "loss_multiplier": lost("all training images count the same", 1.0),
    "network_weight": lost("the LoRA is trained at strength 1", 1.0),
    "num_frames": lost("images are trained as single frames", 1),
    "augments": lost(),
    "augmentations": lost(),
    "flip_y": lost(),
    "fps": lost("images are trained as single frames"),
    "shrink_video_to_frames": lost("images are trained as single frames", True),
    "do_i2v": lost("images are trained as single frames"),
    "square_crop": lost("the nearest is aspect_ratio_buckets: false"),
    "poi": lost("images are cropped around their center"),
    "mask_min_value": lost("only what the mask covers is trained"),
    "invert_mask": lost("white is what is trained; invert the masks"),
    **{f"control_path{end}": lost(_PAIRS) for end in ("", "_1", "_2", "_3")},
    "inpaint_path": lost(_PAIRS),
    "clip_image_path": lost(_PAIRS),
    "unconditional_path": lost(_PAIRS),
    **dict.fromkeys(_OF_CACHES.split(), housekeeping),
}
