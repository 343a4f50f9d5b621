"""Redis as broker: the Celery app, leases, the ledger."""
