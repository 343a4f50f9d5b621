"""Start a worker: python -m worker."""

from worker.app import run

run()
