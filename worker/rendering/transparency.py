"""Images that are transparent in part: what is on them is to be seen, be it in the colours, in the alpha, or white on nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocrfleet.records.pages import PageWarning, WarningCode

if TYPE_CHECKING:
    from PIL.Image import Image

#: Levels of 255 between the darkest and the lightest of a picture that shows something; a level counts with such a share.
_PLAIN, _COUNTS = 32, 1e-5
#: A picture shows as much as another when it has such a share of its contrast.
_AS_MUCH = 0.9
#: Opaque above, transparent below.
_OPAQUE = 128
#: Light and dark of what is opaque, in levels, and how much of it each must be at least; of light at most, as paper is light.
_LIGHT, _DARK = 224, 112
_SOME, _PAPER = 0.005, 0.75
#: Share of the picture that is transparent, where what is light on it may stand on nothing.
_NOTHING = 0.2
#: The ground on which both are seen.
_GREY = 160

_WARNING = PageWarning(
    code=WarningCode.TRANSPARENCY,
    detail="the image shows nothing on white paper: what its colours or its transparency hold was read",
)


def on_paper(image: Image) -> tuple[Image, tuple[PageWarning, ...]]:
    """Return an image without alpha: on white, or as something is to be seen on it, with a warning."""
    if not image.mode.endswith("A"):
        return image, ()
    colours, alpha = image.convert(image.mode[:-1]), image.getchannel("A")
    white = _on(colours, alpha, 255)
    if contrast(white) >= _PLAIN:
        return (_on(colours, alpha, _GREY), ()) if _is_light_and_dark(colours, alpha) else (white, ())
    from PIL import ImageOps  # noqa: PLC0415 - native code: under the limits

    # Letters in the alpha are dark then, as on paper; letters in the colours stand as they are.
    ways = [(contrast(way), way) for way in (ImageOps.invert(alpha), colours, ImageOps.invert(_on(colours, alpha, 0)))]
    most = max(shown for shown, _ in ways)
    if most <= contrast(white):
        return white, ()
    # Of those that show as much, the one that is lightest: paper with letters, and not letters on black.
    return max((way for shown, way in ways if shown >= most * _AS_MUCH), key=_lightness), (_WARNING,)


def contrast(image: Image) -> int:
    """Return how many levels, of 255, lie between the darkest and the lightest that more than a speck of the image has."""
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
    """Tell whether light letters, beside dark ones, stand where nothing is: white paper would hide them."""
    opaque = alpha.point([0] * _OPAQUE + [255] * (256 - _OPAQUE))
    counts = colours.convert("L").histogram(opaque)
    total = sum(counts)
    if not total or total > (1 - _NOTHING) * opaque.width * opaque.height:
        return False
    light, dark = sum(counts[_LIGHT:]) / total, sum(counts[:_DARK]) / total
    return dark >= _SOME and _SOME <= light <= _PAPER
