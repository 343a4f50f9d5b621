"""Prometheus metrics: definitions and exposition."""
