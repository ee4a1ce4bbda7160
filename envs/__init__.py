"""Benchmark worlds, and the offline stand-ins for models."""
