"""Flattens partly transparent images so that their content is visible: in the colours, in the alpha, or light on nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocrfleet.records.pages import PageWarning, WarningCode

if TYPE_CHECKING:
    from PIL.Image import Image

#: The fewest levels of 255 between the darkest and the lightest of a picture with content; a level counts from this share on.
_PLAIN, _COUNTS = 32, 1e-5
#: A picture shows as much as another if it has this share of its contrast.
_AS_MUCH = 0.9
#: Opaque above, transparent below.
_OPAQUE = 128
#: Levels of light and dark in the opaque part, the smallest share of each, and the largest share of light, because paper is light.
_LIGHT, _DARK = 224, 112
_SOME, _PAPER = 0.005, 0.75
#: The smallest transparent share of a picture in which light letters may be on a transparent ground.
_NOTHING = 0.2
#: The background on which both are visible.
_GREY = 160

_WARNING = PageWarning(
    code=WarningCode.TRANSPARENCY,
    detail="the image shows nothing on white paper: what its colours or its transparency hold was read",
)


def on_paper(image: Image) -> tuple[Image, tuple[PageWarning, ...]]:
    """Return an image without alpha: on white, or in another way that shows its content, with a warning."""
    if not image.mode.endswith("A"):
        return image, ()
    colours, alpha = image.convert(image.mode[:-1]), image.getchannel("A")
    white = _on(colours, alpha, 255)
    if contrast(white) >= _PLAIN:
        return (_on(colours, alpha, _GREY), ()) if _is_light_and_dark(colours, alpha) else (white, ())
    from PIL import ImageOps  # noqa: PLC0415 - native code: under the limits

    # Letters in the alpha become dark, as on paper; letters in the colours stay unchanged.
    ways = [(contrast(way), way) for way in (ImageOps.invert(alpha), colours, ImageOps.invert(_on(colours, alpha, 0)))]
    most = max(shown for shown, _ in ways)
    if most <= contrast(white):
        return white, ()
    # Of those that show as much, the lightest: letters on paper, not letters on black.
    return max((way for shown, way in ways if shown >= most * _AS_MUCH), key=_lightness), (_WARNING,)


def contrast(image: Image) -> int:
    """Return the levels, of 255, between the darkest and the lightest that more than a speck of the image has."""
    return max(_span(image.getchannel(band).histogram()) for band in image.getbands())


def _lightness(image: Image) -> float:
    counts = image.convert("L").histogram()
    return sum(level * count for level, count in enumerate(counts)) / max(1, sum(counts))


def _span(counts: list[int]) -> int:
    fewest = _COUNTS * sum(counts)
    levels = [level for level, count in enumerate(counts) if count > fewest]
    return levels[-1] - levels[0] if levels else 0


def _on(colours: Image, alpha: Image, ground: int) -> Image:
    import PIL.Image  # noqa: PLC0415 - as above

    paper = PIL.Image.new(colours.mode, colours.size, ground if colours.mode == "L" else (ground,) * 3)
    paper.paste(colours, mask=alpha)
    return paper


def _is_light_and_dark(colours: Image, alpha: Image) -> bool:
    """Say whether light letters, beside dark ones, are on a transparent ground: white paper would hide them."""
    opaque = alpha.point([0] * _OPAQUE + [255] * (256 - _OPAQUE))
    counts = colours.convert("L").histogram(opaque)
    total = sum(counts)
    if not total or total > (1 - _NOTHING) * opaque.width * opaque.height:
        return False
    light, dark = sum(counts[_LIGHT:]) / total, sum(counts[:_DARK]) / total
    return dark >= _SOME and _SOME <= light <= _PAPER
