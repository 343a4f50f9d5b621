"""Uses the text layer of a PDF page instead of recognising the page, where the layer is trustworthy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.profiles.profile import TextLayer
from worker.pipeline.errors import StepSkippedError
from worker.pipeline.printed_page import printed_page
from worker.pipeline.verdict import check_script
from worker.text_layer import trust

if TYPE_CHECKING:
    from worker.engines.layout.parts import ArrangedPage
    from worker.imaging.page_image import PageImage
    from worker.pipeline.retry import Step
    from worker.pipeline.verdict import Rejection
    from worker.text_layer.trust import TextLayerWords


@dataclass(frozen=True, slots=True)
class TextLayerPage:
    """The page made from a text layer, and the reason if its text is rejected."""

    page: ArrangedPage
    rejection: Rejection | None


def from_text_layer(words: TextLayerWords | None, image: PageImage, step: Step) -> TextLayerPage | None:
    """Return the text of the page's text layer; None if the page has to be recognised.

    Raises StepSkippedError if a retry step requires the layer and it is not trustworthy, PermanentError if the profile
    allows nothing else.
    """
    problem = "the text layer can't be extracted" if words is None else trust.distrust(words, image)
    rejection = None
    if words is not None and problem is None:
        page = printed_page(trust.printed_lines(words, image), image)
        rejection = check_script(page.text, step.profile.judgement)
        if rejection is None or step.only_text_layer:
            return TextLayerPage(page, rejection)
    if step.text_layer is TextLayer.PREFER:
        return None
    if step.number:
        raise StepSkippedError(problem if rejection is None else rejection.detail)
    raise PermanentError(Reason.NO_TEXT_LAYER, f"{problem}; with --text-layer prefer such pages are read")
