"""The vLLM engine: one AsyncLLM in the worker's process, fed page by page; batching is vLLM's own."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from ocrfleet.errors import ConfigurationError, FatalError, PageFaultError, PermanentError, Reason
from ocrfleet.metrics import exposition
from ocrfleet.scratch import scratch
from worker.engines.base import Recognition
from worker.engines.picture import picture, written_out
from worker.engines.stream import Transcript
from worker.engines.vllm import plugin as vllm_plugin
from worker.engines.vllm.sizing import sizes

if TYPE_CHECKING:
    import PIL.Image

    from ocrfleet.profiles.profile import Profile, Sampling
    from ocrfleet.settings import Settings
    from worker.engines.vllm.sizing import Size
    from worker.imaging.page_image import PageImage

log = structlog.get_logger(__name__)

_GUARD = "vllm.model_executor.models.deepseek_ocr:NGramPerReqLogitsProcessor"
#: What an engine's own process says when the device is too small for it (torch; vllm/v1/core/kv_cache_utils.py and
#: vllm/v1/worker/utils.py).
_NO_MEMORY = (
    "out of memory",
    "outofmemory",
    "no available memory",
    "larger than the available kv cache",
)
#: … and when somebody else has the memory, or a process that was killed has not given it back yet (vllm/v1/worker/utils.py).
_TAKEN = "is less than desired"
#: Seconds between two tries then, and how often.
_TAKEN_WAIT, _TAKEN_TRIES = 5.0, 12
#: What is said of a model that is neither on the disk nor to be had (transformers, huggingface_hub), and of no GPU (torch).
_NEVER = (
    "is not a valid model identifier",
    "is not a local folder",
    "LocalEntryNotFoundError",
    "Cannot find an appropriate cached snapshot folder",
    "RepositoryNotFoundError",
    "RevisionNotFoundError",
    "can't load the configuration",
    "couldn't connect to",
    "Invalid repository ID",
    "No CUDA GPUs are available",
    "Failed to infer device type",
)
#: Tokens between two pieces of a page's text: each piece costs the event loop some time.
_STREAM_INTERVAL = 16
#: Written by the model where it ends; vLLM leaves it away unless it is written twice.
_END = "<｜end▁of▁sentence｜>"  # noqa: RUF001 - the model's own characters
#: Some ordinary tokens, and one more than can be written with them without a pair coming twice.
_FEW_TOKENS = (1000, 1001, 1002, 1003)
_TOO_MANY = len(_FEW_TOKENS) ** 2 + 2


class VllmEngine:
    """One vLLM engine: one model in one mode, on the device that the worker was given."""

    interruptible = True

    def __init__(self, profile: Profile, settings: Settings) -> None:
        if profile.prompt is None or profile.sampling is None:
            raise ConfigurationError(f"the profile {profile.name} says neither what to ask nor how to write")
        self.version = "vllm"
        self.concurrency = 1
        #: pages whose tensors are made while others are written
        self.ahead = 2 * settings.vllm.renderer_num_workers
        self._profile = profile
        self._settings = settings.vllm
        self._llm: Any = None
        # Well before a page's own deadline: else pages would be at fault for an engine that hangs.
        self._silence = min(settings.vllm.silence_seconds, (settings.page_deadline or profile.page_deadline) / 2)
        self._reading: set[asyncio.Task[Any]] = set()
        #: when the engine was last heard, or seconds for which it had been silent when nobody waited any more
        self._heard = self._silent_before = 0.0
        self._silent = False
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the engine in the largest size that fits, and make sure that its guard against loops is at work.

        Raises ConfigurationError when it can never start here, FatalError when starting it again may help.
        """
        try:
            os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
            os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
            # The worker has threads, and a fork of those may hang.
            os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
            import vllm  # noqa: PLC0415 - takes seconds, and is not installed with every worker
        except ImportError as error:
            raise ConfigurationError(f"vLLM can't be loaded ({error}); pip install 'ocrfleet[vllm]'") from error
        self.version = f"vllm {vllm.__version__}"
        path = self._profile.model_path
        if path is not None and not (path / "config.json").is_file():
            raise ConfigurationError(f"there is no model in {path}: it has no config.json")
        if self._profile.mode is not None:
            os.environ["OCRFLEET_VLLM_MODE"] = self._profile.mode.model_dump_json()
            vllm_plugin.set_mode(self._profile.mode)  # vLLM asks its plugins once in a process
        os.environ["OCRFLEET_VLLM_WORKER"] = str(os.getpid())
        with scratch("ocrfleet-vllm-") as folder:
            self._llm = self._start_in_some_size(folder / "trouble")
        self._watch = asyncio.create_task(self._watch_for_silence())
        try:
            await self._check_guard()
        except asyncio.CancelledError:
            if self._silent:
                raise FatalError("the engine hangs at its first request") from None
            raise

    async def recognise(self, image: PageImage, profile: Profile) -> Recognition:
        """Read one page.

        Raises PermanentError for a prompt that is too long, PageFaultError when vLLM fails on this page, and FatalError
        when the engine has died or has fallen silent.
        """
        if profile.prompt is None or profile.sampling is None:
            raise PermanentError(Reason.ENGINE_FAILED, f"the profile {profile.name} does not say what to ask")
        transcript = Transcript(profile.page_deadline)
        return await self._write(
            written_out(profile), picture(image, profile), _parameters(profile.sampling), transcript
        )

    @property
    def unfinished(self) -> int:
        """Pages that vLLM still has, whether anybody waits for them or not."""
        return int(self._llm.get_num_unfinished_requests())

    @property
    def broken(self) -> str | None:
        """Why the engine reads no more, also while nobody asks it to."""
        return "the engine died" if self._llm is not None and self._llm.errored else None

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._llm is not None:
            self._llm.shutdown()
            self._llm = None

    def _start_in_some_size(self, trouble: Path) -> Any:
        os.environ["OCRFLEET_VLLM_TROUBLE"] = str(trouble)
        tried: list[Size] = []
        for size in sizes(self._profile, self._settings, gpu_gib=_gpu_gib()):
            if size in tried:
                continue  # what differs was set by the user
            tried.append(size)
            llm = self._start_when_free(size, trouble)
            if llm is not None:
                self.concurrency = size.max_num_seqs
                log.info("engine started", size=str(size))
                return llm
        raise ConfigurationError(
            f"{self._profile.model} does not fit into the device's memory, not even as {tried[-1]}; see ocrfleet models "
            "for what it needs, and OCRFLEET_VLLM_* for what may be set"
        )

    def _start_when_free(self, size: Size, trouble: Path) -> Any:
        """Start an engine of a size, once the device's memory is free; None when it is too large for the device."""
        for number in range(_TAKEN_TRIES):
            if number:
                time.sleep(_TAKEN_WAIT)
            trouble.unlink(missing_ok=True)
            try:
                return self._start_in(size)
            except Exception as error:  # vLLM's versions, torch and transformers raise whatever they like
                said = [*(trouble.read_text(encoding="utf-8").splitlines() if trouble.exists() else []), str(error)]
                text = " ".join(said).lower()
                if any(words in text for words in _NO_MEMORY):
                    log.warning("out of memory: trying a smaller engine", error=said[0], size=str(size))
                    return None
                if _TAKEN not in text:
                    raise _start_error(said, self._profile) from error
                log.warning("waiting", error=f"the device's memory is taken: {said[0]}")
        raise FatalError(f"the device's memory is taken by somebody else: {said[0]}")

    def _start_in(self, size: Size) -> Any:
        from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415 - see start
        from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

        path = self._profile.model_path
        sampling, settings = self._profile.sampling, self._settings
        guarded = sampling is not None and sampling.ngram_size is not None
        return AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=str(path or self._profile.model),
                revision=None if path else self._profile.revision,
                tokenizer_revision=None if path else self._profile.revision,
                trust_remote_code=False,
                gpu_memory_utilization=size.gpu_memory_utilization,
                max_model_len=size.max_model_len,
                max_num_seqs=size.max_num_seqs,
                dtype=settings.dtype,
                quantization=settings.quantization,
                tensor_parallel_size=settings.tensor_parallel_size,
                enforce_eager=settings.enforce_eager,
                renderer_num_workers=settings.renderer_num_workers,
                logits_processors=[_GUARD] if guarded else None,
                # A model that takes films, too, would keep memory for one.
                limit_mm_per_prompt={"image": 1, "video": 0},
                # No page comes twice: what would be kept of it is lost memory.
                enable_prefix_caching=False,
                mm_processor_cache_gb=0,
                stream_interval=_STREAM_INTERVAL,
                # Its own metrics (vllm:*) are for whoever exposes ours; vLLM has them only with its statistics.
                disable_log_stats=not exposition.read_by_others(),
            )
        )

    async def _write(self, prompt: str, shown: PIL.Image.Image, parameters: Any, transcript: Transcript) -> Recognition:
        from vllm.exceptions import VLLMValidationError  # noqa: PLC0415 - see start
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError  # noqa: PLC0415

        tokens, finish_reason, tokens_in = 0, None, None
        with self._listened_to():
            try:
                asked = await self.rendered(prompt, shown)
                # Leaving before it has ended frees its place: vLLM gives up a request that nobody listens to.
                async with aclosing(self._llm.generate(asked, parameters, uuid.uuid4().hex)) as outputs:
                    async for output in outputs:
                        self._heard = time.monotonic()
                        tokens_in = len(output.prompt_token_ids or ()) or tokens_in
                        written = output.outputs[0]
                        transcript.add(written.text)
                        tokens += len(written.token_ids)
                        finish_reason = written.finish_reason
                        if transcript.loop is not None or (finish_reason is None and transcript.stopped):
                            finish_reason = transcript.stopped
                            break
            except asyncio.CancelledError:
                if self._silent:
                    raise FatalError(
                        f"the engine hangs: no token for {self._silence:g} seconds while pages wait"
                    ) from None
                raise
            except EngineDeadError as error:
                raise FatalError("the engine died") from error
            except VLLMValidationError as error:
                raise PermanentError(Reason.ENGINE_FAILED, f"vLLM refuses the page: {error}") from error
            except EngineGenerateError as error:
                cause = error.__cause__ or error
                raise PageFaultError(Reason.ENGINE_FAILED, f"vLLM fails on this page: {cause}") from error
        if finish_reason == "abort":
            raise PageFaultError(Reason.ENGINE_FAILED, "vLLM gave the page up")
        text = transcript.text.removesuffix(_END)
        return Recognition(
            text=text, finish_reason=finish_reason, tokens=tokens, tokens_in=tokens_in, loop=transcript.loop
        )

    async def rendered(self, prompt: str, shown: PIL.Image.Image) -> Any:
        """Return the prompt's tokens and the page's tensors, made in vLLM's own threads."""
        from vllm.renderers.inputs.preprocess import parse_model_prompt  # noqa: PLC0415 - see start

        asked = {"prompt": prompt, "multi_modal_data": {"image": shown}}
        parsed = parse_model_prompt(self._llm.model_config, asked)
        try:
            (rendered,) = await self._llm.renderer.render_cmpl_async([parsed])
        except (ValueError, TypeError, OSError) as error:
            raise PageFaultError(Reason.ENGINE_FAILED, f"vLLM can't take this page: {error}") from error
        return rendered

    @contextmanager
    def _listened_to(self) -> Iterator[None]:
        """Have the present task ended when the engine falls silent."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: this is a coroutine's
        if not self._reading:
            self._heard = time.monotonic() - self._silent_before
        self._reading.add(task)
        try:
            yield
        finally:
            self._reading.discard(task)
            # One that was silent until all had given up is not taken for well by the next to come.
            self._silent_before = time.monotonic() - self._heard

    async def _watch_for_silence(self) -> None:
        """End every page's waiting when no token has come for long: vLLM itself does not notice that its worker hangs."""
        limit = self._silence
        while True:
            await asyncio.sleep(min(1.0, limit / 10))
            if self._reading and time.monotonic() - self._heard > limit:
                self._silent = True
                for task in self._reading:
                    task.cancel()

    async def _check_guard(self) -> None:
        """Raise FatalError unless the guard against loops is at work: some versions of vLLM left it away.

        With four tokens allowed, eighteen can't be written without a pair of them coming twice; the guard forbids pairs.
        """
        sampling = self._profile.sampling
        if sampling is None or sampling.ngram_size is None:
            return
        from vllm import SamplingParams  # noqa: PLC0415 - see start
        from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415

        parameters = SamplingParams(
            temperature=0.0,
            max_tokens=_TOO_MANY,
            ignore_eos=True,
            allowed_token_ids=list(_FEW_TOKENS),
            extra_args={"ngram_size": 2, "window_size": _TOO_MANY},
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        with self._listened_to():
            async for output in self._llm.generate({"prompt": "OCR"}, parameters, "guard"):
                written = list(output.outputs[0].token_ids)
        pairs = [pair for pair in itertools.pairwise(written) if set(pair) <= set(_FEW_TOKENS)]
        if len(set(pairs)) < len(pairs):
            raise FatalError(
                f"{self.version} does not apply the n-gram guard against loops: use a version that does, or a profile "
                "without ngram_size"
            )


def _parameters(sampling: Sampling) -> Any:
    from vllm import SamplingParams  # noqa: PLC0415 - see start
    from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415

    guard = None  # an empty dictionary would be an error
    if sampling.ngram_size is not None:
        guard = {
            "ngram_size": sampling.ngram_size,
            "window_size": sampling.ngram_window,
            "whitelist_token_ids": list(sampling.ngram_whitelist),
        }
    return SamplingParams(
        temperature=sampling.temperature,
        seed=0,
        max_tokens=sampling.max_tokens,
        skip_special_tokens=False,  # layout tags and table cells are such
        extra_args=guard,
        output_kind=RequestOutputKind.DELTA,
    )


def _gpu_gib() -> float | None:
    """Return the GiB of the device's memory; None without a GPU."""
    from vllm.platforms import current_platform  # noqa: PLC0415 - see start

    if not current_platform.is_cuda_alike():
        return None
    return float(current_platform.get_device_total_memory()) / 1024**3


def _start_error(said: list[str], profile: Profile) -> ConfigurationError | FatalError:
    """Say in one line why an engine does not start: by what its own process said first."""
    text = f"vLLM can't start {profile.model}: {said[0]}"
    return ConfigurationError(text) if any(words in " ".join(said) for words in _NEVER) else FatalError(text)
