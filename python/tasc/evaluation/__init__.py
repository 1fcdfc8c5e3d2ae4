"""Figures: replay of drafters without a model, benchmarks with one, task quality, reports."""
