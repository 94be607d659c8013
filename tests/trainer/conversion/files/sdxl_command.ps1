$pretrained_model = "./models/base.safetensors" # the model
$model_type = "sdxl" # sd1.5 or sdxl
$train_data_dir = "./pictures"
$train_unet_only = 0
$train_text_encoder_only = 0
$network_dim = 46
$network_alpha = 23
$resolution = "960,960"
$batch_size = 4
$lr = "1e-4"
$unet_lr = "0.5"
$text_encoder_lr = "0.4"
$optimizer_type = "DAdaptation"
$min_snr_gamma = 0
$multi_gpu = 0
$clip_skip = 2

$ext_args = [System.Collections.ArrayList]::new()
$launch_args = [System.Collections.ArrayList]::new()
$trainer_file = "./scripts/train_network.py"

if ($model_type -eq "sd1.5") {
  [void]$ext_args.Add("--clip_skip=$clip_skip")
}
elseif ($model_type -eq "sdxl") {
  $trainer_file = "./scripts/sdxl_train_network.py"
}

if ($multi_gpu) {
  [void]$launch_args.Add("--multi_gpu")
  [void]$launch_args.Add("--num_processes=2")
}

if ($train_unet_only) {
  [void]$ext_args.Add("--network_train_unet_only")
}

if ($optimizer_type) {
  [void]$ext_args.Add("--optimizer_type=" + $optimizer_type)
}

if ($optimizer_type -eq "DAdaptation") {
  [void]$ext_args.Add("--optimizer_args")
  [void]$ext_args.Add("decouple=True")
}

if (Test-Path "./resume") {
  [void]$ext_args.Add("--resume=./resume")
}

python -m accelerate.commands.launch $launch_args --num_cpu_threads_per_process=8 $trainer_file `
  --enable_bucket `
  --pretrained_model_name_or_path=$pretrained_model `
  --train_data_dir=$train_data_dir `
  --output_dir="./runs" `
  --resolution=$resolution `
  --network_module="networks.lora" `
  --max_train_epochs=10 `
  --learning_rate=$lr `
  --unet_lr=$unet_lr `
  --text_encoder_lr=$text_encoder_lr `
  --lr_scheduler="cosine" `
  --lr_warmup_steps=0 `
  --network_dim=$network_dim `
  --network_alpha=$network_alpha `
  --output_name="otter" `
  --train_batch_size=$batch_size `
  --mixed_precision="fp16" `
  --save_precision="fp16" `
  --seed="1337" `
  --cache_latents --prior_loss_weight=1 --max_token_length=225 --caption_extension=".txt" `
  --keep_tokens=0 --xformers --shuffle_caption $ext_args
