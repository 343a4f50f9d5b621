"""The text that a PDF page has already: extract it, and decide whether to trust it."""
