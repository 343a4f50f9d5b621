"""The records that are stored and sent: strict, versioned JSON."""
