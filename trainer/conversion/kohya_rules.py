"""The arguments of kohya's trainers that stand for themselves, and what becomes of each."""

from __future__ import annotations

from ..config.foreign_keys import ELSEWHERE
from .conversion import Rule, choice, clipping, flag, housekeeping, lost, same
from .images import set_sampler

PRECISIONS = {"no": "fp32", "fp16": "fp16", "bf16": "bf16", "float": "fp32", "fp32": "fp32"}

_INPUTS_ONLY = "the base model's own files have it; in ComfyUI connect it to the node"

RULES: dict[str, Rule] = {
    "pretrained_model_name_or_path": same("base_model"),
    "dit": same("base_model"),
    "output_dir": same("output_dir"),
    "output_name": same("output_name"),
    "network_weights": same("continue_from"),
    "train_batch_size": same("batch_size"),
    "gradient_accumulation_steps": same("gradient_accumulation_steps"),
    "gradient_checkpointing": flag("gradient_checkpointing"),
    "seed": same("seed"),
    "prior_loss_weight": same("prior_loss_weight"),
    "sample_sampler": set_sampler,
    "save_every_n_steps": same("save_steps"),
    "save_last_n_steps": lost("the nearest is checkpoints_kept, which counts checkpoints"),
    "mixed_precision": choice("mixed_precision", PRECISIONS, "auto", otherwise="auto here"),
    "save_precision": choice(
        "save_precision",
        {"fp16": "fp16", "float": "fp32", "fp32": "fp32"},
        "fp16",
        otherwise="files are saved in fp16 or fp32 here; fp16 has more digits, and holds every usual LoRA",
    ),
    "shuffle_caption": flag("shuffle_caption"),
    "enable_wildcard": flag("captions_per_line"),
    "keep_tokens": same("keep_tokens"),
    "caption_prefix": same("caption_prefix"),
    "caption_suffix": same("caption_suffix"),
    "caption_dropout_rate": same("caption_dropout_rate"),
    "flip_aug": flag("horizontal_flip"),
    "random_crop": flag("random_crop"),
    "bucket_reso_steps": same("bucket_step"),
    "loss_type": choice(
        "loss_type",
        {"l2": "mse", "l1": "l1", "huber": "huber"},
        "huber",
        otherwise="huber here, which is squared up to huber_delta and linear above it",
    ),
    "huber_schedule": lost("huber_delta is the same at all noise levels", "snr"),
    "huber_scale": lost("huber_delta is the whole limit", 1.0),
    "min_timestep": lost("all noise levels are trained; logit_mean and logit_std say which most often"),
    "max_timestep": lost("all noise levels are trained; logit_mean and logit_std say which most often", 1000),
    "guidance_scale": lost("decided by the base model's own class in ComfyUI or diffusers"),
    "model_prediction_type": lost("the model predicts what it was made to predict", "raw"),
    "apply_t5_attn_mask": lost("prompts are encoded as the base model samples with them"),
    "apply_lg_attn_mask": lost("prompts are encoded as the base model samples with them"),
    "clip_l_dropout_rate": lost("the nearest is caption_dropout_rate, which drops whole captions"),
    "clip_g_dropout_rate": lost("the nearest is caption_dropout_rate, which drops whole captions"),
    "t5_dropout_rate": lost("the nearest is caption_dropout_rate, which drops whole captions"),
    "dit_high_noise": lost("one of two experts is trained in a run, the one that base_model names"),
    "timestep_boundary": lost("one of two experts is trained in a run, the one that base_model names"),
    "preserve_distribution_shape": lost("all noise levels are trained"),
    "base_weights": lost("merge it into the base model first, with the command merge --into"),
    "base_weights_multiplier": lost("merge it into the base model first, with the command merge --into"),
    "dim_from_weights": lost("the LoRA that continue_from names keeps its ranks unless lora_rank is set"),
    "multires_noise_iterations": lost("noise_offset is the only kind"),
    "multires_noise_discount": lost("noise_offset is the only kind", 0.3),
    "noise_offset_random_strength": lost(),
    "ip_noise_gamma_random_strength": lost(),
    "scale_v_pred_loss_like_noise_pred": lost("the nearest is loss_weighting"),
    "v_pred_like_loss": lost(),
    "token_warmup_min": lost(ELSEWHERE["caption_tag_dropout_rate"], 1),
    "token_warmup_step": lost(ELSEWHERE["caption_tag_dropout_rate"]),
    "lr_scheduler_type": lost("only the schedules of lr_scheduler are offered"),
    "lr_scheduler_args": lost("only the schedules of lr_scheduler are offered"),
    "lr_decay_steps": lost("only the schedules of lr_scheduler are offered"),
    "lr_scheduler_timescale": lost("only the schedules of lr_scheduler are offered"),
    "lr_scheduler_min_lr_ratio": lost("schedules end at zero"),
    "stop_text_encoder_training": lost("the text encoders are trained to the end"),
    "initial_epoch": lost(ELSEWHERE["resume"]),
    "initial_step": lost(ELSEWHERE["resume"]),
    "network_train_text_encoder_only": lost("the model itself is always trained"),
    "blocks_to_swap": lost("memory: auto moves what does not fit to system RAM by itself"),
    "validate_every_n_epochs": lost("measurements are counted in steps; the key is validate_every_n_steps"),
    "max_validation_steps": lost("all that is held out is measured"),
    "validation_seed": same("validation_seed"),
    "validate_every_n_steps": same("validate_every_n_steps"),
    "sample_every_n_steps": same("sample_every_n_steps"),
    "text_encoder_batch_size": housekeeping,
    **{key: lost(_INPUTS_ONLY) for key in ("clip_l", "clip_g", "t5xxl", "ae", "gemma2", "text_encoder", "qwen3", "t5")},
    **{
        key: lost(ELSEWHERE["max_token_length"])
        for key in ("t5xxl_max_token_length", "gemma2_max_token_length", "qwen3_max_token_length", "max_token_length")
    },
    "max_grad_norm": clipping,
}


