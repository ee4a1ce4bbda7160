"""Suites of tasks that `agentcascade bench` plays."""
