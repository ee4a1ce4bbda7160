"""Pools of workers: processes here, or a Ray cluster."""
