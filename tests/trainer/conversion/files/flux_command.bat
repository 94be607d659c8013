@echo off
:: folders
set TRAIN_DATA_DIR=D:/pictures/otter
set OUTPUT_DIR=D:/runs
set OUTPUT_NAME=otter
set MAX_TRAIN_STEPS=1200
set /A WARMUP_STEPS=%MAX_TRAIN_STEPS%/10
set PRETRAINED_MODEL=D:/models/flux1-dev.safetensors
accelerate launch --mixed_precision bf16 --num_cpu_threads_per_process 6 flux_train_network.py ^
  --pretrained_model_name_or_path "%PRETRAINED_MODEL%" --ae "%VAE_MODEL_DIR%" --save_model_as safetensors --sdpa ^
  --persistent_data_loader_workers --max_data_loader_n_workers 6 --seed 42 --gradient_checkpointing ^
  --mixed_precision bf16 --save_precision bf16 --network_module networks.lora_flux --network_dim 54 --network_alpha 27^
  --learning_rate 7e-4 --network_train_unet_only --apply_t5_attn_mask --cache_text_encoder_outputs --fp8_base ^
  --resolution="544,544" --save_every_n_steps="100" --train_data_dir "%TRAIN_DATA_DIR%" --output_dir "%OUTPUT_DIR%" ^
  --output_name %OUTPUT_NAME% --timestep_sampling flux_shift --model_prediction_type raw --guidance_scale 1.0 ^
  --optimizer_type adamwschedulefree --optimizer_args "weight_decay=0.1" "warmup_steps=%WARMUP_STEPS%" ^
  --max_train_steps="%MAX_TRAIN_STEPS%" --enable_bucket --caption_extension=".txt" --train_batch_size 2
