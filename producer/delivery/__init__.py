"""Deliver results: to a folder, to S3, by webhook."""
