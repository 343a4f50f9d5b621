"""State that the control loop, the API and the commands share."""
