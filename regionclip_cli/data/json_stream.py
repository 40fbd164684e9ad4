"""Large JSON files an element at a time: memory stays flat, and the place of each element is known.

`instances_train2017.json` has 450 MB and becomes two gigabytes of Python objects when it is read at once. Here one
annotation is in memory at a time, and its byte offsets allow to come back for its polygons.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from regionclip_cli.errors import MissingError, UsageError

CHUNK = 1 << 20
LONGEST = 1 << 28
"""Bytes that one element may have: far more than any annotation, and less than most memories."""

_SPACE = re.compile(r"[ \t\r\n]*")
_MARGIN = 64  # what follows a number tells where it ends; more digits fit into this than a number has


class Element(NamedTuple):
    """One value of a JSON file.

    Attributes:
        key: The member of the outermost object that it is, or is an element of; empty in a file that is one list.
        position: Its place in that member when the member is a list, else None.
        value: What JSON makes of it.
        start: Byte offset of its first character.
        end: Byte offset after its last one.
    """

    key: str
    position: int | None
    value: Any
    start: int
    end: int


def stream_json(path: Path) -> Iterator[Element]:
    """Yield the members of the object in a file; a member that is a list comes one element at a time.

    A list that is empty comes as one element without position, so that it is not taken for absent.

    Raises:
        MissingError: There is no such file.
        UsageError: It cannot be read, is empty, is not JSON, or ends too early; the sentence names the last place.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError as err:
        raise MissingError(f"There is no annotation file {path}.") from err
    except OSError as err:
        raise UsageError(f"The annotation file {path} cannot be read: {err.strerror}.") from err
    with file:
        yield from _Reader(path, file).elements()


class _Reader:
    """A window on the file that moves forward.

    Bytes are read as Latin-1, where a character is a byte, so that offsets are byte offsets; the structure of JSON is
    ASCII. Elements that are not ASCII are decoded again as the UTF-8 that they are.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.text, self.at, self.base, self.whole = "", 0, 0, False
        self.place = "its beginning"
        self.decoder = json.JSONDecoder()

    def elements(self) -> Iterator[Element]:
        """Yield everything."""
        first = self.next_char()
        if self.text.startswith("\xef\xbb\xbf"):
            self.at = 3
            first = self.next_char()
        if not first:
            raise UsageError(f"The annotation file {self.path} is empty.")
        if first == "{":
            yield from self.members()
        elif first == "[":
            yield from self.list_of("")
        else:
            yield Element("", None, *self.value())
        self.place = "its end"
        if self.next_char():
            raise self.trouble("more than one value")

    def members(self) -> Iterator[Element]:
        """Yield the members of the outermost object."""
        self.at += 1
        char, known = self.next_char(), set()
        while char != "}":
            if char != '"':
                raise self.trouble("no member name")
            key, _, _ = self.value()
            self.place = f"{key!r}"
            if key in known:
                raise self.trouble(f"a second {key!r}")
            known.add(key)
            if self.next_char() != ":":
                raise self.trouble("no colon")
            self.at += 1
            if self.next_char() == "[":
                yield from self.list_of(key)
            else:
                yield Element(key, None, *self.value())
            char = self.after_value("}")
        self.at += 1

    def list_of(self, key: str) -> Iterator[Element]:
        """Yield the elements of a list."""
        start, index = self.base + self.at, 0
        self.at += 1
        char = self.next_char()
        while char != "]":
            self.place = f"{key}[{index}]"
            yield Element(key, index, *self.value())
            char = self.after_value("]")
            index += 1
        self.at += 1
        if not index:
            yield Element(key, None, [], start, self.base + self.at)

    def after_value(self, closing: str) -> str:
        """Pass over a comma, and return the next character: a value's first, or `closing`."""
        char = self.next_char()
        if char == ",":
            self.at += 1
            char = self.next_char()
            if char == closing:
                raise self.trouble("a comma too many")
            return char
        if char != closing:
            raise self.trouble("no comma")
        return char

    def next_char(self) -> str:
        """Pass over spaces and return the character after them, empty at the end of the file."""
        while True:
            found = _SPACE.match(self.text, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def more(self) -> bool:
        """Let the window begin here and reach at least twice as far; say whether it grew."""
        if self.whole:
            return False
        kept = self.text[self.at :]
        try:
            read = self.file.read(max(CHUNK, len(kept)))
        except OSError as err:
            raise UsageError(f"The annotation file {self.path} cannot be read: {err.strerror}.") from err
        self.base += self.at
        self.text, self.at, self.whole = kept + read.decode("latin-1"), 0, not read
        return bool(read)

    def value(self) -> tuple[Any, int, int]:
        """Return the value here with its offsets, and go behind it."""
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as err:
                if len(self.text) - self.at < LONGEST and self.more():
                    continue
                at_end = err.pos >= len(self.text.rstrip()) - 1 or err.msg.startswith("Unterminated")
                raise self.trouble(err.msg, cut=self.whole and at_end) from err
            except RecursionError as err:
                raise self.trouble("lists nested too deeply") from err
            except ValueError as err:  # a number with more digits than Python converts
                raise self.trouble("a number that is too long") from err
            if self.whole or len(self.text) - end >= _MARGIN:
                break
            self.more()
        own = self.text[self.at : end]
        if not own.isascii():
            try:
                value = json.loads(own.encode("latin-1").decode("utf-8"))
            except UnicodeDecodeError as err:
                raise self.trouble("text that is not UTF-8") from err
        start, self.at = self.base + self.at, end
        return value, start, self.base + end

    def trouble(self, what: str, cut: bool = False) -> UsageError:
        """Return the error that says what is wrong and where."""
        if cut or not self.next_char():
            return UsageError(
                f"The annotation file {self.path} is cut off: it ends in the middle of {self.place}.",
                "Fetch or copy it again.",
            )
        where = self.base + self.at
        return UsageError(f"The annotation file {self.path} is not JSON: {what} at {self.place}, byte {where:,}.")
