"""The page on the protocol of engines: the code itself."""

from __future__ import annotations

import inspect

from docs.generator.markdown import NOTE
from worker.engines import base


def engine() -> str:
    """Return the page on the protocol of engines: the code itself."""
    parts = [inspect.getsource(base.Recognition), inspect.getsource(base.Engine)]
    return (
        NOTE
        + "# The engine protocol\n\n"
        + "An engine recognises the text of one page image at a time. It is a class that is made as `Class(profile, settings)` in each "
        + "worker process. `--engine package.module:Class` loads it: [Add an engine of your own](../howto/add-engine.md) has an "
        + "example. This is its definition in `worker/engines/base.py`:\n\n"
        + "\n".join(f"```python\n{part}```\n" for part in parts)
    )
