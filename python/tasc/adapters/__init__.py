"""tasc inside the decoders that people run: one file per engine, each imports its engine alone.

`transformers`: its `generate`; `vllm`: its proposer, `vllm_suffix`: its suffix cache; `sglang`: its n-gram worker;
`llama_cpp`: llama-cpp-python; `llama_lookup`: llama.cpp's lookup files. See docs/how-to/index.md.
"""
