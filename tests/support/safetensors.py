"""Safetensors files byte by byte, sound and damaged."""

import json
from typing import Any


def file_of(header: Any, data: bytes = b"") -> bytes:
    """A file with `header`, which is written as JSON unless it is bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(start: int, stop: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    """What a header says of one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}
