"""Benchmarks: the same tasks under every policy, in parallel, resumable, seeded, with a report of accuracy and cost."""
