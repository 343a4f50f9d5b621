from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from ocrfleet import keys
from ocrfleet.errors import NotFoundError
from ocrfleet.markdown.style import Style, Tables
from ocrfleet.records.base import digest_of
from ocrfleet.records.documents import DocumentStatus, Output, Status
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import Submission, SubmissionOptions
from ocrfleet.storage.store import FolderStore
from producer.delivery.earlier_outputs import DocumentsByName
from producer.delivery.to_folder import deliver
from producer.errors import DeliveryError, OccupiedError


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def status(store: FolderStore, *, document: str = "0" * 32, **outputs: bytes) -> Status:
    """Store outputs, by format, and return the status that names them."""
    stored = {}
    for extension, data in outputs.items():
        digest = hashlib.sha256(data).hexdigest()
        key = keys.output(document, 1, digest, extension)
        store.put(key, data)
        stored[extension] = Output(key=key, sha256=digest, size=len(data))
    return Status(document=document, generation=1, status=DocumentStatus.COMPLETED, total=1, done=1, outputs=stored)


def submit(store: FolderStore, name: str, document: str) -> None:
    """Record that a document was submitted by a name."""
    submission = Submission(
        name=name,
        document=document,
        uri="file:///scans/a.pdf",
        submitted="20261101T000000.000000Z",
        terms=SubmissionOptions(profile_digest="0" * 64, queue=Priority.BULK, collection="run-0"),
    )
    key = keys.submission("run-0", submission.submitted, document, submission.digest)
    store.put(key, submission.to_bytes())


def files(folder: Path) -> set[str]:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {path for path in found if not path.startswith(".ocrfleet/")}


def test_each_output_is_a_file_under_the_name_that_was_chosen(store: FolderStore, tmp_path: Path) -> None:
    # When a document from a folder of a folder is delivered
    out = tmp_path / "out"
    delivered = deliver(store, status(store, md=b"# text", json=b"{}"), name="boxes/1874/letter.pdf", folder=out)

    # Then its text is where its name says, and nothing else is there
    assert delivered == [out / "boxes/1874/letter.pdf.md", out / "boxes/1874/letter.pdf.json"]
    assert [path.read_bytes() for path in delivered] == [b"# text", b"{}"]
    assert files(out) == {"boxes/1874/letter.pdf.md", "boxes/1874/letter.pdf.json"}


def test_a_name_with_bytes_that_are_no_text_is_kept(store: FolderStore, tmp_path: Path) -> None:
    (path,) = deliver(store, status(store, md=b"x"), name=os.fsdecode(b"K\xf6ln.pdf"), folder=tmp_path)

    assert os.fsencode(path.name) == b"K\xf6ln.pdf.md"


def test_a_file_that_is_the_same_is_left_alone(store: FolderStore, tmp_path: Path) -> None:
    # Given a document that was delivered an hour ago
    ended = status(store, md=b"text")
    (path,) = deliver(store, ended, name="a", folder=tmp_path / "out")
    os.utime(path, ns=(10**18, 10**18))
    before = path.stat()

    # When it is delivered again
    deliver(store, ended, name="a", folder=tmp_path / "out")

    # Then a program that watches for changes sees none
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert files(tmp_path / "out") == {"a.md"}


def test_an_output_that_a_person_corrected_is_not_overwritten(store: FolderStore, tmp_path: Path) -> None:
    # Given an output that was corrected without changing its size, and one that was not
    out = tmp_path / "out"
    (path, other) = deliver(store, status(store, md=b"text", json=b"{}"), name="a", folder=out)
    path.write_bytes(b"TEXT")

    # When the document is delivered again, as it was and in a later generation
    for md, json in ((b"text", b"{}"), (b"better", b"[]")):
        with pytest.raises(OccupiedError, match=r"a\.md can't be written: .*changed since"):
            deliver(store, status(store, md=md, json=json), name="a", folder=out)

        # Then the correction stands, and the other output is delivered all the same
        assert path.read_bytes() == b"TEXT"
        assert other.read_bytes() == json

    # And when it was moved away, the output comes
    path.rename(tmp_path / "corrected.md")
    deliver(store, status(store, md=b"better", json=b"[]"), name="a", folder=out)
    assert path.read_bytes() == b"better"


