"""XML a piece at a time, with any text: what XML 1.0 cannot hold is replaced."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 does not allow: control characters, lone surrogates, noncharacters."""


class XmlFile:
    """Writes elements to a binary file, indented.

    Args:
        file: Open for writing.
        declaration: Begin with `<?xml ...?>`.
    """

    def __init__(self, file: BinaryIO, declaration: bool = True) -> None:
        self._xml = XMLGenerator(file, encoding="utf-8", short_empty_elements=True)
        if declaration:
            self._xml.startDocument()
        self._depth, self._begun = 0, False

    @contextmanager
    def element(self, name: str, /, **attributes: object) -> Iterator[None]:
        """Write an element around what the block writes."""
        self._line()
        self._xml.startElement(name, _texts(attributes))
        self._depth += 1
        yield
        self._depth -= 1
        self._line()
        self._xml.endElement(name)

    def text(self, name: str, content: object = "", /, **attributes: object) -> None:
        """Write an element with text in it."""
        self._line()
        self._xml.startElement(name, _texts(attributes))
        self._xml.characters(clean(str(content)))
        self._xml.endElement(name)

    def _line(self) -> None:
        self._xml.ignorableWhitespace("\n" * self._begun + "  " * self._depth)
        self._begun = True

    def close(self) -> None:
        """End the document."""
        self._xml.ignorableWhitespace("\n")
        self._xml.endDocument()


def clean(text: str) -> str:
    """Return text with the characters that XML cannot hold replaced by U+FFFD."""
    return FORBIDDEN.sub("\ufffd", text)


def _texts(attributes: Mapping[str, object]) -> AttributesImpl[str]:
    return AttributesImpl({name: clean(str(value)) for name, value in attributes.items()})
