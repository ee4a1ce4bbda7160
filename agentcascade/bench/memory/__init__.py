"""Benchmarks of memory: sweeps, training and evaluation of tier routers."""
