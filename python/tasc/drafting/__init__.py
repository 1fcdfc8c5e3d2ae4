"""Drafts without torch: what a drafter is, when and how far drafting pays, where the input stands in a prompt."""
