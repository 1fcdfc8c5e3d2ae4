"""Drafts of a small model, alone or behind n-gram drafts."""
