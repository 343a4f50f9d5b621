"""Settings: read once from OCRFLEET_* at an entry point, then passed down."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from ocrfleet.records.base import Collection, Priority


class VllmSettings(BaseSettings):
    """OCRFLEET_VLLM_*: vLLM's own arguments, as vLLM names them; what is None follows from the GPU's memory."""

    model_config = SettingsConfigDict(env_prefix="OCRFLEET_VLLM_", frozen=True, extra="ignore", allow_inf_nan=False)

    #: share of the GPU's memory for weights and KV cache
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    #: tokens of prompt, image and answer together
    max_model_len: int | None = Field(default=None, ge=256)
    #: pages that are written at the same time
    max_num_seqs: int | None = Field(default=None, ge=1)
    dtype: str = "auto"
    quantization: str | None = None
    tensor_parallel_size: int = Field(default=1, ge=1)
    enforce_eager: bool = False
    #: threads that turn page images into tensors, in the worker's process
    renderer_num_workers: int = Field(default=2, ge=1)
    #: seconds without a single token, while pages wait for some, after which the engine counts as dead: vLLM doesn't notice
    silence_seconds: float = Field(default=120.0, gt=0)


class OpenAiSettings(BaseSettings):
    """OCRFLEET_OPENAI_*: a server that speaks OpenAI's protocol."""

    model_config = SettingsConfigDict(env_prefix="OCRFLEET_OPENAI_", frozen=True, extra="ignore", allow_inf_nan=False)

    #: e.g. http://127.0.0.1:8000/v1
    base_url: str | None = None
    api_key: SecretStr | None = None
    #: pages asked for at the same time
    concurrency: int = Field(default=16, ge=1, le=1024)
    #: seconds until a server must have begun to answer, and between two pieces of an answer
    timeout: float = Field(default=120.0, gt=0)
    #: times a request is sent again after 429, 5xx or a broken connection
    retries: int = Field(default=6, ge=0)
    #: pages after which this worker asks for no more: a limit to what may be spent
    max_pages: int | None = Field(default=None, ge=1)
    #: tokens, read and written, after which this worker asks for no more
    max_tokens: int | None = Field(default=None, ge=1)


class S3Settings(BaseSettings):
    """OCRFLEET_S3_*: how S3 is reached. Credentials are boto3's own: AWS_* variables, profiles, roles."""

    model_config = SettingsConfigDict(env_prefix="OCRFLEET_S3_", frozen=True, extra="ignore", allow_inf_nan=False)

    #: of a server that is not AWS, e.g. http://127.0.0.1:8333; boto3's own AWS_ENDPOINT_URL_S3 works, too
    endpoint_url: str | None = None
    region: str | None = None
    #: bucket in the path or in the host's name; auto: as boto3 thinks, and in the path where an endpoint is given
    addressing: Literal["auto", "path", "virtual"] = "auto"
    #: for what we write: AES256 or aws:kms, with the key's id
    server_side_encryption: Literal["AES256", "aws:kms"] | None = None
    kms_key_id: str | None = None
    #: for what we write: STANDARD_IA, INTELLIGENT_TIERING, …
    storage_class: str | None = None
    #: seconds until a connection stands, and between two pieces of an answer
    connect_timeout: float = Field(default=5.0, gt=0)
    read_timeout: float = Field(default=30.0, gt=0)
    #: times a request is sent in all, with growing and random pauses, on throttling, 5xx and broken connections
    attempts: int = Field(default=6, ge=1)
    connections: int = Field(default=32, ge=1)


class ApiSettings(BaseSettings):
    """OCRFLEET_API_*: who may ask what over HTTP, and how much of it."""

    model_config = SettingsConfigDict(env_prefix="OCRFLEET_API_", frozen=True, extra="ignore", allow_inf_nan=False)

    #: bearer tokens, each of 16 characters at least, with commas between them: several, so that they can be changed
    tokens: SecretStr | None = None
    #: one more, that is good for telling of uploads (POST /v1/events/s3) and for nothing else
    event_token: SecretStr | None = None
    #: whether /metrics takes a token, too
    metrics_with_token: bool = False
    #: s3://bucket/prefix/ that sources may be named in, with commas between them; others are refused
    sources: str = ""
    #: s3://bucket/prefix/ that what becomes of uploads told by events is delivered to
    results: str | None = None
    #: where documents go that name no other
    collection: Collection = "api"
    queue: Priority = Priority.INTERACTIVE
    #: the same for what events tell of
    event_collection: Collection = "inbox"
    event_queue: Priority = Priority.BULK

    #: of a file that is sent to us
    upload_bytes: int = Field(default=5_000_000_000, ge=1)
    #: pages to be read of such a file
    upload_pages: int = Field(default=20_000, ge=1)
    #: files that are being received at the same time, each on the disk (TMPDIR)
    uploads_at_once: int = Field(default=16, ge=1)
    #: arrivals that wait for intake at which no more are taken (429)
    arrivals_limit: int = Field(default=10_000, ge=1)
    #: streams of progress at the same time
    streams: int = Field(default=100, ge=1)
    #: connections at the same time
    connections: int = Field(default=500, ge=1)

    def accepted_tokens(self) -> tuple[str, ...]:
        """Return the bearer tokens; () when there are none."""
        return _parts(self.tokens.get_secret_value()) if self.tokens is not None else ()

    def allowed_sources(self) -> tuple[str, ...]:
        return _parts(self.sources)


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


