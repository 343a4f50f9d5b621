"""`ocrfleet models`: models with their prompts, modes and GPU memory."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from ocrfleet.profiles.models import MODELS
from ocrfleet.profiles.models.model import Model
from ocrfleet.profiles.profile import PROFILES
from ocrfleet.profiles.scripts import SCRIPTS
from ocrfleet.profiles.select import named
from producer.cli import terminal

#: The most characters of a prompt that are printed; `--json` has all of it.
_LONGEST_SHOWN = 80


def models(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False) -> None:
    """List the models with their prompts and modes, and the profiles made of them."""
    profiles = list(named())
    if as_json:
        facts = {
            "models": [model.model_dump(mode="json") | {"gpu_memory_gib": gpu_memory_gib(model)} for model in MODELS],
            "profiles": [profile.model_dump(mode="json", exclude_none=True) for profile in profiles],
        }
        terminal.echo(json.dumps(facts, indent=1))
        return
    console = terminal.console()
    for model in MODELS:
        console.print(f"\n[bold]{model.name}[/]  {model.model} at {model.revision[:12]}")
        console.print(
            f"  GPU memory: {gpu_memory_gib(model):.0f} GiB at least ({model.weights_gib} of weights; "
            f"{model.kv_kib:.0f} KiB a token in the cache): ocrfleet bench measures it on yours."
        )
        console.print(f"  Tested: {model.tried}")
        modes = Table("--mode", "page", "tiles", "image tokens at most", box=None, padding=(0, 2))
        for name, shown in model.modes.items():
            default = " (default)" if name == model.mode else ""
            page = shown.mode.base_size if shown.mode else shown.render.long_side
            tiles = f"up to 6 of {shown.mode.image_size} px" if shown.mode and shown.mode.tiles else "none"
            modes.add_row(f"{name}{default}", f"{page} px", tiles, str(shown.image_tokens))
        if model.routes:
            modes.add_row("auto", "chooses a mode for each page", "", "")
        console.print(modes)
        prompts = Table("--prompt", "gives", "asks", box=None, padding=(0, 2))
        for name, prompt in model.prompts.items():
            default = " (default)" if name == model.prompt else ""
            words = ":WORDS" if prompt.takes_words else ""
            asks = " ".join(prompt.text.removeprefix("<image>").split())
            asks = (asks if len(asks) <= _LONGEST_SHOWN else f"{asks[:_LONGEST_SHOWN]} …").replace("[", "\\[")
            prompts.add_row(f"{name}{words}{default}", prompt.gives, asks)
        console.print(prompts)
    console.print("\n[bold]CPU engines[/] (--engine)")
    for profile in PROFILES.values():
        language = f", with --language (default {profile.language})" if profile.language else ""
        console.print(f"  {profile.name}  {profile.model}, {profile.revision}{language}")
    console.print(
        "\n[bold]Scripts that rapidocr lacks[/]: it reads them with Tesseract where a model of the script is installed"
    )
    scripts = Table("script", "Debian package", "models that are used", box=None, padding=(0, 2))
    for script in SCRIPTS.values():
        scripts.add_row(script.name, script.package, ", ".join((f"script/{script.model}", *script.languages)))
    console.print(scripts)
    console.print(f"\n{len(profiles)} profiles for --profile: {', '.join(profile.name for profile in profiles)}")


def gpu_memory_gib(model: Model) -> float:
    """Return the GiB of GPU memory for the weights, the cache of one page of full length, and 2 GiB of activations."""
    return model.weights_gib + model.context * model.kv_kib / 1024**2 + 2.0
