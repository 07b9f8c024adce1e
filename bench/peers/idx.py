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


def file_of(path: str, split: str, kind: str) -> str:
    """The file of a folder in MNIST's layout, gzipped or not."""
    stem = f"{'train' if split == 'train' else 't10k'}-{kind}-ubyte"
    found = [name for end in (".gz", "") if os.path.exists(name := os.path.join(path, stem + end))]
    if not found:
        raise ValueError(f"{path}: holds no {stem}.gz")
    return found[0]


def read_images(path: str, split: str = "train") -> np.ndarray:
    """uint8 images [N, pixels]: path is an IDX file, or a folder in MNIST's layout."""
    images = read_idx(file_of(path, split, "images-idx3") if os.path.isdir(path) else path)
    if images.ndim < 2:
        raise ValueError(f"{path}: {images.ndim} dimension, not images")
    return images.reshape(images.shape[0], -1)


def read_labels(path: str, split: str = "train") -> np.ndarray:
    """uint8 [N], of a folder in MNIST's layout."""
    return read_idx(file_of(path, split, "labels-idx1"))


def enlarged(images: np.ndarray, size: int) -> np.ndarray:
    """[N, 784] to [N, size, size]: each pixel as often as it fits, in a black frame."""
    images = images.reshape(-1, 28, 28)
    factor = size // 28
    frame = (size - 28 * factor) // 2
    images = images.repeat(factor, 1).repeat(factor, 2)
    return np.pad(images, ((0, 0), (frame, frame), (frame, frame)))


def write_part(source: str, folder: str, size: int, rows: dict[str, int],
               change=lambda images: images) -> None:
    """The first rows of each split of `source`, changed and enlarged, as a folder in MNIST's layout."""
    for split, count in rows.items():
        images = enlarged(change(read_images(source, split)[:count]), size)
        labels = read_labels(source, split)[:count]
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{'train' if split == 'train' else 't10k'}-{kind}-ubyte"
            with open(os.path.join(folder, name), "wb") as file:
                file.write(struct.pack(f">I{values.ndim}I", 0x800 + values.ndim, *values.shape))
                file.write(values.tobytes())
