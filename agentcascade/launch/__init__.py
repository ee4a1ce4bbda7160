"""Agents' programs, run as they are in front of a proxy of their own."""
