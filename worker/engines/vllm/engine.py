"""The vLLM engine: one AsyncLLM in the worker's process. Pages are submitted one by one; vLLM batches them."""

from __future__ import annotations

import asyncio
import itertools
import math
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
from worker.engines.base import Recognition, Score
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
#: Parts of the messages for a device that is too small (torch; vllm/v1/core/kv_cache_utils.py; vllm/v1/worker/utils.py).
_NO_MEMORY = (
    "out of memory",
    "outofmemory",
    "no available memory",
    "larger than the available kv cache",
)
#: Part of the message for memory that another process holds, perhaps a killed one that is still ending
#: (vllm/v1/worker/utils.py).
_TAKEN = "is less than desired"
#: Seconds between two starts in that case, and number of starts.
_TAKEN_WAIT, _TAKEN_TRIES = 5.0, 12
#: Parts of the messages for a model that can't be found (transformers, huggingface_hub), and for a missing GPU (torch).
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
#: Tokens between two updates of a page's text. Each update costs the event loop some time.
_STREAM_INTERVAL = 16
#: The model's end token. vLLM removes it, unless the model writes it twice.
_END = "<｜end▁of▁sentence｜>"  # noqa: RUF001 - the model's own characters
#: Four ordinary tokens, and one token more than a text of these can have without repeating a pair.
_FEW_TOKENS = (1000, 1001, 1002, 1003)
_TOO_MANY = len(_FEW_TOKENS) ** 2 + 2


