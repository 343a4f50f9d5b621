"""Pages to pixels, in sandboxed processes."""
