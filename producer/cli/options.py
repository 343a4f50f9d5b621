"""Options that commands share, and their values; a wrong one raises UsageError."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr, ValidationError

from ocrfleet.errors import ConfigurationError
from ocrfleet.formats import DEFAULT_FORMATS, FORMATS, FormatName, parse_formats, stored_formats
from ocrfleet.markdown.style import Tables
from ocrfleet.profiles.models import MODELS
from ocrfleet.profiles.profile import Profile, TextLayer, adapted
from ocrfleet.profiles.select import choose
from ocrfleet.records.submissions import SubmissionOptions
from ocrfleet.settings import OpenAiSettings, Settings, describe
from producer.errors import UsageError
from producer.triggers.filters import Prefix

WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="Worker processes; by default one for each GPU, or for each core without one."),
]

EngineOption = Annotated[
    str | None,
    typer.Option(
        help="OCR engine: [b]rapidocr[/] (the default), [b]tesseract[/], [b]vllm[/], [b]openai[/] (a server with that "
        "protocol), or package.module:Class of your own.",
        rich_help_panel="Recognition",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help=f"Model for vllm and openai: {', '.join(model.model for model in MODELS)}; for vllm also a folder with one "
        "of them, for openai any name of a model on the server.",
        rich_help_panel="Recognition",
    ),
]
ModeOption = Annotated[
    str | None,
    typer.Option(
        help="Resolution, for models with several; [b]auto[/] chooses one for each page. See ocrfleet models.",
        rich_help_panel="Recognition",
    ),
]
PromptOption = Annotated[
    str | None,
    typer.Option(
        help="Prompt for the model: [b]markdown[/] (the default), [b]ocr[/], [b]fields:name,date[/], … (see ocrfleet "
        "models), or a text of your own that contains <image>.",
        rich_help_panel="Recognition",
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        help="Engine, model, mode and prompt by one name (see ocrfleet models), or a JSON file with a profile.",
        rich_help_panel="Recognition",
    ),
]
LanguageOption = Annotated[
    str | None,
    typer.Option(help="Languages, for engines that need them, e.g. [b]deu+Fraktur[/].", rich_help_panel="Recognition"),
]
TextLayerOption = Annotated[
    TextLayer,
    typer.Option(
        help="Text layer of PDF pages: [b]ignore[/] it and recognise the page (a retry may still use it), [b]prefer[/] it "
        "where it is trustworthy, or use [b]only[/] it and fail the other pages.",
        rich_help_panel="Recognition",
    ),
]
ScriptOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Script of the pages, as [b]latin[/] or [b]cyrillic[/]; may be given several times. A text mostly in other "
        "scripts is rejected.",
        rich_help_panel="Recognition",
    ),
]
BaseUrlOption = Annotated[
    str | None,
    typer.Option(
        help="URL of the server for openai, e.g. http://127.0.0.1:8000/v1. Its key: OCRFLEET_OPENAI_API_KEY or OPENAI_API_KEY.",
        rich_help_panel="Recognition",
    ),
]
AuditOption = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE",
        help="Let a second engine read this share of the pages, as [b]1%[/], and each page whose text is in doubt; it marks those "
        "whose text is another: Tesseract for rapidocr, rapidocr for every other engine.",
        rich_help_panel="Recognition",
    ),
]


class PdfText(StrEnum):
    """What a searchable PDF does with the text of an earlier OCR."""

    REPLACE = "replace"
    KEEP = "keep"


FormatsOption = Annotated[
    str,
    typer.Option(
        help="Output formats, separated by commas: " + ", ".join(f"[b]{name}[/]" for name in FORMATS) + ".",
        rich_help_panel="Output",
    ),
]
PdfTextOption = Annotated[
    PdfText,
    typer.Option(
        help="What the format [b]pdf[/] does with the text of an earlier OCR: [b]replace[/] it, or [b]keep[/] it, which is the "
        "format [b]pdf-keep[/].",
        rich_help_panel="Output",
    ),
]
#: Value of FormatsOption by default.
DEFAULT = ",".join(DEFAULT_FORMATS)
TablesOption = Annotated[
    Tables,
    typer.Option(
        help="Tables in the Markdown: [b]html[/], or [b]markdown[/] for tables without spanning or multi-line cells.",
        rich_help_panel="Output",
    ),
]
JoinHyphensOption = Annotated[
    bool,
    typer.Option(
        "--join-hyphens/--keep-hyphens",
        help="Join words that are hyphenated at a line's end in the Markdown.",
        rich_help_panel="Output",
    ),
]


def read_settings(password_file: Path | None = None, base_url: str | None = None, audit: str | None = None) -> Settings:
    """Read OCRFLEET_*, with options that replace some of them. Raises UsageError."""
    given: dict[str, object] = {}
    try:
        if password_file is not None:
            given["password_file"] = password_file.absolute()
        if base_url is not None:
            given["openai"] = OpenAiSettings(base_url=SecretStr(base_url))
        if audit is not None:
            given["audit"] = _share(audit)
        settings = Settings.model_validate(Settings(**given)) if given else Settings()  # type: ignore[arg-type]
    except ValidationError as error:
        raise UsageError(describe(error)) from error
    try:
        settings.passwords()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the password file {settings.password_file} can't be read: {error}") from error
    return settings


def _share(text: str) -> float:
    """Return a share such as 1% or 0.01, 0 to 1. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)(%?)", text.strip())
    share = float(match[1]) / (100 if match[2] else 1) if match is not None else -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"--audit {text!r}: write a share of the pages, as 1%, 0.5% or 100%")
    return share


