"""Fine-tuning of a checkpoint, with or without new tokens: LoRA and new embedding rows (arXiv 2602.24174)."""
