"""Processing of pages in a worker: jobs, attempts, checks, retries."""
