"""Writes 8-bit grey PNG files (PNG specification, ISO/IEC 15948), with nothing but zlib."""

from __future__ import annotations

import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode_grey_png(image: np.ndarray) -> bytes:
    """A PNG file as bytes, from grey values of shape (H, W) and type uint8.

    An own writer, because image libraries change filters and settings between versions, and the
    embedded data set is to be the same bytes wherever it is created.
    """
    if image.dtype != np.uint8 or image.ndim != 2:
        raise ValueError(f"expected uint8 of shape (H, W), got {image.dtype} of {image.shape}")
    height, width = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # column 0: filter type "none"
    rows[:, 1:] = image
    body = zlib.compress(rows.tobytes(), 6)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
