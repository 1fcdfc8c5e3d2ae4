"""Evaluation: replay of drafters without a model, benchmarks with a model, task quality, reports."""
