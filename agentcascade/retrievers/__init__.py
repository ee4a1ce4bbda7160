"""Embedders (texts to vectors) and indexes (vectors to the nearest steps)."""
