"""Office documents and books as ZIP archives of XML: opened with a limit, their parts parsed."""

import zipfile
from pathlib import Path

from trainer.corpus.decoding import decompressed_limit, decompresses_too_large
from trainer.corpus.examples import Unusable

_OLE = b"\xd0\xcf\x11\xe0"


def check_size(path: Path) -> None:
    """Raises Unusable for an archive that is locked, of an older kind, or unpacks to too much."""
    with path.open("rb") as file:
        if file.read(4) == _OLE:
            old = path.suffix.lower()[:4]  # .docx came after .doc
            raise Unusable(f"it is encrypted or an old {old}; save it as {old}x without a password")
    with zipfile.ZipFile(path) as archive:
        if sum(part.file_size for part in archive.infolist()) > decompressed_limit(
            path.stat().st_size
        ):
            raise decompresses_too_large(path.stat().st_size)
