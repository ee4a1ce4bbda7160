"""Routers of steps: which steps the student takes."""