@pytest.mark.parametrize("taken", ["file", "link", "empty"])
def test_a_file_of_somebody_else_at_an_outputs_name_is_not_overwritten(
    store: FolderStore, tmp_path: Path, taken: str
) -> None:
    (tmp_path / "out").mkdir()
    place = tmp_path / "out" / "a.md"
    if taken == "link":
        (tmp_path / "notes").write_bytes(b"mine")
        place.symlink_to(tmp_path / "notes")
    else:
        place.write_bytes(b"mine" if taken == "file" else b"")
    before = place.read_bytes()

    with pytest.raises(OccupiedError):
        deliver(store, status(store, md=b"text"), name="a", folder=tmp_path / "out")

    assert place.read_bytes() == before
    assert place.is_symlink() == (taken == "link")


def test_what_was_delivered_before_is_replaced_by_another_text(store: FolderStore, tmp_path: Path) -> None:
    # Given a source that is overwritten twice, with the first version the second time
    for text in (b"first", b"second", b"first"):
        (path,) = deliver(store, status(store, md=text), name="a", folder=tmp_path / "out")
        assert path.read_bytes() == text


def test_a_reader_who_has_the_old_file_open_keeps_it(store: FolderStore, tmp_path: Path) -> None:
    # Given a reader that has read a part of the old text
    (path,) = deliver(store, status(store, md=b"the old text"), name="a", folder=tmp_path / "out")
    with path.open("rb") as reader:
        begun = reader.read(4)

        # When a new one is delivered
        deliver(store, status(store, md=b"new"), name="a", folder=tmp_path / "out")

        # Then the reader sees one of them whole
        assert begun + reader.read() == b"the old text"
    assert path.read_bytes() == b"new"


