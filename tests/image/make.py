"""Files that Pillow does not write, built from their specifications."""

from __future__ import annotations

import struct
import zlib

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
DISPLAY_P3 = (
    (0.51512, 0.24120, -0.00105),
    (0.29198, 0.69225, 0.04189),
    (0.15710, 0.06657, 0.78407),
)
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB_CURVE = (3, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))


def png(samples, colour_type, bits, *chunks, interlace=0):
    """A PNG file of samples (H, W) or (H, W, C); ``chunks`` stand before the pixels."""
    height, width = samples.shape[:2]
    rows = b"".join(
        b"\0" + row.astype(">u2" if bits == 16 else np.uint8).tobytes() for row in samples
    )
    if bits < 8:
        per_byte = 8 // bits
        rows = b""
        for row in samples:
            row = np.pad(row, (0, -width % per_byte)).reshape(-1, per_byte).astype(int)
            weights = 2 ** (bits * np.arange(per_byte)[::-1])
            rows += b"\0" + (row * weights).sum(1).astype(np.uint8).tobytes()
    head = chunk(
        b"IHDR", struct.pack(">LLBBBBB", width, height, bits, colour_type, 0, 0, interlace)
    )
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + body


def chunk(kind, body):
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def tiff(samples, *, bits=0, photometric=1, sample_format=1, order="<", more=()):
    """A grey uncompressed TIFF file with one strip; 12-bit samples are packed."""
    height, width = samples.shape
    bits = bits or 8 * samples.itemsize
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    if bits == 12:
        pairs = np.pad(samples, ((0, 0), (0, width % 2))).reshape(-1, 2).astype(int)
        packed = [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255]
        data = np.stack(packed, 1).astype(np.uint8).tobytes()
    tags = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: photometric,
        277: 1,
        278: height,
        339: sample_format,
    }
    tags.update(more)
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    longs = {273: start, 279: len(data)}
    body = struct.pack(f"{order}H", len(tags) + 2)
    for tag, value in sorted({**tags, **longs}.items()):
        kind, form = (4, "L") if tag in longs else (3, "H")
        body += struct.pack(f"{order}HHL", tag, kind, 1) + struct.pack(
            f"{order}{form}", value
        ).ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", 8)
    return head + body + bytes(4) + data


def profile(space, tags, connection=b"XYZ "):
    """An ICC profile of version 2, as of a display."""
    fixed = b"".join(map(_fixed, D50))
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">L", 5) + b"test\0" + bytes(79),
        b"wtpt": b"XYZ \0\0\0\0" + fixed,
        b"cprt": b"text\0\0\0\0none\0",
        **tags,
    }
    table, data, at = struct.pack(">L", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for key, value in tags.items():
        value += bytes(-len(value) % 4)
        table += key + struct.pack(">LL", at + len(data), len(value))
        data += value
    head = struct.pack(">L", 128 + len(table + data)) + b"none" + struct.pack(">L", 0x02100000)
    head += b"mntr" + space + connection + struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp"
    return (head + bytes(28) + fixed).ljust(128, b"\0") + table + data


def rgb_profile(colorants, curve):
    names = zip((b"rXYZ", b"gXYZ", b"bXYZ"), (b"rTRC", b"gTRC", b"bTRC"), colorants, strict=True)
    tags = {}
    for colorant, tone, xyz in names:
        tags[colorant] = b"XYZ \0\0\0\0" + b"".join(map(_fixed, xyz))
        tags[tone] = _curve(curve)
    return profile(b"RGB ", tags)


def grey_profile(curve, connection=b"XYZ "):
    return profile(b"GRAY", {b"kTRC": _curve(curve)}, connection)


def exif(*entries, order="<"):
    """An EXIF block; an entry is a tag, a type, a count and the bytes of the value."""
    at, values = 8 + 2 + 12 * len(entries) + 4, b""
    body = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, raw in entries:
        body += struct.pack(f"{order}HHL", tag, kind, count)
        body += raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack(f"{order}L", at + len(values))
        values += raw if len(raw) > 4 else b""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", 8)
    return b"Exif\0\0" + head + body + bytes(4) + values


def _curve(curve):
    """A gamma, a table of numbers in [0, 1], or the kind and parameters of a formula."""
    if isinstance(curve, tuple):
        kind, parameters = curve
        return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + b"".join(map(_fixed, parameters))
    if isinstance(curve, float):
        return b"curv\0\0\0\0" + struct.pack(">LH", 1, round(256 * curve))
    levels = (65535 * np.asarray(curve)).round().astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">L", len(levels)) + levels.tobytes()


def _fixed(value):
    return struct.pack(">l", round(65536 * value))
