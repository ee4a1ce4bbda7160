"""Benchmark environments (ALFWorld, AppWorld, InterCode-SQL, memory QA), and offline stand-ins for models."""
