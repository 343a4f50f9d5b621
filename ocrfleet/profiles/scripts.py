"""Scripts that the default engine lacks, and the Tesseract models that read them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Script:
    """A script. Names of models are Tesseract's; Debian's package of a language is named after it."""

    name: str
    #: models of languages, the most frequent language first; () where Tesseract has none
    languages: tuple[str, ...] = ()
    #: the first word of its letters' names in Unicode
    unicode: str = ""

    @property
    def model(self) -> str:
        """The name of Tesseract's model of the whole script."""
        return {"Odia": "Oriya", "Latin with further marks": "Latin"}.get(self.name, self.name).replace(" ", "_")

    @property
    def package(self) -> str | None:
        """The Debian package that is enough to read it; None where there is no model."""
        return f"tesseract-ocr-{self.languages[0].replace('_', '-')}" if self.languages else None

    @property
    def remedy(self) -> str:
        """What a person can do about a page in this script."""
        if self.package is None:
            return "no engine here reads it"
        return (
            f"install Tesseract's model (apt install tesseract-ocr {self.package}), then try again with --retry-failed"
        )


#: The names are Unicode's, but for the letters with marks that Latin needs in Vietnamese and in transliterations.
SCRIPTS = {
    script.name: script
    for script in (
        Script("Arabic", ("ara", "fas", "urd", "pus", "uig", "snd"), "ARABIC"),
        Script("Armenian", ("hye",), "ARMENIAN"),
        Script("Bengali", ("ben", "asm"), "BENGALI"),
        Script("Canadian Aboriginal", ("iku",), "CANADIAN"),
        Script("Cherokee", ("chr",), "CHEROKEE"),
        Script("Cyrillic", ("rus", "ukr", "bul", "srp", "bel", "mkd"), "CYRILLIC"),
        Script("Devanagari", ("hin", "mar", "nep", "san"), "DEVANAGARI"),
        Script("Ethiopic", ("amh", "tir"), "ETHIOPIC"),
        Script("Georgian", ("kat",), "GEORGIAN"),
        Script("Greek", ("ell", "grc"), "GREEK"),
        Script("Gujarati", ("guj",), "GUJARATI"),
        Script("Gurmukhi", ("pan",), "GURMUKHI"),
        Script("Hangul", ("kor",), "HANGUL"),
        Script("Hebrew", ("heb", "yid"), "HEBREW"),
        Script("Kannada", ("kan",), "KANNADA"),
        Script("Khmer", ("khm",), "KHMER"),
        Script("Lao", ("lao",), "LAO"),
        Script("Latin with further marks", ("yor", "vie"), "LATIN"),
        Script("Malayalam", ("mal",), "MALAYALAM"),
        Script("Myanmar", ("mya",), "MYANMAR"),
        Script("Odia", ("ori",), "ORIYA"),
        Script("Sinhala", ("sin",), "SINHALA"),
        Script("Syriac", ("syr",), "SYRIAC"),
        Script("Tamil", ("tam",), "TAMIL"),
        Script("Telugu", ("tel",), "TELUGU"),
        Script("Thaana", ("div",), "THAANA"),
        Script("Thai", ("tha",), "THAI"),
        Script("Tibetan", ("bod", "dzo"), "TIBETAN"),
        Script("Vietnamese", ("vie",), "LATIN"),
    )
}
#: Any script that Tesseract has no model of.
OTHER = Script("another script")
