"""The Celery consumer: tasks and the prefetch limit."""
