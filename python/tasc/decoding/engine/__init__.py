"""The target model and how it is run fast: KV cache, steps, CUDA graphs, compiled and prepacked layers."""
