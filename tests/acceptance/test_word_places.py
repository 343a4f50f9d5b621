"""Words of a model's text in their places, from outside: `OCRFLEET_WORD_FINDERS`."""

from __future__ import annotations

import io
import zipfile

from lxml import etree
from PIL import Image

from tests.support.desk import Desk
from tests.support.engine_contract import PARAGRAPHS, printed
from tests.support.fakes.chat_server import ChatServer, says


def test_words_that_a_model_writes_stand_where_they_are_printed(desk: Desk) -> None:
    # Given a page, and a model that writes paragraphs on one line and misreads a letter
    Image.fromarray(printed().pixels).save(desk.scans / "a.png")
    text = "\n\n".join(" ".join(lines) for lines in PARAGRAPHS)
    with ChatServer(script=[says("the ferry left at nine"), says(text)]) as server:
        # When it is read with word finders
        settings = {"OCRFLEET_OPENAI_BASE_URL": server.url, "OCRFLEET_WORD_FINDERS": "1"}
        arguments = ("--engine", "openai", "--workers", "1", "--formats", "alto")
        result = desk.run("run", "in", "-o", "out", *arguments, environment=settings)
    assert result.returncode == 0, result.stderr

    # Then each word of the text has its own place
    with zipfile.ZipFile(io.BytesIO(desk.outputs()["a.png.alto.zip"])) as archive:
        root = etree.fromstring(archive.read("000001.xml"))
    words = list(root.iter("{*}String"))
    assert [word.get("CONTENT") for word in words] == text.split()
    assert not [word for word in words if word.get("TAGREFS")]
    assert len({(word.get("HPOS"), word.get("VPOS")) for word in words}) == len(words)
    assert len(list(root.iter("{*}TextLine"))) == sum(map(len, PARAGRAPHS))
