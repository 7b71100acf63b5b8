"""Files that may be compressed, opened to be read line by line; one that is cut short is an error, never a short file.

`.gz` needs nothing, `.zst` the package zstandard. Bytes that were changed are found out by the checksum, which every
gzip file has, and a zstandard file unless it was written without. Several frames one after another, as `cat` makes
them, are one file.
"""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from configs.errors import UserError

READ_BYTES = 1 << 20
COMPRESSED_BYTES = 1 << 10
"""Bytes uncompressed at once: few, because they may be the ten-thousandfold when uncompressed."""
READ_ERRORS = (OSError, EOFError, zlib.error)
"""What reading a damaged file raises."""


def open_bytes(path: Path) -> BinaryIO:
    """The uncompressed bytes of a file. Reading one that is damaged or cut short raises `READ_ERRORS`."""
    if path.name.endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.name.endswith(".zst"):
        return io.BufferedReader(_Zstandard(path), READ_BYTES)
    return path.open("rb")


class _Zstandard(io.RawIOBase):
    """zstandard's own reader gives what there is of a file that is cut short, and says nothing."""

    def __init__(self, path: Path) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise UserError(f"{path}: .zst needs the package zstandard; pip install zstandard") from error
        self._error = zstandard.ZstdError
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._frame = self._new()
        self._inside = False
        self._file = path.open("rb")
        self._rest = b""

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill the buffer with the next bytes; 0 at the end of the file."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        while not self._rest:
            compressed = self._file.read(COMPRESSED_BYTES)
            if not compressed:
                if self._inside:
                    raise EOFError("the last zstandard frame is cut short")
                return 0
            self._rest = self._decompress(compressed)
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def _decompress(self, compressed: bytes) -> bytes:
        parts = []
        while compressed:
            self._inside = True
            try:
                parts.append(self._frame.decompress(compressed))
            except self._error as error:
                raise OSError(f"no zstandard data: {error}") from error
            compressed = b""
            if self._frame.eof:
                compressed, self._frame, self._inside = self._frame.unused_data, self._new(), False
        return b"".join(parts)

    def close(self) -> None:
        """Close the file below."""
        self._file.close()
        super().close()
