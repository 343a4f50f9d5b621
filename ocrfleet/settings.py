"""Settings: read once from OCRFLEET_* variables at an entry point, then passed down.

Each field's description states its unit and its effect; the reference in `docs/` is generated from them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from ocrfleet.records.base import Collection
from ocrfleet.records.priority import Priority
from ocrfleet.records.tenants import DEFAULT
from ocrfleet.redis_url import checked

#: IIIF names everything by a URL, also where nothing is published yet.
IIIF_URL = "https://example.org/iiif"


def _checked_redis_url(url: SecretStr) -> SecretStr:
    checked(url.get_secret_value())
    return url


#: A URL that may hold a password: it is shown nowhere.
RedisUrl = Annotated[SecretStr, AfterValidator(_checked_redis_url)]


class VllmSettings(BaseSettings):
    """OCRFLEET_VLLM_*: arguments of vLLM, by vLLM's names. Those that are not set follow from the GPU's memory."""

    model_config = SettingsConfigDict(
        env_prefix="OCRFLEET_VLLM_", frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True
    )

    gpu_memory_utilization: float | None = Field(
        default=None, gt=0, le=1, description="Share of the GPU's memory for weights and KV cache, 0 to 1."
    )
    max_model_len: int | None = Field(
        default=None, ge=256, description="Tokens of prompt, image and output together that one page may need."
    )
    max_num_seqs: int | None = Field(
        default=None, ge=1, description="Pages that the engine recognises at the same time."
    )
    dtype: str = Field(default="auto", description="Data type of weights and activations, as vLLM names it.")
    quantization: str | None = Field(
        default=None, description="Quantization method of the weights, as vLLM names it; unset: as the model says."
    )
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs that share one copy of the model.")
    enforce_eager: bool = Field(
        default=False, description="Run without CUDA graphs: starts faster, needs less memory, recognises more slowly."
    )
    renderer_num_workers: int = Field(
        default=2, ge=1, description="Threads of the worker's process that turn page images into tensors."
    )
    silence_seconds: float = Field(
        default=120.0,
        gt=0,
        description="Seconds without any new token, while pages are in the engine, after which the engine counts as "
        "dead and the worker exits with 70. vLLM itself does not detect a hung engine.",
    )


class OpenAiSettings(BaseSettings):
    """OCRFLEET_OPENAI_*: a server with OpenAI's protocol, for profiles whose engine is `openai`."""

    model_config = SettingsConfigDict(
        env_prefix="OCRFLEET_OPENAI_", frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True
    )

    base_url: SecretStr | None = Field(
        default=None, description="URL of the server, for example http://127.0.0.1:8000/v1; it may have a password."
    )
    api_key: SecretStr | None = Field(default=None, description="Key that is sent with each request.")
    concurrency: int = Field(default=16, ge=1, le=1024, description="Requests (pages) in flight at the same time.")
    timeout: float = Field(
        default=120.0,
        gt=0,
        description="Seconds until the server must have begun its response, and between two parts of a response.",
    )
    retries: int = Field(
        default=6, ge=0, description="Times that a request is sent again after 429, 5xx or a broken connection."
    )
    max_pages: int | None = Field(
        default=None, ge=1, description="Pages after which this worker sends no more requests; a limit on spending."
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens, of prompts and outputs together, after which this worker sends no more requests.",
    )