_ABOUT_FILES_MACHINES_AND_LOGS = """
accelerate log_config log_tracker_name log_tracker_config wandb_run_name console_log_level console_log_file
console_log_simple huggingface_repo_id huggingface_repo_type huggingface_path_in_repo huggingface_token
huggingface_repo_visibility save_state_to_huggingface resume_from_huggingface async_upload save_state_on_train_end
save_last_n_epochs_state save_last_n_steps_state save_n_epoch_ratio no_metadata metadata_title metadata_author
metadata_description metadata_license metadata_tags output_config config_file torch_compile dynamo_backend
dynamo_mode dynamo_use_dynamic dynamo_use_fullgraph ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph
highvram lowvram mem_eff_save fused_backward_pass cpu_offload_checkpointing tokenizer_cache_dir cache_info
skip_cache_check debug_dataset disable_mmap_load_safetensors split_attn flash_attn sage_attn use_flash_attn
use_sage_attn split_mode split_qkv num_cpu_threads_per_process num_machines machine_rank main_process_port
main_process_ip rdzv_backend multi_gpu gpu_ids quiet deepspeed zero_stage offload_optimizer_device t5xxl_device
t5xxl_dtype attn_mode fp8_base_unet fp8_scaled fp8_t5 fp8_llm fp8_vl fp8_text_encoder vae_chunk_size vae_tiling
vae_spatial_tile_sample_min_size vae_dtype dit_dtype text_encoder_dtype img_in_txt_in_offloading
use_pinned_memory_for_block_swap skip_until_initial_step use_safetensors support_dreambooth dataset_class
model_train_type sample_batch_size randomly_choice_prompt enable_preview ui_custom_params cuda_visible_devices
logit_compile mode sample_format resize_interpolation save_clip save_t5xxl step_metrics task model_version
"""

RULES |= dict.fromkeys(_ABOUT_FILES_MACHINES_AND_LOGS.split(), housekeeping)
"""What becomes of each argument that stands for itself."""
