"""Reads one array of an npz file without a second copy of it.

Decides how: what fits into memory is read; what doesn't is used where it lies in the file, if it is stored there as it
is, and is unpacked into a temporary file otherwise. Never unpickles. Knows no meaning of an array.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tuner.data import memory

LOCAL_HEADER = 30  # bytes, of a member of a zip file, before its name
PICKLED = "Object arrays cannot be loaded when allow_pickle=False"


def read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """Return one array of an archive that was opened by its path.

    Raises:
        ValueError: it holds Python objects (the message says allow_pickle), or is damaged.
        DataError: the temporary folder has no room for it.
        Exception: whatever a damaged archive makes zipfile, zlib and numpy raise.
    """
    with archive.open(entry) as stream:
        if entry.file_size <= memory.left():
            return memory.held(np.asarray(npy.read_array(stream, allow_pickle=False)))
        shape, is_fortran, dtype = _header(stream)
        start = stream.tell()
        if math.prod(shape) * dtype.itemsize != entry.file_size - start:
            raise ValueError(f"an array of shape {shape} and {dtype} takes other than {entry.file_size - start} bytes")
        if entry.compress_type == zipfile.ZIP_STORED and dtype.isnative:
            flat = _in_place(archive, entry)[start:].view(dtype)
        else:
            flat = _unpacked(stream, math.prod(shape), dtype)
    return flat.reshape(shape, order="F" if is_fortran else "C")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the npy format")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError(PICKLED)
    return shape, is_fortran, dtype


def _in_place(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[np.uint8]:
    """Return the bytes of a member that is stored as it is, mapped."""
    assert archive.filename is not None
    with open(archive.filename, "rb") as file:
        file.seek(entry.header_offset)
        name, extra = struct.unpack("<HH", file.read(LOCAL_HEADER)[-4:])
        offset = entry.header_offset + LOCAL_HEADER + name + extra
        content = np.memmap(file, np.uint8, "r", offset, (entry.file_size,))
    sum_ = 0
    for piece in memory.pieces(content):
        sum_ = zlib.crc32(piece.data, sum_)
    if sum_ != entry.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {entry.filename!r}")
    return content


def _unpacked(stream: IO[bytes], count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    flat = memory.empty((count,), dtype.newbyteorder("="))
    for part in memory.slices(count, dtype.itemsize):
        content = stream.read((part.stop - part.start) * dtype.itemsize)
        if len(content) != (part.stop - part.start) * dtype.itemsize:
            raise EOFError("the archive ends within an array")
        flat[part] = np.frombuffer(content, dtype)
    return flat
