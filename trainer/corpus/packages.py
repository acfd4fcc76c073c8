"""Office documents and books as ZIP archives of XML: opened with a limit, their parts parsed."""

import posixpath
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

from trainer.corpus.decoding import (
    decompressed_limit,
    decompresses_too_large,
    refuse_other_formats,
    refuse_page,
)
from trainer.corpus.examples import Unusable

_OLE, _ZIP = b"\xd0\xcf\x11\xe0", b"PK\x03\x04"
_HEAD_BYTES = 512
_RELATIONSHIP = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"

Element: TypeAlias = Any
"""One of lxml's, which has no types."""


class Package:
    """The parts of an open archive by their names, which are '/'-separated and relative."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._names = set(archive.namelist())

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def data(self, name: str) -> bytes:
        """Raises KeyError where there is no such part."""
        return self._archive.read(name)

    def xml(self, name: str) -> Element:
        """The root of a part. Entities are not resolved, nothing else is fetched."""
        from lxml import etree

        parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_pis=True)
        return etree.fromstring(self.data(name), parser)

    def related(self, part: str, kind: str) -> list[str]:
        """The parts that `part` ("" for the package) names as `kind`, which ends the type's URI."""
        return [target for _, found, target in self._relationships(part) if found == kind]

    def targets(self, part: str) -> dict[str, str]:
        """The parts that `part` names, by the ids it gives them."""
        return {id: target for id, _, target in self._relationships(part)}

    def _relationships(self, part: str) -> Iterator[tuple[str, str, str]]:
        folder, _, name = part.rpartition("/")
        rels = posixpath.join(folder, "_rels", f"{name}.rels")
        if rels not in self:
            return
        for element in self.xml(rels).iter(_RELATIONSHIP):
            if element.get("TargetMode") != "External":
                target = posixpath.normpath(posixpath.join("/", folder, element.get("Target", "")))
                kind = element.get("Type", "").rpartition("/")[2]
                yield element.get("Id", ""), kind, self._known(target.lstrip("/"))

    def _known(self, target: str) -> str:
        return target if target in self else unquote(target)


@contextmanager
def open_package(path: Path) -> Iterator[Package]:
    """Raises Unusable as `check_size` does."""
    check_size(path)
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        yield Package(archive)


def check_size(path: Path) -> None:
    """Raises Unusable for an archive that is locked, of an older kind, or unpacks to too much."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if head.startswith(_OLE):
            old = path.suffix.lower()[:4]  # .docx came after .doc
            raise Unusable(f"it is encrypted or an old {old}; save it as {old}x without a password")
        if not head.startswith(_ZIP):
            refuse_other_formats(head)
            refuse_page(head)
            name = path.suffix.lower()
            raise Unusable(f"it is no readable {name} (no ZIP archive); save it again as {name}")
        with zipfile.ZipFile(file) as archive:
            if sum(part.file_size for part in archive.infolist()) > decompressed_limit(
                path.stat().st_size
            ):
                raise decompresses_too_large(path.stat().st_size)


def kind_of(element: Element) -> str:
    """The name of its tag without the namespace, in which older and strict documents differ."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def child(element: Element, *kinds: str) -> Element | None:
    """The first child of the kind kinds[0], of that the first of kinds[1], and so on."""
    for kind in kinds:
        found = next((c for c in element if kind_of(c) == kind), None)
        if found is None:
            return None
        element = found
    return element


def value(element: Element | None, name: str = "val") -> str | None:
    """An attribute by its name without the namespace."""
    if element is None:
        return None
    return next((v for key, v in element.attrib.items() if key.rpartition("}")[2] == name), None)


def is_on(element: Element | None) -> bool:
    """Whether a property is there and not switched off."""
    return element is not None and value(element) not in ("0", "false", "off")
