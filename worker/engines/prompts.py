"""What a model is asked, as it wants to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile


def words(prompt: str) -> str:
    """Return a prompt without the image's place, where a chat's template puts that in: there must not be two."""
    return prompt.replace("<image>\n", "").replace("<image>", "")


def written_out(profile: Profile) -> str:
    """Return all that a model is given as text, for an engine that nobody writes a chat out for; "" without a prompt."""
    prompt = profile.prompt or ""
    return prompt if profile.template is None else profile.template.replace("{prompt}", words(prompt))
