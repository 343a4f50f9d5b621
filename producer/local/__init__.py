"""`ocrfleet run`: an embedded fleet on one machine."""
