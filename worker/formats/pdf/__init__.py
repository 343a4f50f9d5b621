"""Searchable PDF: the original's pages as they are, with the recognised text invisible over them."""
