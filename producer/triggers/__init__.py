"""S3 triggers: notifications, SQS, listings."""
