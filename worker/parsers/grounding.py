"""Parse the layout tags of DeepSeek-OCR: the boxes of a page's blocks, and the page's Markdown without tags.

A block is `<|ref|>label<|/ref|><|det|>[[x1, y1, x2, y2], …]<|/det|>`, followed by its text up to the next block. The output
depends on what is printed on a page, so it is untrusted: nothing is evaluated, the time is linear, and damaged output is
parsed as far as possible. Servers that strip special tokens leave `label[[x1, y1, x2, y2], …]` on a line of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import islice

from ocrfleet.records.pages import Block, Role
from worker.parsers.markdown import refined
from worker.parsers.parsed import Parsed, misplaced

#: Roles of the model's layout labels. There is no official list: these labels occur in published outputs, as in
#: https://github.com/deepseek-ai/DeepSeek-OCR/issues/166 and /295, or belong to the same family.
ROLES = {
    "title": Role.TITLE,
    "sub_title": Role.HEADING,
    "text": Role.TEXT,
    "equation": Role.FORMULA,
    "table": Role.TABLE,
    "table_caption": Role.CAPTION,
    "table_footnote": Role.FOOTNOTE,
    "image": Role.FIGURE,
    "image_caption": Role.CAPTION,
    "image_footnote": Role.FOOTNOTE,
    "header": Role.HEADER,
    "footer": Role.FOOTER,
    "page_number": Role.PAGE_NUMBER,
}
#: characters of a label, at most
LABEL_LENGTH = 64
#: boxes of one block, at most; further ones are dropped
MAX_BOXES = 100
#: Coordinates run from 0 to SCALE, whatever the image's size: the published script divides by this number.
SCALE = 999

_LAYOUT_TAGS = _REF, _REF_END, _DET, _DET_END = "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>"
_OTHER_TAGS = "<|grounding|>", "<｜end▁of▁sentence｜>"  # noqa: RUF001 - the token is written so
_TAGS = *_LAYOUT_TAGS, *_OTHER_TAGS
_LAYOUT = re.compile(f"({'|'.join(map(re.escape, _LAYOUT_TAGS))})")
_OTHER = re.compile("|".join(map(re.escape, _OTHER_TAGS)))
_ANY = re.compile("|".join(map(re.escape, _TAGS)))
#: the beginning of a tag, at which an output may end; a single "<" may be text
_REMNANTS = {tag[:end] for tag in _TAGS for end in range(2, len(tag))}

# Both take linear time: possessive quantifiers never backtrack, and no box can begin inside another.
_BOX = re.compile(r"\[" + ",".join([r"\s*+([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*+"] * 4) + r"\]")
_COORDINATES = re.compile(r"\s*+\[[-0-9\s.,\[]*+(?:\][\s,]*+\[[-0-9\s.,\[]*+)*+\]*+")


#: the form of a label; anything else in its place is text of the page
_NAME = re.compile(r"[a-z]++(?:_[a-z]++)*+")
_NUMBER = r"[ ]*+[0-9]{1,3}(?:\.[0-9]{1,6})?+[ ]*+"
_FOUR = r"\[" + ",".join([_NUMBER] * 4) + r"\]"
#: the line of a block whose tags were stripped: it has nothing else
_STRIPPED = re.compile(rf"^({'|'.join(ROLES)})(\[{_FOUR}(?:,[ ]*+{_FOUR})*+\])[ \t\r]*+$", re.MULTILINE)
_RESTORED = rf"{_REF}\1{_REF_END}{_DET}\2{_DET_END}"


@dataclass(kw_only=True, slots=True)
class _Part:
    """A block, or text outside of any block: then `label` is None."""

    label: str | None = None
    #: the text between the det tags; None without them
    coordinates: str | None = None
    pieces: list[str] = field(default_factory=list)


def parse(output: str, *, width_px: int, height_px: int) -> Parsed:
    """Return the page's Markdown without tags, and its blocks, with boxes in pixels of the page image, rounded to 0.1.

    A malformed box is dropped, but its block is kept. A misplaced tag is removed, but the text around it is kept.
    Asked with "OCR this image" the model writes the text itself where the label belongs: a label that is no layout label
    is text where none follows it, or where it is no name (small letters, `_` between words); then all of it is, before
    what follows.
    """
    blocks, placed = [], []
    for part in _parts(output):
        body = _tidy("".join(part.pieces))
        if part.label is None:
            if body:
                blocks.append(Block(label="", role=Role.TEXT, markdown=body))
            continue
        words = _tidy(part.label)
        label = words
        if words and words not in ROLES and (not body or len(words) > LABEL_LENGTH or not _NAME.fullmatch(words)):
            body, label = f"{words}\n{body}".rstrip(), "text"
        boxes = _boxes(part.coordinates or "", width_px, height_px)
        role = refined(ROLES.get(label, Role.OTHER), body)
        placed.append(Block(label=label, role=role, boxes=boxes, markdown=body))
        blocks.append(placed[-1])
    damage = "the text has no layout: there is not one block" if blocks and not placed else misplaced(placed)
    return Parsed.of(blocks, damage=damage)


def _parts(text: str) -> list[_Part]:
    """Split the output at its tags, in one pass. The first part is the text before the first block."""
    if not _ANY.search(text):
        text = _STRIPPED.sub(_RESTORED, text)
    whole = _OTHER.sub("", text)
    whole = whole.removesuffix(next(filter(whole.endswith, _REMNANTS), ""))
    before, *found = _LAYOUT.split(whole)
    # Pairs of a tag and the text after it. An empty tag marks the end of the output.
    pairs = [*zip(found[::2], found[1::2], strict=True), ("", ""), ("", "")]
    parts = [_Part(pieces=[before])]
    at = 0
    while at < len(pairs) - 2:
        (tag, words), (second, between), (third, inside) = pairs[at : at + 3]
        named = tag == _REF and second == _REF_END
        bare = not between.strip()
        at += 1
        if named and third == _DET and bare:
            at += 2
            coordinates, rest = (inside, "") if pairs[at][0] == _DET_END else _split(inside)
            parts.append(_Part(label=words, coordinates=coordinates, pieces=[rest]))
        elif named and (bare or _tidy(words) in ROLES):
            at += 1
            parts.append(_Part(label=words, pieces=[between]))
        elif tag == _REF and not second:  # the output ends within a label, or the label's end tag is missing
            remnant = any(label.startswith(words.strip()) for label in ROLES)
            parts.append(_Part(pieces=[] if remnant else [words]))
        else:
            parts[-1].pieces.append(_split(words)[1] if tag == _DET else words)
    return parts


def _split(text: str) -> tuple[str, str]:
    """Split a text into the coordinates at its beginning and the rest."""
    match = _COORDINATES.match(text)
    end = match.end() if match else 0
    return text[:end], text[end:]


def _tidy(text: str) -> str:
    """Strip the text, and break up new tags that the removal of tags may have formed, by a space."""
    return _ANY.sub(" ", text).strip()


def _boxes(coordinates: str, width_px: int, height_px: int) -> tuple[tuple[float, float, float, float], ...]:
    """Return the boxes in the coordinates that lie within the image and have an area."""
    boxes = []
    for match in islice(_BOX.finditer(coordinates), MAX_BOXES):
        x0, y0, x1, y1 = map(float, match.groups())
        if x0 < x1 <= SCALE and y0 < y1 <= SCALE:
            x, y = width_px / SCALE, height_px / SCALE
            boxes.append((round(x0 * x, 1), round(y0 * y, 1), round(x1 * x, 1), round(y1 * y, 1)))
    return tuple(boxes)
