"""Recorded models: answers that real models gave once, played again as chat models, with prices of their time."""
