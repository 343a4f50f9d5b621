"""Pages with a known text, and degraded variants of them, for bench/confidence.py.

Ground truths of the corpus, the sample documents, drawn pages in sixteen languages, and folders of PAGE XML beside images, such as those of
OCR-D/gt_structure_text and impresso/NZZ-black-letter-ground-truth on GitHub. Variants are made from the page image, so that
both engines get the same input.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import tempfile
import unicodedata
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rapidfuzz.distance import Levenshtein
from rapidfuzz.fuzz import partial_ratio_alignment

from bench.accuracy import KINDS, MAX_PIXELS, Truth, best_window, normalised, truths
from ocrfleet.profiles.profile import RAPIDOCR
from producer.samples.files import SAMPLES, truth, write_samples
from worker.imaging.page_image import PageImage
from worker.rendering.pool import RenderPool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

#: Modern equivalents of characters in old print and its transcriptions.
_TODAY = str.maketrans({"\N{COMBINING LATIN SMALL LETTER E}": "\N{COMBINING DIAERESIS}", "ꝛ": "r", "⸗": "-", "¬": "-"})
#: Article 1 of the Universal Declaration of Human Rights.
_ARTICLE = {
    "Cyrillic, Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и должны поступать в отношении друг друга в духе братства.",  # noqa: RUF001
    "Cyrillic, Ukrainian": "Всі люди народжуються вільними і рівними у своїй гідності та правах. Вони наділені розумом і совістю і повинні діяти у відношенні один до одного в дусі братерства.",  # noqa: RUF001
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι προικισμένοι με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα αδελφοσύνης.",  # noqa: RUF001
    "Armenian": "Բոլոր մարդիկ ծնվում են ազատ ու հավասար՝ իրենց արժանապատվությամբ և իրավունքներով։ Նրանք օժտված են բանականությամբ ու խղճով, և պարտավոր են միմյանց նկատմամբ վարվել եղբայրության ոգով։",  # noqa: RUF001
    "Georgian": "ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით. მათ მინიჭებული აქვთ გონება და სინდისი და ერთმანეთის მიმართ უნდა იქცეოდნენ ძმობის სულისკვეთებით.",
    "Hebrew": "כל בני אדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון, לפיכך חובה עליהם לנהוג איש ברעהו ברוח של אחוה.",
    "Arabic": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا وعليهم أن يعامل بعضهم بعضا بروح الإخاء.",
    "Devanagari": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ",
    "Vietnamese": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi. Mọi con người đều được tạo hoá ban cho lý trí và lương tâm và cần phải đối xử với nhau trong tình anh em.",
    "Polish": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem i sumieniem i powinni postępować wobec innych w duchu braterstwa.",
    "Czech": "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Jsou nadáni rozumem a svědomím a mají spolu jednat v duchu bratrství.",
    "Turkish": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler.",  # noqa: RUF001
    "Spanish": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y conciencia, deben comportarse fraternalmente los unos con los otros.",
    "Swedish": "Alla människor är födda fria och lika i värde och rättigheter. De är utrustade med förnuft och samvete och bör handla gentemot varandra i en anda av broderskap.",
    "English": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and should act towards one another in a spirit of brotherhood.",
}
_FONT = "/usr/share/fonts/truetype/{}"
#: Fonts of Debian's fonts-freefont-ttf and fonts-dejavu; DejaVu has no Devanagari and no Thai.
_FONTS = ("freefont/FreeSerif.ttf", "dejavu/DejaVuSans.ttf")
_WITHOUT_DEJAVU = ("Devanagari", "Thai")


@dataclass(frozen=True, slots=True)
class KnownPage:
    """A page with a known text."""

    #: document; its pages are in the same fold of a cross-validation
    document: str
    page: int
    variant: str
    image: PageImage
    truth: str
    #: for a handwritten page: sentences that must occur in the text
    facts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.document}.{self.page}.{self.variant}"

    def cer(self, text: str) -> float:
        """Return the character error rate of a reading: edit distance divided by the length of the truth; it may exceed 1.

        Lines in another order count as errors.
        """
        read = today(text)
        if self.facts:
            facts = [today(fact) for fact in self.facts]
            wrong = sum(Levenshtein.distance(fact, best_window(fact, read)) for fact in facts)
            return wrong / sum(map(len, facts))
        truth = today(self.truth)
        return Levenshtein.distance(truth, read) / max(len(truth), 1)

    def cer_in_any_order(self, text: str) -> float:
        """Return the same rate, independent of the order of lines.

        Each line of the truth, longest first, is aligned with the most similar remaining part of the reading. The rest of the
        reading counts as insertions. (After the flexible character accuracy of Clausner, Pletschacher and Antonacopoulos, 2020.)
        """
        if self.facts:
            return self.cer(text)
        lines = sorted(filter(None, map(today, self.truth.splitlines())), key=len, reverse=True)
        left, wrong = today(text), 0
        for line in lines:
            part = partial_ratio_alignment(line, left) if left else None
            if part is None:
                wrong += len(line)
                continue
            # If the line is longer than the rest of the reading, align the rest within the line.
            begin, end = (part.dest_start, part.dest_end) if len(line) <= len(left) else (0, len(left))
            distance = Levenshtein.distance(line, left[begin:end])
            if distance >= len(line) / 2:
                wrong += len(line)
                continue
            wrong += distance
            left = f"{left[:begin].rstrip()} {left[end:].lstrip()}".strip()
        in_any_order = (wrong + sum(not sign.isspace() for sign in left)) / max(sum(map(len, lines)), 1)
        return min(in_any_order, self.cer(text))


def today(text: str) -> str:
    return normalised(unicodedata.normalize("NFD", text).translate(_TODAY))


def _blurred(sigma: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: _bytes(cv2.GaussianBlur(pixels, (0, 0), sigma * max(pixels.shape) / 2500))


def _noisy(deviation: float) -> Callable[[Pixels], Pixels]:
    def noisy(pixels: Pixels) -> Pixels:
        noise = np.random.default_rng(1).normal(0, deviation, (*pixels.shape[:2], 1))
        return _bytes(np.clip(pixels + noise, 0, 255))

    return noisy


def _smaller(long_side: int) -> Callable[[Pixels], Pixels]:
    def smaller(pixels: Pixels) -> Pixels:
        share = min(long_side / max(pixels.shape), 1)
        return _bytes(cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA))

    return smaller


def _faint(pixels: Pixels) -> Pixels:
    noise = np.random.default_rng(2).normal(0, 7, (*pixels.shape[:2], 1))
    return _bytes(np.clip(225 + (pixels.astype(np.float64) - 255) * 0.12 + noise, 0, 255))


def _jpeg(pixels: Pixels) -> Pixels:
    small = _smaller(1300)(pixels)
    packed = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 8])[1]
    return _bytes(cv2.imdecode(packed, cv2.IMREAD_COLOR))


def _heavy(pixels: Pixels) -> Pixels:
    size = max(round(5 * max(pixels.shape) / 2500), 2)
    return _bytes(cv2.erode(pixels, np.ones((size, size), np.uint8)))


def _bytes(pixels: object) -> Pixels:
    return np.ascontiguousarray(np.asarray(pixels).astype(np.uint8))


VARIANTS: dict[str, Callable[[Pixels], Pixels]] = {
    "plain": lambda pixels: pixels,
    "blur-2": _blurred(2),
    "blur-5": _blurred(5),
    "noise-60": _noisy(60),
    "noise-130": _noisy(130),
    "small-900": _smaller(900),
    "small-550": _smaller(550),
    "faint": _faint,
    "jpeg": _jpeg,
    "heavy": _heavy,
}


def known_pages(corpus: Path, page_xml: list[Path]) -> Iterator[KnownPage]:
    """Yield all pages with their variants: all for the corpus and the samples, some for other pages."""
    variants = list(VARIANTS)
    for number, page in enumerate(_plain_pages(corpus, page_xml)):
        chosen = variants
        if page.document.startswith(("xml-", "sample-")) or page.document.startswith("drawn-"):
            chosen = ["plain", variants[1 + number % (len(variants) - 1)]]
        for variant in chosen:
            image = PageImage(
                pixels=VARIANTS[variant](page.image.pixels),
                width_pt=page.image.width_pt,
                height_pt=page.image.height_pt,
            )
            yield KnownPage(page.document, page.page, variant, image, page.truth, page.facts)


def _plain_pages(corpus: Path, page_xml: list[Path]) -> Iterator[KnownPage]:
    files = [(f"corpus-{truth.name}", truth) for truth in truths(corpus)]
    files += [found for folder in page_xml for found in _transcribed(folder)]
    samples = Path(tempfile.mkdtemp())
    for name, path in zip(SAMPLES, write_samples(samples), strict=True):
        texts = truth(name)
        sample = Truth(path.stem, path, KINDS[path.suffix], len(texts), (), "\f".join(texts), ())
        files.append((f"sample-{name.partition('/')[0]}", sample))
    pool = RenderPool(1, memory=2 << 30, max_pixels=MAX_PIXELS)
    try:
        pages: Counter[str] = Counter()
        for document, known in files:
            texts = known.text.split("\f") if known.pages > 1 else [known.text]
            for page, text in enumerate(texts[: known.pages]):
                pages[document] += 1
                image = asyncio.run(_rendered(pool, known, page))
                yield KnownPage(document, pages[document], "plain", image, text, known.facts)
    finally:
        pool.close()
        shutil.rmtree(samples)
    yield from drawn_pages()


async def _rendered(pool: RenderPool, truth: Truth, page: int) -> PageImage:
    fd = os.open(truth.path, os.O_RDONLY)
    try:
        key = hashlib.sha256(str(truth.path).encode()).hexdigest()
        return await pool.render(key, fd, truth.kind, page, RAPIDOCR.render, passwords=truth.passwords, deadline=120)
    finally:
        os.close(fd)


def _transcribed(folder: Path) -> Iterator[tuple[str, Truth]]:
    for path in sorted(folder.glob("*.xml")):
        image = next((path.with_suffix(suffix) for suffix in KINDS if path.with_suffix(suffix).is_file()), None)
        if image is not None:
            book = re.sub(r"_\d{4}(_\w)?$", "", path.stem)
            truth = Truth(path.stem, image, KINDS[image.suffix], 1, (), page_xml_text(path), ())
            yield f"xml-{book}", truth


def page_xml_text(path: Path) -> str:
    """Return the lines of a PAGE XML file, with regions in its reading order."""
    root = ET.parse(path).getroot()  # noqa: S314 - ground truth that the user names
    space = root.tag.partition("}")[0] + "}"
    order = {ref.get("regionRef"): n for n, ref in enumerate(root.iter(f"{space}RegionRefIndexed"))}
    regions = [region for region in root.iter(f"{space}TextRegion") if region.find(f"{space}TextLine") is not None]
    regions.sort(key=lambda region: order.get(region.get("id"), len(order)))
    lines = (line for region in regions for line in region.findall(f"{space}TextLine"))
    texts = (line.find(f"{space}TextEquiv/{space}Unicode") for line in lines)
    return "\n".join((text.text or "") for text in texts if text is not None)


def drawn_pages() -> Iterator[KnownPage]:
    """Yield one page of fifteen lines per language."""
    for number, (language, article) in enumerate(_ARTICLE.items()):
        font_name = _FONTS[0 if language in _WITHOUT_DEJAVU else number % 2]
        font = ImageFont.truetype(_FONT.format(font_name), 44)
        sheet = Image.new("RGB", (1654, 2339), "white")
        draw = ImageDraw.Draw(sheet)
        lines: list[str] = []
        for word in (article + " ").split(" ") * 2 if " " in article else [article]:
            if not lines or draw.textlength(f"{lines[-1]} {word}", font) > 1250:
                lines.append(word)
            elif word:
                lines[-1] += f" {word}"
        for row, line in enumerate(lines):
            right = language in {"Hebrew", "Arabic"}
            draw.text(
                (1454 if right else 200, 250 + 90 * row),
                line,
                fill=(25, 25, 25),
                font=font,
                anchor="ra" if right else "la",
            )
        image = PageImage(pixels=np.asarray(sheet).copy(), width_pt=595.0, height_pt=842.0)
        yield KnownPage(f"drawn-{language.replace(', ', '-')}", 1, "plain", image, "\n".join(lines))
