#!/usr/bin/env python3
"""Trains the classifier kid_mnist_v1 on MNIST with PyTorch and writes its weights.

    "$(scripts/peers-venv)" data/kid_mnist_v1/make_kid_mnist.py --data data/mnist --out FILE.safetensors

The committed file came from this script; trained anew it is another file of about the same accuracy,
so it would need another name (kid_mnist_v2): figures of different features cannot be compared.
--check FILE tells the accuracy of a file without training.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import pathlib
import struct

import numpy as np
import torch
from torch import nn

NAME = "kid_mnist_v1"
# Of the layers with weights, in nn.Sequential below and in cuvae's list of layers.
LAYERS = {0: 0, 2: 1, 4: 2, 7: 3, 9: 4}


def idx(path: pathlib.Path) -> np.ndarray:
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def split(folder: pathlib.Path, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    images = idx(folder / f"{name}-images-idx3-ubyte.gz")
    labels = idx(folder / f"{name}-labels-idx1-ubyte.gz")
    pixels = torch.from_numpy(images.astype(np.float32) / 255).unsqueeze(1)
    return pixels, torch.from_numpy(labels.astype(np.int64))


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),  # 14 x 14
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),  # 7 x 7
        nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU(),  # 4 x 4
        nn.Flatten(),
        nn.Linear(512, 64), nn.ReLU(),  # the features
        nn.Linear(64, 10),
    )  # fmt: skip


def shifted(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image moved by up to two pixels in each direction."""
    n = x.shape[0]
    dy, dx = (torch.randint(0, 5, (n, 1, 1), generator=generator) for _ in range(2))
    padded = nn.functional.pad(x[:, 0], (2, 2, 2, 2))
    rows = torch.arange(28).view(1, 28, 1) + dy
    columns = torch.arange(28).view(1, 1, 28) + dx
    return padded[torch.arange(n).view(n, 1, 1), rows, columns].unsqueeze(1)


def train(net: nn.Sequential, x: torch.Tensor, y: torch.Tensor, epochs: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    batch = 128
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for first in range(0, len(x) // batch * batch, batch):
            rows = order[first : first + batch]
            loss = nn.functional.cross_entropy(
                net(shifted(x[rows], generator)), y[rows], label_smoothing=0.05
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}: {loss.item():.4f}", flush=True)


@torch.no_grad()
def correct(net: nn.Sequential, x: torch.Tensor, y: torch.Tensor) -> tuple[int, float]:
    """Right answers in float64, and the smallest distance between an image's two largest logits."""
    logits = nn.Sequential(*[layer for layer in net]).double()(x.double())
    net.float()
    top = logits.topk(2).values
    return int((logits.argmax(1) == y).sum()), float((top[:, 0] - top[:, 1]).min())


def write(path: pathlib.Path, net: nn.Sequential, metadata: dict[str, str]) -> None:
    state = net.state_dict()
    tensors = {
        f"{NAME}.{to}.{part}": state[f"{at}.{part}"].numpy()
        for at, to in LAYERS.items()
        for part in ("weight", "bias")
    }
    header: dict = {"__metadata__": metadata}
    offset = 0
    for name in sorted(tensors):
        size = tensors[name].nbytes
        header[name] = {
            "dtype": "F32",
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(tensors[name].tobytes() for name in sorted(tensors))
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def read(path: pathlib.Path, net: nn.Sequential) -> None:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    state = {}
    for at, to in LAYERS.items():
        for part in ("weight", "bias"):
            entry = header[f"{NAME}.{to}.{part}"]
            first, last = (8 + length + o for o in entry["data_offsets"])
            values = np.frombuffer(data[first:last], np.float32).reshape(entry["shape"])
            state[f"{at}.{part}"] = torch.from_numpy(values.copy())
    net.load_state_dict(state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, default="data/mnist")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--check", type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True)
    net = network()
    test = split(options.data, "t10k")
    if options.check:
        read(options.check, net)
    else:
        train(net, *split(options.data, "train"), options.epochs, options.seed)
    right, margin = correct(net, *test)
    print(f"{right} of {len(test[1])} right, smallest margin {margin:.3g}")
    path = options.check
    if options.out:
        path = options.out
        write(path, net, {"name": NAME, "test_correct": str(right), "test_images": str(len(test[1]))})
    if path:
        print(f"{path}: {path.stat().st_size} bytes, {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
