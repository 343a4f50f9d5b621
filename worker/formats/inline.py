"""Clean the inline Markdown of a model, such as links, tags and formulas, and convert it to plain text.

Every pattern takes linear time: it is possessive, or can't match beyond the next position where it could begin.
"""

from __future__ import annotations

import html
import re

from ocrfleet.markdown import latex
from ocrfleet.markdown.escape import INLINE_FORMULA

#: A Markdown link or image: text, target, title.
_LINK = re.compile(r"(!?)\[([^\[\]\n]*+)\]\(\s*+([^()\s]*+)(?:\s++\"[^\"()\n]*+\")?+\s*+\)")
#: What could still be one, or the definition of one; and what could open a tag: with the backslashes before it.
_OPENING = re.compile(r"(?<!\\)(\\*+)(<|\](?=[(\[:]))")
_ENTITIES = {"<": "&lt;", "]": "&#93;"}
#: What could open a block of code, and swallow what follows: readers don't agree on where one opens.
_FENCE = re.compile(r"(?<!\\)(\\*+)(`{3,}+|~{3,}+)")

_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_STRONG = re.compile(r"(?<![\\*])(\*{1,3}+)(?![\s*])([^*\n]++)(?<![\s\\])\1(?!\*)")
_UNDERLINED = re.compile(r"(?<![\\\w])(_{1,3}+)(?![\s_])([^_\n]++)(?<![\s\\])\1(?!\w)")
_CODE = re.compile(r"(?<![\\`])`(?!`)([^`\n]++)`(?!`)")

_SUPERSCRIPTS = str.maketrans("0123456789+-=()", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾")
_SUBSCRIPTS = str.maketrans("0123456789+-=()", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎")
_RAISABLE = re.compile(r"[0-9+=()-]+")


def script(name: str, text: str) -> str:
    """Return the text of a <sup> or <sub>: in Unicode's superscript digits, as plain letters, or in brackets."""
    words = " ".join(text.split())
    if _RAISABLE.fullmatch(words):
        return words.translate(_SUPERSCRIPTS if name == "sup" else _SUBSCRIPTS)
    if words.replace(".", "").isalpha():  # 4<sup>th</sup>, M<sup>me</sup>
        return words
    return f"{'^' if name == 'sup' else '_'}({words})" if words else ""


def without_links(text: str) -> str:
    """Replace links by their text, with the target in brackets if it adds something, and images by their text."""

    def words(match: re.Match[str]) -> str:
        picture, label, target = match.groups()
        if picture or not target or target.startswith("#") or target.removeprefix("mailto:") in label:
            return label
        return f"{label} ({target})"

    return _LINK.sub(words, text)


def clean(text: str) -> str:
    """Return a paragraph's Markdown in which nothing can be a tag, a link, a fence, or a command of LaTeX that does something.

    Characters that could begin one become entities, also those that a backslash escaped.
    """
    text = latex.shown(text)
    if "<" in text:
        text = text.replace("`", "&#96;")  # within code, entities are shown literally
    text = _OPENING.sub(lambda match: _even(match[1]) + _ENTITIES[match[2]], text)
    return _FENCE.sub(lambda match: _even(match[1]) + f"&#{ord(match[2][0])};" * len(match[2]), text)


def _even(backslashes: str) -> str:
    return backslashes[len(backslashes) % 2 :]


def tex(text: str) -> str:
    """Return LaTeX on one line, without characters that Markdown or HTML would interpret."""
    text = " ".join(unescape(text).split())
    text = re.sub(r"(?<!\\)((?:\\\\)*+)\$", r"\1", text)  # a formula within a formula
    text = re.sub(r"(?<!\\)((?:\\\\)*+)%", r"\1\\%", text)  # a comment would reach to the end of the line now
    text = latex.inert(text)
    text = re.sub("< ?", r"\\lt ", text).replace("](", "] (").replace("][", "] [").replace("]:", "] :").rstrip()
    return text[
        : len(text) - (len(text) - len(text.rstrip("\\"))) % 2
    ]  # a trailing backslash would escape the closing dollar sign


def plain(markdown: str) -> str:
    """Return cleaned Markdown as plain text. Formulas stay LaTeX between dollar signs."""
    if "$" not in markdown:
        return _words(markdown)
    pieces, end = [], 0
    for formula in INLINE_FORMULA.finditer(markdown):
        pieces += [_words(markdown[end : formula.start()]), formula[0]]
        end = formula.end()
    return "".join([*pieces, _words(markdown[end:])])


def _words(text: str) -> str:
    # Most texts have none of these signs, and searching for one takes a tenth of the time of its pattern.
    for sign, marks in (("*", _STRONG), ("_", _UNDERLINED)):
        if sign in text:
            text = marks.sub(r"\2", text)
    if "`" in text:
        text = _CODE.sub(r"\1", text)
    if "\\" in text:
        text = _ESCAPE.sub(r"\1", text)
    return unescape(text) if "&" in text else text


def unescape(text: str) -> str:
    """Replace entities by their characters, except entities of control characters."""

    def character(match: re.Match[str]) -> str:
        found = html.unescape(match[0])
        return found if found.isprintable() or found in "\u00a0\u00ad" else match[0]

    return _ENTITY.sub(character, text)
