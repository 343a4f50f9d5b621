"""What is stored and sent: strict, versioned JSON records."""
