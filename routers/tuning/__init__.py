"""Offline tuning: any rule replayed on a log, its risk tested, the cheapest certified one chosen."""