class S3Settings(BaseSettings):
    """OCRFLEET_S3_*: how S3 is reached. Credentials come from boto3's own sources: AWS_* variables, profiles, roles."""

    model_config = SettingsConfigDict(
        env_prefix="OCRFLEET_S3_", frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True
    )

    endpoint_url: str | None = Field(
        default=None,
        description="URL of an S3 server other than AWS, for example http://127.0.0.1:8333. Unset: boto3's "
        "AWS_ENDPOINT_URL_S3, else AWS.",
    )
    public_endpoint_url: str | None = Field(
        default=None,
        description="URL at which clients reach the S3 server of the store, for links to results. Unset: as ocrfleet does.",
    )
    region: str | None = Field(default=None, description="Region of the buckets; unset: as boto3 is configured.")
    addressing: Literal["auto", "path", "virtual"] = Field(
        default="auto",
        description="Whether requests name the bucket in the path or in the host name; auto: path where an endpoint is "
        "set, else boto3's choice.",
    )
    server_side_encryption: Literal["AES256", "aws:kms"] | None = Field(
        default=None, description="Server-side encryption of the objects that ocrfleet writes."
    )
    kms_key_id: str | None = Field(default=None, description="Key for server-side encryption with aws:kms.")
    storage_class: str | None = Field(
        default=None,
        description="Storage class of the objects that ocrfleet writes: STANDARD_IA, INTELLIGENT_TIERING, …",
    )
    connect_timeout: float = Field(default=5.0, gt=0, description="Seconds until a connection must be established.")
    read_timeout: float = Field(default=30.0, gt=0, description="Seconds between two parts of a response.")
    attempts: int = Field(
        default=6,
        ge=1,
        description="Times that a request is sent in all, with growing random pauses, on throttling, 5xx and broken "
        "connections.",
    )
    connections: int = Field(default=32, ge=1, description="Connections of one process that are kept open.")


class ApiSettings(BaseSettings):
    """OCRFLEET_API_*: access to the HTTP API of `ocrfleet serve`, and its limits."""

    model_config = SettingsConfigDict(
        env_prefix="OCRFLEET_API_", frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True
    )

    tokens: SecretStr | None = Field(
        default=None,
        description="Bearer tokens that are accepted, separated by commas, each of 16 characters at least: they may do "
        "everything with the documents of the default tenant. `ocrfleet token` makes tokens of tenants, with scopes. Without any "
        "token, only requests from this machine are answered.",
    )
    oidc_issuer: str | None = Field(
        default=None,
        description="URL of an OpenID Connect issuer (https) whose tokens are accepted as well: signed JSON Web Tokens. It must publish "
        "its keys at its own host, the only one that is asked.",
    )
    oidc_audience: str | None = Field(
        default=None, description="Audience (`aud`) that its tokens must be for; required."
    )
    oidc_tenant_claim: str = Field(default="tenant", description="Claim that names the client's tenant.")
    oidc_scope_claim: str = Field(
        default="scope",
        description="Claim with the scopes, in a list or separated by spaces: submit, read, review, delete, admin.",
    )
    event_token: SecretStr | None = Field(
        default=None, description="A further token that is accepted for POST /v1/events/s3 only."
    )
    metrics_with_token: bool = Field(
        default=False,
        description="Whether /metrics on the API's port always needs a token with the scope admin; else only once a token is in the store "
        "or there is an OpenID Connect issuer.",
    )
    sources: str = Field(
        default="",
        description="Prefixes (s3://bucket/prefix/), separated by commas, in which sources may be named; others are "
        "refused. `{tenant}` stands for the tenant of the client: a prefix without it is open to all tenants.",
    )
    results: str | None = Field(
        default=None, description="Prefix (s3://bucket/prefix/) to which results of uploads reported by events go."
    )
    collection: Collection = Field(default="api", description="Collection of documents that are submitted without one.")
    queue: Priority = Field(
        default=Priority.INTERACTIVE, description="Priority of documents that are submitted without one."
    )
    event_collection: Collection = Field(
        default="inbox", description="Collection of documents that are submitted by events."
    )
    event_queue: Priority = Field(
        default=Priority.BULK, description="Priority of documents that are submitted by events."
    )
    upload_bytes: int = Field(
        default=5_000_000_000, ge=1, description="Bytes of one uploaded file, or source of the API, at most."
    )
    upload_pages: int = Field(
        default=20_000,
        ge=1,
        description="Pages of one uploaded file, or source of the API, that may be read. Set both limits for `serve` and for intake consumers of their own.",
    )
    pages_a_day: int | None = Field(
        default=None,
        ge=1,
        description="Pages that a tenant, or a token of the default tenant, may submit in a day (UTC); unset: any number. Counted in "
        "Redis: while that is away, submissions are answered with 503. Set it for `serve` and for intake consumers of their own.",
    )
    bytes_a_day: int | None = Field(default=None, ge=1, description="The same in bytes of files.")
    collection_pages_a_day: int | None = Field(
        default=None,
        ge=1,
        description="Pages that may be submitted to one collection in a day (UTC); unset: any number.",
    )
    collection_bytes_a_day: int | None = Field(default=None, ge=1, description="The same in bytes of files.")
    uploads_at_once: int = Field(
        default=16, ge=1, description="Uploads that are received at the same time, each onto the disk (TMPDIR)."
    )
    arrivals_limit: int = Field(
        default=10_000,
        ge=1,
        description="Intake batches that wait at most, of which a client has three quarters; beyond that, submissions are answered with 429.",
    )
    streams: int = Field(default=100, ge=1, description="Event streams of progress that are open at the same time.")
    connections: int = Field(
        default=500,
        ge=1,
        description="Connections that are open at the same time; half of them at most for requests that wait, of which a client has three quarters.",
    )

    def accepted_tokens(self) -> tuple[str, ...]:
        """Return the bearer tokens; () when there are none."""
        return _parts(self.tokens.get_secret_value()) if self.tokens is not None else ()

    def allowed_sources(self, tenant: str = DEFAULT) -> tuple[str, ...]:
        """Return the prefixes in which a tenant may name sources; () when there are none."""
        return tuple(place.replace("{tenant}", tenant) for place in _parts(self.sources))


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


