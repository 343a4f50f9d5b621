"""`ocrfleet worker`: supervised worker processes, one for each GPU or core."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ocrfleet.profiles.profile import Profile
from producer.cli.options import AuditOption, BaseUrlOption, read_settings, with_profile
from producer.errors import UsageError
from producer.processes.worker_command import grouped, read_gpus
from producer.processes.workers import run_workers


@with_profile
def worker(
    *,
    chosen: Profile,
    base_url: BaseUrlOption = None,
    audit: AuditOption = None,
    gpus: Annotated[
        str | None, typer.Option(help="[b]all[/], or numbers such as [b]0,2[/]: one worker process a GPU.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=256, help="Worker processes, without --gpus.")] = 1,
) -> None:
    """Run worker processes: page jobs from Redis ([b]OCRFLEET_REDIS_URL[/]), results to the store ([b]OCRFLEET_STORE[/]).

    Each worker process has one engine and serves one profile. A process that dies is restarted. SIGTERM and Ctrl-C drain:
    pages in flight get [b]OCRFLEET_DRAIN_SECONDS[/] to finish. A second signal ends the processes at once.

    [b]ocrfleet worker --profile deepseek-ocr-2 --gpus all[/]

    Exit code: 0 drained; 2 usage; 3 misconfigured; 130 or 143 ended by a second signal.
    """
    settings = read_settings(base_url=base_url, audit=audit)
    devices = grouped(read_gpus(gpus), settings.vllm.tensor_parallel_size)
    if devices and processes > 1:
        raise UsageError("--processes and --gpus don't go together: each GPU has one worker process")
    sys.exit(run_workers(chosen, settings, devices=devices or [None] * processes))
