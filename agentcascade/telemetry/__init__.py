"""Traces and metrics by OpenTelemetry, and structured logs."""
