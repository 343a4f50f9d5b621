"""What stands on the sample documents: texts of our own, in reading order, for drawing them and for checking what was read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sheet:
    """A page in reading order: a heading across, the text in one column or two, a foot across the bottom.

    Paragraphs are parted by empty lines; other line breaks mean nothing.
    """

    heading: str
    text: str
    right_column: str = ""
    foot: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.text, self.right_column) if self.right_column else (self.text,)

    @property
    def passages(self) -> tuple[str, ...]:
        body = (paragraph for column in self.columns for paragraph in paragraphs(column))
        return (self.heading, *body, *filter(None, [self.foot]))


def paragraphs(column: str) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in column.split("\n\n")]


@dataclass(frozen=True)
class Ledger:
    """A page that is a ruled table: `rows[0]` names its columns, the last row is the sum."""

    heading: str
    rows: tuple[tuple[str, str, str, str], ...]

    @property
    def passages(self) -> tuple[str, ...]:
        return (self.heading, *(cell for row in self.rows for cell in row if cell))


LETTER = (
    Sheet(
        "A Letter from the Archive",
        """
Dear reader,

You asked how many pages we keep. Nobody knows. The cellar holds four hundred boxes, the attic holds the boxes that
did not fit in the cellar, and the stairs hold the rest. We count them every spring, and every spring the number is
larger.

Last year we began to turn the paper into text. A page is photographed, a machine reads it, and a person looks over
the places where the machine was not sure. What took a month of evenings now takes a lunch break, and the soup is
still warm when the last page is done.

The machines are not clever, but there are many of them and they do not mind the dust. When one of them stops,
another picks up its page and carries on.
""",
    ),
    Sheet(
        "What We Ask of You",
        """
Please send whole documents rather than single sheets. A page without its neighbours is like a voice from the next
room: one hears the words and misses the story.

If a page cannot be read, we say so. We never leave it out in silence, because a gap that nobody knows about is
worse than a gap with a label on it.

The ferry ledgers are open to everybody. Begin with the summer of the great fog, when the ferry crossed the harbour
twice in one morning without finding the other side.

With kind regards,

The keeper of the stairs
""",
    ),
)

SCAN = (
    Sheet(
        "Rules for the Reading Room",
        """
Hands shall be washed before a book is opened, and again after it is closed, for the sake of the next book and of
your supper.

Pencils are welcome. Ink is not. Whoever brings a bottle of ink into the room shall drink it in the presence of the
librarian.

A page is to be turned by its upper corner, slowly, as one would lift the blanket from a sleeping child. Pages that
were turned in haste are listed on the wall, with the names of those who did it.

Conversation is permitted on two subjects, the weather and the catalogue, and must end when either of them changes.
""",
    ),
    Sheet(
        "Rules for the Librarian",
        """
The librarian opens the shutters at eight and winds the clock. If the clock has stopped, the librarian shall guess,
and the town will follow.

Every book that leaves the room is written down, together with the promise that was made. Every book that comes back
is thanked in private.

The lamp in the map room burns all night. It was lit for a captain who wished to find an island, and he has not yet
sent word that he found it.

Should a reader ask for a book that does not exist, the librarian shall ask for a description.
""",
    ),
)

TWO_COLUMNS = (
    Sheet(
        "How a Page Becomes Text",
        """
First, a clerk takes the sheet out of its box and blows away the dust. This is the only step that makes anybody
sneeze.

Second, the sheet is laid under the lens. The light must fall evenly, or the left half will look like noon and the
right half like evening.

Third, the picture joins a queue. It waits there with all the other pictures, and none of them can push ahead unless
somebody is waiting at the counter.
""",
        right_column="""
Fourth, a machine takes the picture and finds the lines, as a gardener finds the rows after winter.

Fifth, the machine reads each line aloud to itself. It is often right, and it says how sure it is, which is more
than most of us do.

Sixth, the words are put in order: this column only after the other one. If you have read straight across,
the gardener is now under the lens and the clerk is sneezing at the rows.
""",
        foot="Note: a footnote is read last, although the eye falls upon it first. "
        "The clerk has since been given a handkerchief.",
    ),
)

LEDGER = (
    Ledger(
        "Harbour Ferry, Summer 1874",
        (
            ("Day", "Passenger", "Carried", "Pence"),
            ("1 June", "Widow Marsh", "two geese", "14"),
            ("1 June", "The schoolmaster", "a globe", "9"),
            ("2 June", "Brothers Hale", "one piano", "60"),
            ("2 June", "Brothers Hale", "the same piano", "60"),
            ("3 June", "Doctor Finch", "a black bag", "8"),
            ("4 June", "Nobody", "fog", "0"),
            ("5 June", "The baker", "forty loaves", "22"),
            ("5 June", "Nine gulls", "thirty loaves", "0"),
            ("", "Carried forward", "", "173"),
        ),
    ),
    Ledger(
        "Harbour Ferry, Continued",
        (
            ("Day", "Passenger", "Carried", "Pence"),
            ("", "Brought forward", "", "173"),
            ("6 June", "A bride", "flowers", "12"),
            ("6 June", "The groom", "a ladder", "15"),
            ("7 June", "Captain Rowe", "a folded map", "8"),
            ("8 June", "The mayor", "a long speech", "31"),
            ("8 June", "Widow Marsh", "three geese", "17"),
            ("9 June", "Brothers Hale", "piano stool", "10"),
            ("", "Total", "", "266"),
        ),
    ),
)

NOTICE = (
    Sheet(
        "Please Do Not Feed the Cat",
        """
The archive cat has had her breakfast.

She has also had yours.

She will tell you otherwise. Do not believe her: every meal of the last nine years has been digitised and may be
looked up at the counter.
""",
        foot="By order of the keeper",
    ),
)

BOOK = {
    "book/page-1.png": Sheet(
        "The Lighthouse Library",
        """
On the outermost rock of the bay stood a lighthouse with eleven lamps and nine thousand books. The keeper read one
book each night, and when the story was sad the ships could tell, because the light went round a little slower.
""",
        foot="Page 1",
    ),
    "book/page-2.png": Sheet(
        "The Mouse",
        """
One autumn a mouse came ashore in a crate of biscuits. It looked at the biscuits, and it looked at the books, and it
chose the books. It started at the third page, for the first two were pinned under a teapot.
""",
        foot="Page 2",
    ),
    "book/page-10.png": Sheet(
        "After the Mouse",
        """
Here the tale resumes, since pages three to nine were delicious. The keeper sighed, bought a scanner, and gave the
mouse a lamp of its own. Ships report that the eleventh light winks.
""",
        foot="Page 10",
    ),
}

#: The truth: what stands on each page of each file, by its path inside the samples' folder.
SAMPLES: dict[str, tuple[Sheet | Ledger, ...]] = {
    "letter.pdf": LETTER,
    "scan.pdf": SCAN,
    "two-columns.pdf": TWO_COLUMNS,
    "ledger.tif": LEDGER,
    "notice.jpg": NOTICE,
    **{name: (sheet,) for name, sheet in BOOK.items()},
}


def expected_words(name: str) -> list[list[str]]:
    """Return the words of each page of the sample `name`, in reading order, punctuation included."""
    return [" ".join(page.passages).split() for page in SAMPLES[name]]
