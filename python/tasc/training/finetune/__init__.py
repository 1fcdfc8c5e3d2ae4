"""Fine-tuning of an extended (or plain) checkpoint: LoRA and the new rows (arXiv 2602.24174)."""
