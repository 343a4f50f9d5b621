"""Documents for the API and the commands: read, list, retry, cancel, delete."""
