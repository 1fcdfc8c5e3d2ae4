"""The verify loop: a model checks what drafters propose, and its own text comes out.

`generator.py` (requests in, text out) → `loop.py` (draft, forward, verify, emit) → `verify.py` (the acceptance rule).
`engine/` runs the model, `draft_model/` drafts with a second one. Everything here needs torch.
"""
