"""Forward passes of a model over a KV cache.

Read in this order: `target.py` (the model), `cache.py` (its keys and values), `steps.py` (runs steps). The other files
make steps faster: `cuda_graphs.py`, `compile.py`, `prepacked_linear.py`. `weight_watcher.py` detects changed weights.
"""
