"""TASC-ft's vocabulary (arXiv 2602.24174): a task's frequent n-grams become tokens of tokenizer and model.

`vocabulary.py` (outputs → plan → tokenizer), `token_validity.py` (which n-grams may become tokens), `surgery.py`
(new rows in the model's matrices).
"""
