"""Students on one's own machines: vLLM started, watched, priced by the hour, and found by name."""
