"""The files of a run: its folder, record, log, checkpoints, report and LoRA."""
