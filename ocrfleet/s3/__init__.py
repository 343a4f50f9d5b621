"""S3: client, ranged reader, multipart source."""
