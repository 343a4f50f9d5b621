"""The sample documents of `make demo`."""
