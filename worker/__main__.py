"""Start a worker: python -m worker."""

from worker.app import run

if __name__ == "__main__":  # a process that an engine spawns imports this module, too
    run()
