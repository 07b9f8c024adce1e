"""Reader of MNIST's file format (IDX), with NumPy alone."""

from __future__ import annotations

import gzip
import os
import struct
import zlib

import numpy as np


def read_idx(path: str) -> np.ndarray:
    """An IDX file of unsigned bytes, plain or gzipped; the file's size must match its header."""
    with open(path, "rb") as file:
        raw = file.read()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path}: damaged gzip: {error}") from None
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or not 1 <= raw[3] <= 4:
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    rank = raw[3]
    if len(raw) < 4 + 4 * rank:
        raise ValueError(f"{path}: the header is truncated")
    shape = struct.unpack(f">{rank}I", raw[4:4 + 4 * rank])
    expected = 4 + 4 * rank
    count = 1
    for extent in shape:
        count *= extent
    if len(raw) != expected + count:
        raise ValueError(f"{path}: {len(raw)} bytes, but the header {shape} asks for "
                         f"{expected + count}")
    return np.frombuffer(raw, np.uint8, offset=expected).reshape(shape)


def read_images(path: str, split: str = "train") -> np.ndarray:
    """uint8 images [N, pixels]: path is an IDX file, or a folder in MNIST's layout."""
    if os.path.isdir(path):
        stem = {"train": "train", "test": "t10k"}[split] + "-images-idx3-ubyte"
        names = [os.path.join(path, stem + end) for end in (".gz", "")]
        found = [name for name in names if os.path.exists(name)]
        if not found:
            raise ValueError(f"{path}: holds no {stem}.gz")
        path = found[0]
    images = read_idx(path)
    if images.ndim < 2:
        raise ValueError(f"{path}: {images.ndim} dimension, not images")
    return images.reshape(images.shape[0], -1)
