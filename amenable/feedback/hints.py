"""Options of a user that resolve what an export of labels leaves ambiguous."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

from amenable.data.files import read_text
from amenable.errors import InputError


class Unclear(ValueError):
    """An ambiguous export: the question that it leaves open, and the option that answers it."""

    def __init__(self, question: str, mend: str):
        self.question, self.mend = question, mend
        super().__init__(f"{question}; {mend}")


@dataclass(frozen=True)
class Layout:
    """A labelling configuration of Label Studio, by the names of its tags."""

    fields: dict[str, str] = field(default_factory=dict)
    """data fields by tag"""
    types: dict[str, str] = field(default_factory=dict)
    """types of controls, in lower case"""
    shows: dict[str, str] = field(default_factory=dict)
    """toName of controls"""
    buckets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """buckets of a Ranker, in order"""


@dataclass(frozen=True)
class Hints:
    """Options for reading an ambiguous export."""

    prompt_field: str | None = None
    """the field that holds the prompt"""
    left_field: str | None = None
    """of Label Studio's Pairwise: the field of the text on the left"""
    right_field: str | None = None
    buckets: tuple[str, ...] = ()
    """of Label Studio's Ranker: its buckets, the best first"""
    layout: Layout = field(default_factory=Layout)
    columns: tuple[str, ...] = ()
    """entries TARGET=COLUMN of files in the columns that training reads"""


def read_layout(file: Path | None) -> Layout:
    """Read the configuration in a file, empty for None. Raises InputError where it is not XML."""
    if file is None:
        return Layout()
    if not file.is_file():
        raise InputError("no such file", file, "give the code of Label Studio's labelling interface")
    text = read_text(file)
    try:
        tags = [tag for tag in ElementTree.fromstring(text).iter() if tag.get("name")]
    except ElementTree.ParseError as error:
        raise InputError(f"no labelling configuration: {error}", file, "copy the code of the interface") from None
    controls = [tag for tag in tags if tag.get("toName")]
    return Layout(
        fields={tag.attrib["name"]: tag.get("value", "")[1:] for tag in tags if tag.get("value", "").startswith("$")},
        types={tag.attrib["name"]: tag.tag.lower() for tag in controls},
        shows={tag.attrib["name"]: tag.attrib["toName"] for tag in controls},
        buckets={
            tag.attrib["name"]: tuple(bucket.get("name", "") for bucket in tag.iter("Bucket"))
            for tag in controls
            if tag.tag == "Ranker"
        },
    )
