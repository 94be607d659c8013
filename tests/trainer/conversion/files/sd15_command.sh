#!/bin/bash
pretrained_model="./models/base.ckpt" # the model
train_data_dir="./pictures"
train_unet_only=0 # only the U-Net
multi_gpu=0
resolution="480,480"
network_dim=50
network_alpha=25
lr="1e-4"
unet_lr="1.6e-4"
text_encoder_lr="1.8e-5"
optimizer_type="AdamW8bit"
network_module="lycoris.kohya"
algo="loha"
conv_dim=4
conv_alpha=4
dropout="0"
min_snr_gamma=5
reg_data_dir=""
model_type="sd1.5"

extArgs=()
launchArgs=()
trainer_file="./scripts/train_network.py"
if [ $model_type == "sdxl" ]; then
  trainer_file="./scripts/sdxl_train_network.py"
fi
if [[ $multi_gpu == 1 ]]; then
  launchArgs+=("--multi_gpu")
  launchArgs+=("--num_processes=2")
fi
if [[ $train_unet_only == 1 ]]; then extArgs+=("--network_train_unet_only"); fi
if [[ $reg_data_dir ]]; then extArgs+=("--reg_data_dir $reg_data_dir"); fi
if [[ $optimizer_type ]]; then extArgs+=("--optimizer_type $optimizer_type"); fi
if [[ $network_module == "lycoris.kohya" ]]; then
  extArgs+=("--network_args conv_dim=$conv_dim conv_alpha=$conv_alpha algo=$algo dropout=$dropout")
fi
if [[ $min_snr_gamma -ne 0 ]]; then extArgs+=("--min_snr_gamma $min_snr_gamma"); fi

python -m accelerate.commands.launch ${launchArgs[@]} --num_cpu_threads_per_process=4 $trainer_file \
  --enable_bucket \
  --pretrained_model_name_or_path=$pretrained_model \
  --train_data_dir=$train_data_dir \
  --output_dir="./runs" \
  --resolution=$resolution \
  --network_module=$network_module \
  --max_train_epochs=10 \
  --learning_rate=$lr --unet_lr=$unet_lr --text_encoder_lr=$text_encoder_lr \
  --lr_scheduler="cosine_with_restarts" --lr_warmup_steps=0 --lr_scheduler_num_cycles=1 \
  --network_dim=$network_dim --network_alpha=$network_alpha \
  --output_name="otter" --train_batch_size=2 --gradient_accumulation_steps=2 \
  --mixed_precision="fp16" --save_precision="fp16" --seed="1337" \
  --cache_latents --prior_loss_weight=1 --caption_extension=".txt" --keep_tokens=0 --xformers ${extArgs[@]}
