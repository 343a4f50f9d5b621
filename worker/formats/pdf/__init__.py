"""Searchable PDF: the unchanged pages of the original with the recognised text as an invisible layer."""
