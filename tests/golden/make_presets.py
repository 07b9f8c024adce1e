#!/usr/bin/env python3
"""Parity of presets with PyTorch: the same weights, rows and noise, the same losses.

    "$(scripts/peers-venv)" tests/golden/make_presets.py build/cpu/cuvae --write tests/golden
    "$(scripts/peers-venv)" tests/golden/make_presets.py build/cpu/cuvae --check [--of PRESET ...]

cuvae exports the first steps of each preset (`cuvae compare --export`) on the first 6,000 images of
MNIST, for 64 x 64 each pixel four times in a black frame of 4; PyTorch builds the model that
config.json says, in float64, and takes the same steps. cuvae computes keras-conv and conv-64 in
double too: their first steps make thousandths of the loss of what float rounds (conv-64 8e-3 at
step 29, between cuvae in float and in double as between cuvae and PyTorch). --write makes
DIR/presets.json, the losses that tests/train/golden_presets_test.cpp reads, with --of the named
presets of it only. --check prints the largest differences, each of the step's loss, and ends with
status 1 beyond 1e-3 (m2-100: 1e-5, in double 1e-7).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bench/peers"))

import idx  # noqa: E402
from protocol import read_safetensors  # noqa: E402

ROWS = 6000
LIMIT = 1e-3
# The labelled rows of M2 weigh 1e-3 of the loss; the last two are in double on both sides.
LIMITS = {"m2-100": 1e-5, "keras-conv": 1e-7, "conv-64": 1e-7}
NAMES = ("loss", "reconstruction", "kl")
# Size of the images, the steps, and whether cuvae computes in double, as PyTorch always does: the
# first steps of convolutional models make thousandths of what float rounds.
PRESETS = {"iwae-table1": (28, 100, False), "cvae": (28, 100, False),
           "keras-dense": (28, 100, False), "conv-64": (64, 100, True),
           "keras-conv": (28, 100, True), "m2-100": (28, 20, False)}


def export(cuvae: str, preset: str, work: pathlib.Path) -> pathlib.Path:
    size, steps, double = PRESETS[preset]
    data, out = work / f"data-{size}", work / preset
    if not data.exists():
        data.mkdir()
        idx.write_part(str(ROOT / "data/mnist"), str(data), size, {"train": ROWS, "test": 1})
    subprocess.run([cuvae, "compare", "--preset", preset, "--data", str(data), "--device", "cpu",
                    "--steps", str(steps), "--export", str(out), *(["--double"] if double else [])],
                   check=True, stdout=subprocess.DEVNULL)
    return out


def train(folder: pathlib.Path) -> np.ndarray:
    """Loss, reconstruction and kl of each step, before its update."""
    import torch
    import torch_presets

    dtype = torch.float64
    config = json.loads((folder / "config.json").read_text())
    config["lr"] = float(np.float32(config["lr"]))  # as cuvae has it, whatever it computes in
    conditional = config["condition"]["on"] == "label"

    def batches(of: str) -> list[tuple]:
        """(x, labels or Nones, noise) of each step."""
        x = torch.tensor(np.load(folder / f"{of}rows.npy")).to(dtype)
        if config["binarise"] == "none":
            # Floats likewise: the tenth digit matters to conv-64.
            shift, scale = (float(np.float32(config[f"pixel_{of}"])) for of in ("shift", "scale"))
            x = (x - shift) * scale
        labels = (torch.tensor(np.load(folder / f"{of}labels.npy")) if conditional
                  else [None] * len(x))
        return list(zip(x, labels, torch.tensor(np.load(folder / f"{of}noise.npy")).to(dtype)))

    initial = read_safetensors(str(folder / "initial.safetensors"))
    model = torch_presets.model_of(config, initial, dtype)
    if config["objective"] == "m2":
        steps = [(x, eps, told[0], told[1], told[2]) for (x, _, eps), told in zip(
            batches(""), batches("labelled_"))]
    else:
        steps = [(x, torch_presets.one_hot(config, y).to(dtype) if conditional else None, eps)
                 for x, y, eps in batches("")]
    optimizer = torch_presets.optimizer_of(config, model.parameters())
    factor = config["batch_size"] if config["batch_reduction"] == "sum" else 1
    losses = []
    for step in steps:
        for p in model.parameters():
            p.grad = None
        terms = model.losses(*step)
        (factor * terms[0]).backward()
        optimizer.step()
        losses.append([term.item() for term in terms])
    return np.array(losses)


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cuvae", help="the program")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", metavar="DIR", type=pathlib.Path)
    mode.add_argument("--check", action="store_true")
    parser.add_argument("--of", metavar="PRESET", nargs="+", choices=PRESETS, default=[*PRESETS],
                        help="these presets only")
    arguments = parser.parse_args()
    import torch

    result, good = {}, True
    with tempfile.TemporaryDirectory() as work:
        for preset in arguments.of:
            size, steps, double = PRESETS[preset]
            folder = export(arguments.cuvae, preset, pathlib.Path(work))
            losses = train(folder)
            ours, limit = np.load(folder / "losses.npy"), LIMITS.get(preset, LIMIT)
            error = np.abs(ours - losses) / np.abs(losses[:, :1])
            worst = np.unravel_index(np.argmax(error), error.shape)
            good = good and bool(np.isfinite(losses).all()) and bool(error.max() <= limit)
            print(f"{preset:<12} {steps} steps: {error.max():.2e} of the loss ({NAMES[worst[1]]}, "
                  f"step {worst[0] + 1}); loss alone {error[:, 0].max():.2e}; last loss "
                  f"{ours[-1, 0]:.4f}", flush=True)
            initial = read_safetensors(str(folder / "initial.safetensors"))
            result[preset] = {
                "size": size,
                "steps": steps,
                "limit": limit,
                "double": double,
                "rows_sha256": digest(np.load(folder / "rows.npy")),
                "initial_sha256": {name: digest(value) for name, value in sorted(initial.items())},
                "losses": {name: [float(f"{v:.9g}") for v in losses[:, i]]
                           for i, name in enumerate(NAMES)},
            }
    if arguments.write is not None:
        if not good:
            print("make_presets: error: beyond the limit: no golden file", file=sys.stderr)
            return 1
        path = arguments.write / "presets.json"
        if path.exists():  # what --of does not name stays
            there = json.loads(path.read_text())["presets"]
            result = {name: result.get(name, there.get(name)) for name in PRESETS
                      if name in result or name in there}
        text = json.dumps({"schema": 1, "made_by": "tests/golden/make_presets.py",
                           "torch": torch.__version__, "presets": result}, indent=1)
        partial = path.with_suffix(".json.partial")
        partial.write_text(text + "\n", encoding="ascii")
        os.replace(partial, path)
        print(path)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