class VllmEngine:
    """One vLLM engine: one model in one mode, on the device that the worker was given."""

    interruptible = True

    def __init__(self, profile: Profile, settings: Settings) -> None:
        if profile.prompt is None or profile.sampling is None:
            raise ConfigurationError(f"the profile {profile.name} has no prompt or no sampling: vLLM needs both")
        self.version = "vllm"
        self.concurrency = 1
        #: pages that vLLM preprocesses while it generates the text of others
        self.ahead = 2 * settings.vllm.renderer_num_workers
        self._profile = profile
        self._settings = settings.vllm
        self._llm: Any = None
        # Well before a page's own deadline: otherwise pages would be blamed for an engine that hangs.
        self._silence = min(settings.vllm.silence_seconds, (settings.page_deadline or profile.page_deadline) / 2)
        self._reading: set[asyncio.Task[Any]] = set()
        #: time of the engine's last token; seconds of silence when the last waiting page left
        self._heard = self._silent_before = 0.0
        self._silent = False
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the engine in the largest size that fits, and check that its n-gram guard works.

        Raises ConfigurationError if it can't start on this machine, FatalError if another start may help.
        """
        try:
            os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
            os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
            # The worker has threads, so a forked child may hang.
            os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
            import vllm  # noqa: PLC0415 - takes seconds, and only GPU workers have it
        except ImportError as error:
            raise ConfigurationError(f"vLLM can't be loaded ({error}); pip install 'ocrfleet[vllm]'") from error
        self.version = f"vllm {vllm.__version__}"
        path = self._profile.model_path
        if path is not None and not (path / "config.json").is_file():
            raise ConfigurationError(f"there is no model in {path}: it has no config.json")
        if self._profile.mode is not None:
            os.environ["OCRFLEET_VLLM_MODE"] = self._profile.mode.model_dump_json()
            vllm_plugin.set_mode(self._profile.mode)  # vLLM loads plugins only once in a process
        os.environ["OCRFLEET_VLLM_WORKER"] = str(os.getpid())
        with scratch("ocrfleet-vllm-") as folder:
            self._llm = self._start_largest(folder / "errors")
        self._watch = asyncio.create_task(self._watch_for_silence())
        try:
            await self._check_guard()
        except asyncio.CancelledError:
            if self._silent:
                raise FatalError("the engine hangs at its first request") from None
            raise

    async def recognise(self, image: PageImage, profile: Profile) -> Recognition:
        """Read one page.

        Raises PermanentError for a prompt that is too long, PageFaultError if vLLM fails on this page, and FatalError if
        the engine died or has written no token for `silence_seconds`.
        """
        if profile.prompt is None or profile.sampling is None:
            raise PermanentError(Reason.ENGINE_FAILED, f"the profile {profile.name} has no prompt or no sampling")
        transcript = Transcript(profile.page_deadline)
        return await self._write(
            written_out(profile), picture(image, profile), _parameters(profile.sampling), transcript
        )

    @property
    def unfinished(self) -> int:
        """Number of requests in vLLM, including those that no caller waits for."""
        return int(self._llm.get_num_unfinished_requests())

    @property
    def broken(self) -> str | None:
        """The reason why the engine can't read any more, also while it is idle; None while it can."""
        return "the engine died" if self._llm is not None and self._llm.errored else None

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._llm is not None:
            self._llm.shutdown()
            self._llm = None

    def _start_largest(self, errors: Path) -> Any:
        os.environ["OCRFLEET_VLLM_TROUBLE"] = str(errors)
        tried: list[Size] = []
        for size in sizes(self._profile, self._settings, gpu_gib=_gpu_gib()):
            if size in tried:
                continue  # the user's settings make both sizes the same
            tried.append(size)
            llm = self._start_when_free(size, errors)
            if llm is not None:
                self.concurrency = size.max_num_seqs
                log.info("vllm.started", size=str(size))
                return llm
        raise ConfigurationError(
            f"{self._profile.model} does not fit into the device's memory, not even as {tried[-1]}; `ocrfleet models` shows "
            "what it needs, and the OCRFLEET_VLLM_* settings make it smaller"
        )

    def _start_when_free(self, size: Size, errors: Path) -> Any:
        """Start an engine of this size once the device's memory is free. Return None if it is too large for the device."""
        for number in range(_TAKEN_TRIES):
            if number:
                time.sleep(_TAKEN_WAIT)
            errors.unlink(missing_ok=True)
            try:
                return self._start_in(size)
            except Exception as error:  # vLLM, torch and transformers raise many kinds
                messages = [*(errors.read_text(encoding="utf-8").splitlines() if errors.exists() else []), str(error)]
                text = " ".join(messages).lower()
                if any(words in text for words in _NO_MEMORY):
                    log.warning("vllm.out_of_memory", error=messages[0], size=str(size))
                    return None
                if _TAKEN not in text:
                    raise _start_error(messages, self._profile) from error
                log.warning("vllm.memory_taken", error=messages[0], retry_seconds=_TAKEN_WAIT)
        raise FatalError(f"another process holds the device's memory: {messages[0]}")

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
                # Models that also take video would reserve memory for one.
                limit_mm_per_prompt={"image": 1, "video": 0},
                # No page comes twice, so these caches would only cost memory.
                enable_prefix_caching=False,
                mm_processor_cache_gb=0,
                stream_interval=_STREAM_INTERVAL,
                # vLLM's own metrics (vllm:*) need its statistics. They are exposed with ours.
                disable_log_stats=not exposition.read_by_others(),
            )
        )

    async def _write(self, prompt: str, shown: PIL.Image.Image, parameters: Any, transcript: Transcript) -> Recognition:
        from vllm.exceptions import VLLMValidationError  # noqa: PLC0415 - see start
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError  # noqa: PLC0415

        tokens, finish_reason, tokens_in = 0, None, None
        scores: list[Score] = []
        log_probability = 0.0
        with self._watched():
            try:
                asked = await self.rendered(prompt, shown)
                # Closing the generator early aborts the request in vLLM and frees its slot.
                async with aclosing(self._llm.generate(asked, parameters, uuid.uuid4().hex)) as outputs:
                    async for output in outputs:
                        self._heard = time.monotonic()
                        tokens_in = len(output.prompt_token_ids or ()) or tokens_in
                        written = output.outputs[0]
                        transcript.add(written.text)
                        tokens += len(written.token_ids)
                        if written.token_ids and written.cumulative_logprob is not None:
                            mean = (written.cumulative_logprob - log_probability) / len(written.token_ids)
                            scores.append(Score(len(written.token_ids), len(written.text), math.exp(min(mean, 0.0))))
                            log_probability = written.cumulative_logprob
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
            raise PageFaultError(Reason.ENGINE_FAILED, "vLLM aborted the page")
        text = transcript.text.removesuffix(_END)
        return Recognition(
            text=text,
            scores=tuple(scores),
            finish_reason=finish_reason,
            tokens=tokens,
            tokens_in=tokens_in,
            loop=transcript.loop,
        )

    async def rendered(self, prompt: str, shown: PIL.Image.Image) -> Any:
        """Return the prompt's tokens and the page's tensors, prepared in vLLM's own threads."""
        from vllm.renderers.inputs.preprocess import parse_model_prompt  # noqa: PLC0415 - see start

        asked = {"prompt": prompt, "multi_modal_data": {"image": shown}}
        parsed = parse_model_prompt(self._llm.model_config, asked)
        try:
            (rendered,) = await self._llm.renderer.render_cmpl_async([parsed])
        except (ValueError, TypeError, OSError) as error:
            raise PageFaultError(Reason.ENGINE_FAILED, f"vLLM can't preprocess this page: {error}") from error
        return rendered

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Cancel the current task if the engine writes no token for too long."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: this is a coroutine's
        if not self._reading:
            self._heard = time.monotonic() - self._silent_before
        self._reading.add(task)
        try:
            yield
        finally:
            self._reading.discard(task)
            # The silence goes on for the next page: an engine that hung is not healthy because its callers left.
            self._silent_before = time.monotonic() - self._heard

    async def _watch_for_silence(self) -> None:
        """Cancel all waiting pages if no token has come for too long. vLLM itself does not detect a hanging worker."""
        limit = self._silence
        while True:
            await asyncio.sleep(min(1.0, limit / 10))
            if self._reading and time.monotonic() - self._heard > limit:
                self._silent = True
                for task in self._reading:
                    task.cancel()

    async def _check_guard(self) -> None:
        """Raise FatalError unless the n-gram guard against repetition works: some versions of vLLM ignore it.

        The check allows four tokens only and asks for eighteen. Without the guard, a pair of tokens must come twice.
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
        with self._watched():
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
        skip_special_tokens=False,  # layout tags and table cells are special tokens
        extra_args=guard,
        logprobs=0,  # of the chosen tokens only: how sure the model is of what it wrote
        flat_logprobs=True,  # a few lists instead of some objects a token
        output_kind=RequestOutputKind.DELTA,
    )


def _gpu_gib() -> float | None:
    """Return the device's memory in GiB; None without a GPU."""
    from vllm.platforms import current_platform  # noqa: PLC0415 - see start

    if not current_platform.is_cuda_alike():
        return None
    return float(current_platform.get_device_total_memory()) / 1024**3


def _start_error(messages: list[str], profile: Profile) -> ConfigurationError | FatalError:
    """Return the error for an engine that does not start, with the first message of its own process."""
    text = f"vLLM can't start {profile.model}: {messages[0]}"
    return ConfigurationError(text) if any(words in " ".join(messages) for words in _NEVER) else FatalError(text)
