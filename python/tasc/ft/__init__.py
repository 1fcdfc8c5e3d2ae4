"""TASC-ft (arXiv 2602.24174): a task vocabulary, and a fine-tuned model that uses it."""
