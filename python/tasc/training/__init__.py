"""Training: what fine-tuning (`tasc.training.finetune`) and distillation (`tasc.training.distill`) share.

Rows become `Example`s (`examples.py`), which form batches in a fixed order. transformers' `Trainer` runs in a
`WorkFolder`, from which a stopped run resumes (`work_dir.py`). The learning rate rises and falls (`schedule.py`).
"""
