"""tasc inside the decoders that people run: one file per engine, each imports its engine alone.

`tasc.adapters.transformers`: `generate` of transformers. See docs/adapters.md.
"""
