"""A page image as a model wants to see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import PIL.Image

from ocrfleet.profiles.profile import Profile

if TYPE_CHECKING:
    from worker.imaging.page_image import PageImage

#: The colour that the models' processors pad with: half of white in each channel.
_PADDING = (127, 127, 127)


def picture(image: PageImage, profile: Profile) -> PIL.Image.Image:
    """Return a page, in RGB; in the middle of a square where the profile's mode pads."""
    page = PIL.Image.fromarray(image.pixels)
    if profile.mode is None or not profile.mode.pad or image.width == image.height:
        return page
    # vLLM would stretch the page to a square; the models were trained on padded ones.
    side = max(image.width, image.height)
    square = PIL.Image.new("RGB", (side, side), _PADDING)
    square.paste(page, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def words(prompt: str) -> str:
    """Return a prompt without the image's place, where a chat's template puts that in: there must not be two."""
    return prompt.replace("<image>\n", "").replace("<image>", "")


def written_out(profile: Profile) -> str:
    """Return all that a model is given as text, for an engine that nobody writes a chat out for; "" without a prompt."""
    prompt = profile.prompt or ""
    return prompt if profile.template is None else profile.template.replace("{prompt}", words(prompt))
