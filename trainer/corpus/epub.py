"""A book -> Markdown: its chapters in the order in which they are read."""

import posixpath
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from trainer.corpus.examples import Unusable
from trainer.corpus.packages import Element, Package, kind_of, open_package

_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")


def epub(path: Path) -> Iterator[bytes]:
    """The bytes of each page. Raises Unusable for a book that is locked or has none."""
    with open_package(path) as package:
        if "META-INF/container.xml" not in package:
            raise Unusable("it is no readable .epub (it holds no META-INF/container.xml)")
        locked = _locked(package)
        has_pages = False
        for name in _pages(package):
            has_pages = True
            if name in locked:
                raise Unusable("it is locked (DRM); use a copy without")
            yield package.data(name)
        if not has_pages:
            raise Unusable("it is no readable .epub (it names no pages)")


def _pages(package: Package) -> Iterator[str]:
    roots = (e for e in package.xml("META-INF/container.xml").iter() if kind_of(e) == "rootfile")
    for root in roots:
        name = root.get("full-path", "")
        if name not in package:
            continue
        parts = list(package.xml(name).iter())
        items = {e.get("id"): e for e in parts if kind_of(e) == "item"}
        for reference in (e for e in parts if kind_of(e) == "itemref"):
            item = items.get(reference.get("idref"))
            if item is not None and _is_page(item):
                href = unquote(item.get("href", "").partition("#")[0])
                page = posixpath.normpath(posixpath.join(posixpath.dirname(name), href))
                if page in package:
                    yield page
        return


def _is_page(item: Element) -> bool:
    """A list of contents says again what the headings say."""
    return item.get("media-type") in _PAGES and "nav" not in item.get("properties", "").split()


def _locked(package: Package) -> set[str]:
    """Parts that are encrypted: fonts may be without locking the book."""
    if "META-INF/encryption.xml" not in package:
        return set()
    references = package.xml("META-INF/encryption.xml").iter()
    return {unquote(e.get("URI", "")) for e in references if kind_of(e) == "CipherReference"}
