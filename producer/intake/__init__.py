"""From sources to registered documents."""
