"""The way of a page through a worker."""