class Settings(BaseSettings):
    """OCRFLEET_*: everything that can be set for a process."""

    model_config = SettingsConfigDict(
        env_prefix="OCRFLEET_", frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True
    )

    redis_url: RedisUrl = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="URL of Redis: redis://, rediss://, unix:// (a socket) or sentinel:// (docs/howto/redis.md). Special "
        "characters of a password are percent-encoded.",
    )
    store: str = Field(default="ocrfleet-store", description="The object store: a local folder, or s3://bucket/prefix.")
    fleet: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Name of the fleet: the label `fleet` of every metric, by which several fleets of one Prometheus are told "
        "apart. Unset: bucket and prefix of the store, or the path of its folder; set it where machines have that folder at "
        "different paths.",
    )
    cache: Path = Field(
        default=Path(tempfile.gettempdir()) / "ocrfleet-cache",
        description="Folder for sources fetched from S3, shared by all processes of a machine.",
    )
    cache_mb: int = Field(default=20_000, ge=1, description="MiB of that folder at most; the cache evicts beyond.")
    password_file: Path | None = Field(
        default=None,
        description="File with one password a line; each is tried on encrypted documents. Passwords are never stored.",
    )

    lease_seconds: float = Field(
        default=60.0,
        ge=2.0,
        description="Seconds after which the jobs of a silent worker go to others. A live worker renews its leases ten "
        "times as often. `ocrfleet run` takes 10 seconds unless this is set.",
    )
    job_deadline: float = Field(
        default=3600.0,
        ge=1.0,
        description="Seconds for which the lease of one job is renewed at most; then other workers may take the job.",
    )
    backlog_seconds: float = Field(
        default=600.0,
        gt=0,
        description="Limit of the queue, in seconds of the fleet's work at its measured speed. What is beyond waits in "
        "the object store.",
    )
    backlog_pages: int | None = Field(
        default=None,
        ge=1,
        description="Limit of the queue in pages, whatever the speed; replaces the limit in seconds. `ocrfleet run` takes "
        "32 pages a worker for a CPU engine, 256 for openai and 1024 for others, unless this is set.",
    )
    pages_per_second: float = Field(
        default=2.5, gt=0, description="Speed in pages per second that is assumed of a worker until it is measured."
    )
    price_per_gpu_hour: float | None = Field(
        default=None, gt=0, description="Price of one GPU for one hour, in any currency: for estimates and a metric."
    )
    sweep_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Seconds between two sweeps, which publish lost messages again. `ocrfleet run` takes 3 seconds unless "
        "this is set.",
    )

    webhook_secret: SecretStr | None = Field(
        default=None, description="Secret that webhooks are signed with (Standard Webhooks); unset: not signed."
    )
    webhook_private: bool = Field(
        default=False,
        description="Whether webhooks may go to http:// and to loopback, link-local and private addresses.",
    )

    page_deadline: float | None = Field(
        default=None, gt=0, description="Seconds that an engine may take for one page; unset: as the profile says."
    )
    audit: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the pages, 0 to 1, that a second engine reads as well, and with them every page whose text is "
        "in doubt: Tesseract for RapidOCR, RapidOCR for every other engine. 0: no page.",
    )
    page_attempts: int = Field(
        default=2, ge=1, description="Attempts at a page before its own faults (a crash, a deadline) make it failed."
    )
    suspect_deaths: int = Field(
        default=2, ge=1, description="Worker deaths after which a page that was in flight each time runs alone."
    )
    quarantine_deaths: int = Field(
        default=2, ge=1, description="Worker deaths with this page alone in flight after which it is quarantined."
    )

    renderers: int | None = Field(
        default=None,
        ge=1,
        description="Sandboxed rendering processes of each worker. Unset: one for a CPU engine, else the machine's "
        "cores divided by its GPUs, eight at most.",
    )
    word_finders: int = Field(
        default=0,
        ge=0,
        description="Processes of each worker that find the words on page images, so that the words of a vision-language "
        "model's text get their places: for ALTO, hOCR, PAGE and searchable PDF. A page takes 2 to 5 CPU seconds, beside the "
        "GPU. 0: the words lie in their blocks. CPU engines return the places themselves.",
    )
    pixels_in_flight: int = Field(
        default=600,
        ge=1,
        description="Million pixels of page images that a worker holds at most, rendered or in its engine (3 bytes "
        "each).",
    )
    drain_seconds: float = Field(
        default=60.0,
        ge=0,
        description="Seconds that pages in flight get to finish when a worker is stopped; then they are given back. "
        "`ocrfleet run` takes 10 seconds unless this is set.",
    )
    render_memory_mb: int = Field(default=1024, ge=128, description="MiB of memory that one renderer may use.")
    sandbox: Literal["best", "require"] = Field(
        default="best",
        description="`require`: processes that open documents refuse to start where the kernel lacks a part of the sandbox "
        "(Landlock, seccomp). `best`: they use what there is, and say what is missing.",
    )
    render_deadline: float = Field(default=60.0, gt=0, description="Seconds that one page may take to render.")

    iiif_url: str = Field(
        default=IIIF_URL,
        pattern=r"^https?://[^\s?#]+$",
        description="URL below which you publish IIIF manifests and page images: <url>/<document>/manifest.json and "
        "<url>/<document>/pages/000001.jpg. It is in the outputs of format `iiif`.",
    )

    s3: S3Settings = Field(default_factory=S3Settings, description="Settings of S3.")
    api: ApiSettings = Field(default_factory=ApiSettings, description="Settings of the HTTP API.")
    vllm: VllmSettings = Field(default_factory=VllmSettings, description="Settings of vLLM.")
    openai: OpenAiSettings = Field(
        default_factory=OpenAiSettings, description="Settings of an OpenAI-compatible server."
    )

    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port on which `worker`, `watch`, `dispatch` and `sweep --every` serve /metrics and /healthz, without a "
        "token; unset: not at all. `serve` has these and /readyz on the API's port, and with this setting on a port that "
        "clients of the API can't exhaust, /metrics on that one only.",
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address on which /metrics is served on that port.")
    ready_file: Path | None = Field(
        default=None, description="File that a worker creates once it is ready, for its supervisor."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level of the log events that are written."
    )

    def passwords(self) -> tuple[str, ...]:
        """Return the lines of the password file; () when there is none. Raises OSError when it can't be read."""
        if self.password_file is None:
            return ()
        lines = self.password_file.read_text(encoding="utf-8-sig").splitlines()
        return tuple(line for line in lines if line)


def describe(error: ValidationError) -> str:
    """Return one line with the variable of each setting that is not allowed, and why."""
    kinds = (VllmSettings, OpenAiSettings, S3Settings, ApiSettings)
    prefixes = {kind.__name__: kind.model_config["env_prefix"] for kind in kinds}
    prefix = prefixes.get(error.title, Settings.model_config["env_prefix"])
    return "; ".join(f"{prefix}{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors())
