#!/bin/bash
# The whole command goes over several lines.
accelerate launch --num_cpu_threads_per_process 1 --num_processes 2 --mixed_precision bf16 \
  sd-scripts/flux_train_network.py \
  --pretrained_model_name_or_path="/models/flux1-dev.safetensors" \
  --clip_l="/models/clip_l.safetensors" \
  --t5xxl="/models/t5xxl_fp16.safetensors" \
  --ae="/models/ae.safetensors" \
  --dataset_config="kohya_dataset_class.toml" \
  --output_dir="/runs" \
  --output_name="otter" \
  --save_model_as=safetensors \
  --network_module=networks.lora_flux \
  --network_dim=38 \
  --network_alpha=19 \
  --network_args "train_blocks=single" "split_qkv=True" \
  --learning_rate=1.4e-4 \
  --optimizer_type="AdamW8bit" \
  --optimizer_args "weight_decay=0.02" "betas=(0.9,0.95)" \
  --lr_scheduler="constant" --lr_warmup_steps=30 \
  --sdpa \
  --max_train_epochs=6 \
  --save_every_n_epochs=1 \
  --gradient_checkpointing \
  --guidance_scale=1.0 \
  --timestep_sampling="shift" --discrete_flow_shift=3.1582 --sigmoid_scale=1.1 \
  --model_prediction_type="raw" \
  --blocks_to_swap=18 \
  --cache_text_encoder_outputs --network_train_unet_only \
  --loss_type huber --huber_c 0.2 --huber_schedule snr \
  --seed 8 --cache_latents
