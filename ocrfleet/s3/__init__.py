"""S3: client, resuming reader, parts of files."""
