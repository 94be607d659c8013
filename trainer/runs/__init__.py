"""What a run leaves on disk: its folder, record, log, checkpoints, report and LoRA."""
