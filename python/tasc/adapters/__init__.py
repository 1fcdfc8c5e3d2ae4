"""tasc inside the decoders that people run: one file per engine, each imports its engine alone.

`transformers`: its `generate`; `llama_cpp`: llama-cpp-python; `llama_lookup`: llama.cpp's lookup files; `sglang`: its
n-gram worker. See docs/adapters.md.
"""
