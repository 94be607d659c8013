"""The keys of OneTrainer's configs that stand for themselves, and what becomes of each."""

from __future__ import annotations

from .conversion import Rule, choice, clipping, flag, housekeeping, lost, same

PRECISIONS = {"float_16": "fp16", "bfloat_16": "bf16", "float_32": "fp32", "tfloat_32": "fp32"}

RULES: dict[str, Rule] = {
    "base_model_name": same("base_model"),
    "batch_size": same("batch_size"),
    "gradient_accumulation_steps": same("gradient_accumulation_steps"),
    "epochs": same("epochs"),
    "learning_rate": same("learning_rate"),
    "lora_rank": same("lora_rank"),
    "lora_alpha": same("lora_alpha"),
    "dropout_probability": same("lora_dropout"),
    "lora_model_name": same("continue_from"),
    "aspect_ratio_bucketing": flag("aspect_ratio_buckets"),
    "offset_noise_weight": same("noise_offset"),
    "clip_grad_norm": clipping,
    "train_dtype": choice("mixed_precision", PRECISIONS, "auto", otherwise="auto here"),
    "output_dtype": choice(
        "save_precision",
        {"float_16": "fp16", "float_32": "fp32"},
        "fp16",
        otherwise="files are saved in fp16 or fp32 here; fp16 has more digits, and holds every usual LoRA",
    ),
    "generalized_offset_noise": lost("noise_offset is the only kind"),
    "perturbation_noise_weight": lost(),
    "rescale_noise_scheduler_to_zero_terminal_snr": lost("the base model's own files say it"),
    "force_v_prediction": lost("the base model's own files say it"),
    "force_epsilon_prediction": lost("the base model's own files say it"),
    "min_noising_strength": lost("all noise levels are trained; logit_mean and logit_std say which most often"),
    "max_noising_strength": lost("all noise levels are trained; logit_mean and logit_std say which most often", 1.0),
    "loss_scaler": lost("the loss is the mean of a step's images", "NONE"),
    "unmasked_probability": lost("only what the mask covers is trained", 0.1),
    "unmasked_weight": lost("only what the mask covers is trained", 0.1),
    "masked_prior_preservation_weight": lost(),
    "normalize_masked_area_loss": lost(),
    "custom_conditioning_image": lost(),
    "embedding_learning_rate": lost("only adapters are trained, no embeddings"),
    "additional_embeddings": lost("only adapters are trained, no embeddings"),
    "vb_loss_strength": housekeeping,
    "ema_update_step_interval": lost("the average takes in every step"),
    "fallback_train_dtype": lost("all layers compute in mixed_precision", "BFLOAT_16"),
    "frames": lost("images are trained as single frames", "25"),
    "learning_rate_min_factor": lost("schedules end at zero"),
    "scheduler_params": lost("only the schedules of lr_scheduler are offered"),
    "custom_learning_rate_scheduler": lost("only the schedules of lr_scheduler are offered"),
    "text_encoder_layer_skip": lost("captions are encoded by the layer that the base model samples with"),
    "text_encoder_2_layer_skip": lost("captions are encoded by the layer that the base model samples with"),
    "text_encoder_sequence_length": lost("captions may be as long as the text encoder reads", 512),
    "text_encoder_2_sequence_length": lost("captions may be as long as the text encoder reads", 77),
    "multi_gpu": lost("start the run with accelerate launch -m trainer train"),
    "lora_decompose_output_axis": lost("DoRA's norm is taken for each output"),
    "lokr_decompose_factor": lost("LoKr's matrices are split as evenly as they can be", -1),
    "lokr_full_matrix": lost("the rank of LoKr's second matrix is lora_rank"),
    "lokr_use_tucker": lost(),
    "lokr_decompose_both": lost(),
    "lokr_weight_decompose": lost("LoKr has no DoRA here"),
    "force_circular_padding": lost(),
}

_ABOUT_FILES_MACHINES_AND_LOGS = """
__version debug_mode debug_dir workspace_dir cache_dir huggingface_cache_dir offline_mode tensorboard tensorboard_expose
tensorboard_always_on tensorboard_port validate_after validate_after_unit continue_last_backup prevent_overwrites
include_train_config device_indexes gradient_reduce_precision fused_gradient_reduce async_gradient_reduce
async_gradient_reduce_buffer output_model_format async_offloading compile latent_caching clear_cache_before_training
dataloader_threads train_device temp_device enable_autocast_cache only_cache attention_mechanism weight_dtype
embedding_weight_dtype lora_weight_dtype preserve_embedding_norm bundle_additional_embeddings embedding
lora_decompose_norm_epsilon sample_after sample_after_unit sample_skip_first sample_image_format sample_video_format
sample_audio_format samples_to_tensorboard non_ema_sampling rolling_backup rolling_backup_count backup_before_save
save_skip_first save_filename_prefix optimizer_defaults concept_stats oft_block_size oft_block_share oft_scaled
lokr_dim lokr_dora_on_output lokr_vec_trick svd_dtype svd_rank
"""
RULES |= dict.fromkeys(_ABOUT_FILES_MACHINES_AND_LOGS.split(), housekeeping)
