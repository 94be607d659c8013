#!/usr/bin/env bash
DATASET_CONFIG="musubi_dataset.toml"
DIT_LOW_NOISE="models/wan_low.safetensors"
DIT_HIGH_NOISE="models/wan_high.safetensors"
NETWORK_DIM=42
NETWORK_ALPHA=21
GRADIENT_ACCUMULATION_STEPS=8  # on one card

python src/musubi_tuner/wan_cache_latents.py --dataset_config "$DATASET_CONFIG" --vae models/vae.safetensors

accelerate launch --num_cpu_threads_per_process 1 --mixed_precision bf16 \
    src/musubi_tuner/wan_train_network.py \
    --task t2v-A14B \
    --dit "$DIT_LOW_NOISE" \
    --dit_high_noise "$DIT_HIGH_NOISE" \
    --vae models/vae.safetensors \
    --t5 models/t5.safetensors \
    --dataset_config "$DATASET_CONFIG" \
    --mixed_precision bf16 --sdpa --fp8_base \
    --optimizer_type adamw8bit \
    --learning_rate 1.7e-4 \
    --gradient_checkpointing \
    --gradient_accumulation_steps "$GRADIENT_ACCUMULATION_STEPS" \
    --max_data_loader_n_workers 2 --persistent_data_loader_workers \
    --network_module networks.lora_wan \
    --network_dim "$NETWORK_DIM" --network_alpha "$NETWORK_ALPHA" \
    --network_args "loraplus_lr_ratio=4" \
    --timestep_sampling shift --discrete_flow_shift 5.0 \
    --min_timestep 0 --max_timestep 875 --preserve_distribution_shape \
    --max_train_epochs 16 --save_every_n_epochs 1 --seed 42 \
    --output_dir outputs --output_name otter