def test_files_of_others_are_left_alone(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")

    deliver(store, status(store, md=b"x"), name="a", folder=tmp_path / "out")

    assert files(tmp_path / "out") == {"notes.txt", "a.md"}


@pytest.mark.parametrize("in_the_way", ["out", "out/a", "out/a/b.md/"])
def test_an_obstacle_in_the_folder_is_an_error_that_names_the_file(
    store: FolderStore, tmp_path: Path, in_the_way: str
) -> None:
    # Given a file where a folder should be, or a folder where the file should be
    obstacle = tmp_path / in_the_way
    if in_the_way.endswith("/"):
        obstacle.mkdir(parents=True)
    else:
        obstacle.parent.mkdir(parents=True, exist_ok=True)
        obstacle.write_bytes(b"precious")

    # When a document is delivered there
    with pytest.raises(DeliveryError, match=r"b\.md can't be written"):
        deliver(store, status(store, md=b"x"), name="a/b", folder=tmp_path / "out")

    # Then the obstacle is as it was, and nothing half-written is left
    assert obstacle.is_dir() if in_the_way.endswith("/") else obstacle.read_bytes() == b"precious"
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_not_be_written_is_an_error(store: FolderStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o500)

    with pytest.raises(DeliveryError, match="Permission denied"):
        deliver(store, status(store, md=b"x"), name="a", folder=out)


def test_a_full_disk_is_named_and_leaves_no_half_file(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, out = status(store, md=b"x"), tmp_path / "out"

    def copy(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", copy)
    with pytest.raises(DeliveryError, match=r"a\.md can't be written: No space left on device"):
        deliver(store, ended, name="a", folder=out)
    assert list(out.iterdir()) == []


def test_a_document_with_the_longest_name_is_delivered(store: FolderStore, tmp_path: Path) -> None:
    # Given a source whose name is as long as file systems allow
    name = "n" * 251 + ".pdf"
    (tmp_path / name).write_bytes(b"")

    # Then its text can be written under any name
    (path,) = deliver(store, status(store, md=b"x"), name=name, folder=tmp_path / "out")
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize("letter", ["\u00e9", "\u0416", "\u8a9e", "\U0001f4d6"])
def test_a_long_name_is_cut_between_two_letters_and_alike_for_all_formats(
    store: FolderStore, tmp_path: Path, letter: str
) -> None:
    # Given a source whose name leaves no room for an extension, in letters of two to four bytes
    name = "a" + letter * (250 // len(letter.encode())) + ".pdf"

    # Then its files have one stem, of whole letters
    markdown, as_json = deliver(store, status(store, md=b"x", json=b"{}"), name=name, folder=tmp_path / "out")
    assert markdown.stem == as_json.stem
    assert set(markdown.stem.partition("~")[0]) == {"a", letter}


# ---- styles

TABLE = b"<!-- page 1 -->\n\n<table>\n<tr><td>a</td></tr>\n</table>\n\ncom-\npound\n\n"


def test_the_markdown_is_delivered_in_the_style_that_was_chosen(store: FolderStore, tmp_path: Path) -> None:
    # Given a document whose text was delivered as it is stored
    ended = status(store, md=TABLE, json=b"com-\npound")
    markdown, as_json = deliver(store, ended, name="a", folder=tmp_path / "out")
    assert markdown.read_bytes() == TABLE

    # When it is delivered in another style, then the Markdown is in that, and what is stored is as it was
    style = Style(tables=Tables.MARKDOWN, join_hyphens=True)
    deliver(store, ended, name="a", folder=tmp_path / "out", style=style)
    assert markdown.read_bytes() == b"<!-- page 1 -->\n\n| a |\n| --- |\n\ncompound\n\n"
    assert as_json.read_bytes() == b"com-\npound"
    assert store.get(ended.outputs["md"].key) == TABLE

    # And when it is again, then it is left alone; and it can be had as it is stored
    os.utime(markdown, ns=(10**18, 10**18))
    deliver(store, ended, name="a", folder=tmp_path / "out", style=style)
    assert markdown.stat().st_mtime_ns == 10**18
    deliver(store, ended, name="a", folder=tmp_path / "out")
    assert markdown.read_bytes() == TABLE


STYLES = [Style(tables=tables, join_hyphens=join) for tables in Tables for join in (False, True)]


@pytest.mark.parametrize("document", ["0" * 32, "1" * 32], ids=["retried", "source replaced"])
@pytest.mark.parametrize("style", STYLES, ids=str)
def test_what_a_version_delivered_that_recorded_nothing_is_replaced(
    store: FolderStore, tmp_path: Path, style: Style, document: str
) -> None:
    # Given outputs of an earlier version, in any style, and one that a person corrected
    out = tmp_path / "out"
    before = status(store, md=TABLE, docx=b"word")
    markdown, word = deliver(store, before, name="a", folder=out, style=style)
    (corrected,) = deliver(store, status(store, md=TABLE), name="b", folder=out, style=style)
    corrected.write_bytes(b"corrected")
    for name in ("a", "b"):
        submit(store, name, before.document)
    shutil.rmtree(out / ".ocrfleet")

    # When a later generation of the document is delivered, or another document that has its name now
    named, ended = DocumentsByName(store), status(store, document=document, md=b"better\n", docx=b"better word")
    deliver(store, ended, name="a", folder=out, style=style, named=named)
    with pytest.raises(OccupiedError, match=r"b\.md"):
        deliver(store, ended, name="b", folder=out, style=style, named=named)

    # Then it replaces them, and not the correction
    assert markdown.read_bytes() == b"better\n"
    assert word.read_bytes() == b"better word"
    assert corrected.read_bytes() == b"corrected"


def test_a_style_changes_no_other_byte(store: FolderStore, tmp_path: Path) -> None:
    # Given every character that some program takes for the end of a line
    text = "a\x0bb\u2028c\u0085d\re\n\nf\n".encode()

    (path,) = deliver(store, status(store, md=text), name="a", folder=tmp_path, style=Style(join_hyphens=True))

    assert path.read_bytes() == text


# ---- pictures

NAME = "000001-01-0123456789ab.jpg"
FOLDER = f"figures/{'0' * 32}"


def with_pictures(store: FolderStore, *names: str) -> Status:
    text = "".join(f"![a](figures/{'0' * 32}/{name})\n\n" for name in names)
    return status(store, md=text.encode()).model_copy(update={"figures": len(names)})


def test_pictures_lie_beside_the_text_that_shows_them(store: FolderStore, tmp_path: Path) -> None:
    # Given a document with a picture, and one of another attempt at the page that its text doesn't show
    store.put(keys.figure("0" * 32, NAME), b"picture")
    store.put(keys.figure("0" * 32, "000001-01-ffffffffffff.jpg"), b"other")

    # When it is delivered
    (path,) = deliver(store, with_pictures(store, NAME), name="box/a.pdf", folder=tmp_path / "out")

    # Then the link leads from the text to the picture
    assert files(tmp_path / "out") == {"box/a.pdf.md", f"box/{FOLDER}/{NAME}"}
    assert (path.parent / FOLDER / NAME).read_bytes() == b"picture"
    assert f"({FOLDER}/{NAME})".encode() in path.read_bytes()


def test_a_picture_that_is_the_same_is_left_alone_and_a_changed_one_is_not_overwritten(
    store: FolderStore, tmp_path: Path
) -> None:
    store.put(keys.figure("0" * 32, NAME), b"picture")
    ended = with_pictures(store, NAME)
    deliver(store, ended, name="a", folder=tmp_path / "out")
    picture = tmp_path / "out" / FOLDER / NAME
    os.utime(picture, ns=(10**18, 10**18))

    deliver(store, ended, name="a", folder=tmp_path / "out")
    assert picture.stat().st_mtime_ns == 10**18

    picture.write_bytes(b"PICTURE")
    with pytest.raises(OccupiedError):
        deliver(store, ended, name="a", folder=tmp_path / "out")
    assert picture.read_bytes() == b"PICTURE"


def test_a_text_is_not_delivered_without_its_pictures(store: FolderStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=NAME):
        deliver(store, with_pictures(store, NAME), name="a", folder=tmp_path / "out")

    assert files(tmp_path / "out") == set()


def test_a_picture_that_can_not_be_written_is_an_error(store: FolderStore, tmp_path: Path) -> None:
    store.put(keys.figure("0" * 32, NAME), b"picture")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "figures").write_bytes(b"precious")

    with pytest.raises(DeliveryError, match="can't be written"):
        deliver(store, with_pictures(store, NAME), name="a", folder=tmp_path / "out")

    assert files(tmp_path / "out") == {"figures"}


# ---- links


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """Return a file outside of the output folder, which a planted link leads to."""
    path = tmp_path / "precious"
    path.write_bytes(b"precious")
    return path


def test_no_name_of_an_unfinished_file_can_be_foreseen(
    store: FolderStore, tmp_path: Path, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given links at the name that earlier versions took, and at the next random name
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr("secrets.token_hex", lambda _: "foreseen")
    for name in (f".{digest_of('a.md')[:16]}.part", ".foreseen.part"):
        (out / name).symlink_to(precious)

    # When a document is delivered, then what is there already is not opened
    with pytest.raises(DeliveryError, match="File exists"):
        deliver(store, status(store, md=b"text"), name="a", folder=out)
    monkeypatch.undo()
    deliver(store, status(store, md=b"text"), name="a", folder=out)

    assert precious.read_bytes() == b"precious"
    assert (out / "a.md").read_bytes() == b"text"


def test_a_linked_folder_below_the_output_folder_is_an_error(store: FolderStore, tmp_path: Path) -> None:
    # Given a link to a folder elsewhere
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "box").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(DeliveryError, match="'box' is a file or a link"):
        deliver(store, status(store, md=b"x"), name="box/a", folder=tmp_path / "out")

    assert files(tmp_path / "elsewhere") == set()


def test_the_output_folder_itself_may_be_a_link(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")

    deliver(store, status(store, md=b"x"), name="box/a", folder=tmp_path / "out")

    assert files(tmp_path / "elsewhere") == {"box/a.md"}


def test_a_named_pipe_does_not_make_it_wait(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "a.md")

    with pytest.raises(OccupiedError):
        deliver(store, status(store, md=b"x"), name="a", folder=tmp_path / "out")