def read_profile(
    *,
    engine: EngineOption = None,
    profile: ProfileOption = None,
    model: ModelOption = None,
    mode: ModeOption = None,
    prompt: PromptOption = None,
    language: LanguageOption = None,
    text_layer: TextLayerOption = TextLayer.IGNORE,
    script: ScriptOption = None,
) -> Profile:
    """Return the profile that the options describe. Raises UsageError."""
    try:
        chosen = choose(engine=engine, profile=profile, model=model, mode=mode, prompt=prompt, language=language)
        return adapted(chosen, text_layer=text_layer, scripts=tuple(script or ()))
    except ConfigurationError as error:
        raise UsageError(str(error)) from error


def with_profile(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter `chosen` of a command by the options of `read_profile`, which Typer reads from the signature."""
    own = dict(inspect.signature(command, eval_str=True).parameters)
    del own["chosen"]
    options = inspect.signature(read_profile, eval_str=True).parameters

    @functools.wraps(command)
    def with_options(*given: Any, **known: Any) -> None:
        asked = {name: known.pop(name) for name in options if name in known}
        command(*given, **known, chosen=read_profile(**asked))

    with_options.__signature__ = inspect.Signature([*own.values(), *options.values()])  # type: ignore[attr-defined]
    return with_options


def read_formats(text: str, pdf_text: PdfText = PdfText.REPLACE) -> tuple[FormatName, ...]:
    """Return the formats in an option's text. Raises UsageError."""
    try:
        formats = parse_formats(text)
    except ValueError as error:
        raise UsageError(f"--formats: {error}") from error
    if pdf_text is PdfText.REPLACE:
        return formats
    if FormatName.PDF not in formats:
        raise UsageError("--pdf-text is about the format pdf: add it, as --formats md,json,pdf")
    return tuple(dict.fromkeys(FormatName.PDF_KEEP if name is FormatName.PDF else name for name in formats))


def read_submission_options(
    *, collection: str, results: str | None, formats: Iterable[FormatName], **known: Any
) -> SubmissionOptions:
    """Return the options of a submission; `known` are further fields of it. Raises UsageError."""
    folder = None if results is None else str(Prefix.parse_folder(results))
    try:
        return SubmissionOptions(collection=collection, results=folder, formats=stored_formats(formats), **known)
    except ValidationError:
        raise UsageError(
            f"--collection {collection!r}: letters, digits, dots, dashes and underscores, 64 at most, and no dot first"
        ) from None


def read_group(group: str | None) -> bool:
    """Return whether the images of a folder are one document. Raises UsageError."""
    if group not in {None, "folder"}:
        raise UsageError(f"--group takes 'folder', not {group!r}")
    return group == "folder"
