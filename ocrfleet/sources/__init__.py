"""Source documents: open, verify and cache them."""
