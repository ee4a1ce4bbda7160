"""Helpers that know nothing of cascades; the lowest floor."""