class Settings(BaseSettings):
    """Everything that a person may set for a process, with the unit in the comment above it."""

    model_config = SettingsConfigDict(env_prefix="OCRFLEET_", frozen=True, extra="ignore", allow_inf_nan=False)

    #: redis://, rediss:// or unix:// (a socket)
    redis_url: str = "redis://127.0.0.1:6379/0"
    #: the object store: a local folder, or s3://bucket/prefix
    store: str = "ocrfleet-store"
    #: a folder for sources from S3, shared by all processes of a machine, and MiB that it may take
    cache: Path = Path(tempfile.gettempdir()) / "ocrfleet-cache"
    cache_mb: int = Field(default=20_000, ge=1)
    #: a file with one password a line, tried in turn on encrypted documents; only its path is ever passed on
    password_file: Path | None = None

    #: seconds after which a silent worker's jobs go to others; a live worker renews its leases ten times as often
    lease_seconds: float = Field(default=60.0, ge=2.0)
    #: seconds a job may be renewed for in all; then others may have it
    job_deadline: float = Field(default=3600.0, ge=1.0)
    #: what may be on the queue, in seconds of the fleet's work at its measured speed; the rest waits in the object store
    backlog_seconds: float = Field(default=600.0, gt=0)
    #: or in pages, whatever the speed
    backlog_pages: int | None = Field(default=None, ge=1)
    #: that a worker reads in a second, until it is known
    pages_per_second: float = Field(default=2.5, gt=0)
    #: what a GPU costs for an hour, in whatever money: for estimates, and a metric
    price_per_gpu_hour: float | None = Field(default=None, gt=0)
    #: seconds between two looks of the sweep at what should be on the queue
    sweep_seconds: float = Field(default=60.0, gt=0)

    #: webhooks are signed with it, as Standard Webhooks has it
    webhook_secret: SecretStr | None = None
    #: whether webhooks may go to http://, loopback, link-local and private addresses
    webhook_private: bool = False

    #: seconds that an engine may take for one page; the profile's own by default
    page_deadline: float | None = Field(default=None, gt=0)
    #: times a page is tried before its own faults make it failed
    page_attempts: int = Field(default=2, ge=1)
    #: worker deaths after which a page that was in flight runs alone
    suspect_deaths: int = Field(default=2, ge=1)
    #: worker deaths of a page that ran alone after which it is quarantined
    quarantine_deaths: int = Field(default=2, ge=1)

    #: sandboxed processes that render, for each worker; by default one for a CPU engine, and as many as there are cores
    #: for each GPU, eight at most, for others
    renderers: int | None = Field(default=None, ge=1)
    #: million pixels of page images that a worker holds at most, rendered or in its engine (3 bytes each)
    pixels_in_flight: int = Field(default=600, ge=1)
    #: seconds that begun pages get when a worker is told to stop; then they are given back
    drain_seconds: float = Field(default=60.0, ge=0)
    #: MiB that a renderer may use
    render_memory_mb: int = Field(default=1024, ge=128)
    #: seconds that one page may take to render
    render_deadline: float = Field(default=60.0, gt=0)

    s3: S3Settings = Field(default_factory=S3Settings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    vllm: VllmSettings = Field(default_factory=VllmSettings)
    openai: OpenAiSettings = Field(default_factory=OpenAiSettings)

    #: where `worker`, `watch`, `dispatch` and `sweep --every` answer /metrics, to anybody; without a port they don't (`serve` has its own)
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    metrics_host: str = "127.0.0.1"

    #: a file that a worker makes once it is ready: for whoever supervises it
    ready_file: Path | None = None

    #: debug, info, warning, error
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def passwords(self) -> tuple[str, ...]:
        """Return the lines of the password file; () when there is none. Raises OSError when it can't be read."""
        if self.password_file is None:
            return ()
        lines = self.password_file.read_text(encoding="utf-8-sig").splitlines()
        return tuple(line for line in lines if line)
