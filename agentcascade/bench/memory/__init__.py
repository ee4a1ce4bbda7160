"""Memory benchmarks: question answering, tier sweeps, and training and evaluation of tier routers."""
