"""Markdown: escape text, and apply the options of style."""
