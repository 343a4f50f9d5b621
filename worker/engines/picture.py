"""Model input: the page image, padded as the model expects, and the prompt text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import PIL.Image

from ocrfleet.profiles.profile import Profile

if TYPE_CHECKING:
    from worker.imaging.page_image import PageImage

#: The padding colour of the DeepSeek-OCR image processors: 0.5 in each channel.
_PADDING = (127, 127, 127)


def picture(image: PageImage, profile: Profile) -> PIL.Image.Image:
    """Return the page as RGB, centred in a square if the profile's mode pads."""
    page = PIL.Image.fromarray(image.pixels)
    if profile.mode is None or not profile.mode.pad or image.width == image.height:
        return page
    # vLLM would stretch the page to a square, but the models were trained on padded pages.
    side = max(image.width, image.height)
    square = PIL.Image.new("RGB", (side, side), _PADDING)
    square.paste(page, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def words(prompt: str) -> str:
    """Return a prompt without its image placeholder. A chat template adds its own, and there must be only one."""
    return prompt.replace("<image>\n", "").replace("<image>", "")


def written_out(profile: Profile) -> str:
    """Return the complete text input for an engine that applies no chat template; "" if the profile has no prompt."""
    prompt = profile.prompt or ""
    return prompt if profile.template is None else profile.template.replace("{prompt}", words(prompt))
