"""Task vocabulary of TASC-ft (arXiv 2602.24174): frequent n-grams of a task become tokens of tokenizer and model.

`vocabulary.py` learns a plan from outputs and extends a tokenizer. `token_validity.py` decides which n-grams may become
tokens. `surgery.py` adds embedding rows to a model.
"""
