"""Adapters: tasc's drafts in other decoders, one file per engine. Each file imports its engine alone.

`transformers`: its `generate`; `vllm`: its proposer, `vllm_suffix`: its suffix cache; `sglang`: its n-gram worker;
`llama_cpp`: llama-cpp-python; `llama_lookup`: llama.cpp's lookup files. See docs/how-to/index.md.
"""
