"""Sandboxed child processes, in which documents are decoded."""
