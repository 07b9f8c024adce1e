#!/usr/bin/env python3
"""Parity of cuvae with PyTorch: the same weights, batches and noise, the same losses and gradients.

EXPORT is a folder written by cuvae:
    config.json          batch_size, lr, beta, hidden, latent (others are ignored)
    initial.safetensors  F32: {encoder.0,encoder.mean,encoder.logvar,decoder.0,decoder.out}.{weight,bias}
    batches.npy          <i8 [steps, B], rows of the training images
    noise.npy            <f4 [steps, B, latent], the normals of the latents
and, for --check, what cuvae made of them:
    losses.npy           <f8 [steps, 3]: loss, reconstruction, kl of each step, before its update
    gradients.safetensors  F32, of the first step

--write DIR makes DIR/mnist_mlp.json, the golden file that the tests read; see README.md.
--check [DIR] compares DIR (default: EXPORT) with PyTorch. Status: 0 equal within the tolerance,
1 not equal, 2 usage, 3 unreadable input.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import os
import struct
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "bench", "peers"))

import idx  # noqa: E402

LOSS_NAMES = ("loss", "reconstruction", "kl")
# Of the loss of the step, for the loss and its two terms. Not of the kl itself: one relu that rounding
# puts on the other side (at step 73, on the default data) moves the kl by 1e-4 of itself at step 100,
# and the loss by less than 1e-5. Before that, every term is within 1e-6 of itself.
LOSS_LIMIT = 1e-4
EARLY_STEPS = 50
EARLY_LIMIT = 1e-5  # of each term itself
GRADIENT_LIMIT = 1e-5  # of the norm of the difference to the norm, and of max |difference| to max
GOLDEN_STEPS = 100
GOLDEN_ENTRIES = 64


class InputError(Exception):
    """An unreadable or inconsistent input file."""


def read_npy(path: str, dtype: str, rank: int) -> np.ndarray:
    raw = read_bytes(path)
    if raw[:6] != b"\x93NUMPY" or len(raw) < 12 or raw[6] not in (1, 2, 3):
        raise InputError(f"{path}: not an NPY file")
    size, start = (struct.unpack_from("<H", raw, 8)[0], 10) if raw[6] == 1 else (
        struct.unpack_from("<I", raw, 8)[0], 12)
    try:
        header = ast.literal_eval(raw[start:start + size].decode("latin-1").strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], tuple(header["shape"])
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged header: {error}") from None
    if descr != dtype or fortran or len(shape) != rank:
        raise InputError(f"{path}: {descr} {list(shape)}{' in Fortran order' if fortran else ''}, "
                         f"expected {dtype} of {rank} dimensions in C order")
    body = raw[start + size:]
    if len(body) != math.prod(shape) * np.dtype(dtype).itemsize:
        raise InputError(f"{path}: {len(body)} bytes of data do not fill the shape {list(shape)}")
    return np.frombuffer(body, dtype).reshape(shape)


def read_safetensors(path: str) -> dict[str, np.ndarray]:
    raw = read_bytes(path)
    size = struct.unpack_from("<Q", raw)[0] if len(raw) >= 8 else 0
    if not 2 <= size <= len(raw) - 8:
        raise InputError(f"{path}: not a safetensors file, or truncated")
    try:
        header = json.loads(raw[8:8 + size])
    except ValueError as error:
        raise InputError(f"{path}: damaged header: {error}") from None
    body, tensors, covered = raw[8 + size:], {}, 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path}: {name}: damaged entry") from None
        if dtype != "F32":
            raise InputError(f"{path}: {name}: {dtype}, expected F32")
        if not 0 <= begin <= end <= len(body) or end - begin != 4 * math.prod(shape):
            raise InputError(f"{path}: {name}: offsets [{begin}, {end}) do not fit shape {shape}")
        tensors[name] = np.frombuffer(body[begin:end], "<f4").reshape(shape)
        covered += end - begin
    if covered != len(body):
        raise InputError(f"{path}: {len(body)} bytes of data, the tensors cover {covered}")
    return tensors


def read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def read_config(path: str) -> dict:
    try:
        config = json.loads(read_bytes(path))
        return {"batch_size": int(config["batch_size"]), "lr": float(config["lr"]),
                "beta": float(config["beta"]), "hidden": int(config["hidden"]),
                "latent": int(config["latent"])}
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: needs batch_size, lr, beta, hidden, latent: {error!r}") from None


class Export:
    """The inputs of a run, checked against each other."""

    def __init__(self, folder: str, data: str, steps: int | None):
        self.config = read_config(os.path.join(folder, "config.json"))
        self.initial = read_safetensors(os.path.join(folder, "initial.safetensors"))
        self.batches = read_npy(os.path.join(folder, "batches.npy"), "<i8", 2)
        self.noise = read_npy(os.path.join(folder, "noise.npy"), "<f4", 3)
        try:
            self.images = idx.read_images(data)
        except (ValueError, OSError) as error:
            raise InputError(str(error)) from None
        if steps is not None:
            if steps > len(self.batches):
                raise InputError(f"{folder}: holds {len(self.batches)} steps, --steps asks for "
                                 f"{steps}")
            self.batches, self.noise = self.batches[:steps], self.noise[:steps]
        batch, latent, hidden = (self.config[k] for k in ("batch_size", "latent", "hidden"))
        if len(self.batches) == 0 or self.batches.shape[1] != batch:
            raise InputError(f"{folder}/batches.npy: {self.batches.shape}, batch_size is {batch}")
        if self.noise.shape != (*self.batches.shape, latent):
            raise InputError(f"{folder}/noise.npy: {self.noise.shape}, expected "
                             f"{(*self.batches.shape, latent)}")
        if self.batches.min() < 0 or self.batches.max() >= len(self.images):
            raise InputError(f"{folder}/batches.npy: indices outside the {len(self.images)} images")
        sizes = {"encoder.0": (hidden, self.images.shape[1]), "encoder.mean": (latent, hidden),
                 "encoder.logvar": (latent, hidden), "decoder.0": (hidden, latent),
                 "decoder.out": (self.images.shape[1], hidden)}
        self.shapes = {}
        for name, shape in sizes.items():
            self.shapes[name + ".weight"], self.shapes[name + ".bias"] = shape, shape[:1]
        check_tensors(self.initial, self.shapes, os.path.join(folder, "initial.safetensors"))


def check_tensors(tensors: dict, shapes: dict, path: str) -> None:
    if set(tensors) != set(shapes):
        raise InputError(f"{path}: missing {sorted(set(shapes) - set(tensors))}, "
                         f"unexpected {sorted(set(tensors) - set(shapes))}")
    for name, shape in shapes.items():
        if tensors[name].shape != tuple(shape):
            raise InputError(f"{path}: {name}: {tensors[name].shape}, expected {tuple(shape)}")


def train(export: Export, double: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Losses [steps, 3] and the gradients of the first step."""
    import torch
    import torch_vae
    torch.set_num_threads(1)  # one order of summation, whatever the machine
    dtype = torch.float64 if double else torch.float32
    config = export.config
    model = torch_vae.Vae(export.images.shape[1], config["hidden"], config["latent"]).to(dtype)
    model.load_state_dict({name: torch.tensor(value) for name, value in export.initial.items()})
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"], betas=(0.9, 0.999), eps=1e-8)
    losses, gradients = [], {}
    for index, eps in zip(export.batches, export.noise):
        x = torch.tensor(export.images[index]).to(dtype) / 255  # [B, input]
        optimizer.zero_grad()
        reconstruction, kl = model(x, torch.tensor(eps).to(dtype))
        loss = reconstruction + config["beta"] * kl
        loss.backward()
        if not gradients:
            gradients = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
        optimizer.step()
        losses.append([loss.item(), reconstruction.item(), kl.item()])
    return np.array(losses), gradients


def sample_indices(size: int) -> list[int]:
    """Up to 64 flat indices spread by the golden ratio: fixed, and no multiple of a row's width."""
    if size <= GOLDEN_ENTRIES:
        return list(range(size))
    ratio, chosen, k = (math.sqrt(5) - 1) / 2, set(), 0
    while len(chosen) < GOLDEN_ENTRIES:
        chosen.add(int(k * ratio % 1 * size))
        k += 1
    return sorted(chosen)


def golden(export: Export, losses: np.ndarray, gradients: dict, double: bool) -> dict:
    import torch

    def digest(array, dtype):
        return hashlib.sha256(np.ascontiguousarray(array, dtype).tobytes()).hexdigest()

    return {
        "schema": 1,
        "made_by": "tests/golden/make_mnist_mlp.py",
        "torch": torch.__version__,
        "precision": "float64" if double else "float32",
        "config": export.config,
        "limits": {"losses": LOSS_LIMIT, "gradients": GRADIENT_LIMIT},
        # What the run was fed with: a difference here is not one of arithmetic.
        "inputs": {
            "steps": len(export.batches),
            "batches_sha256": digest(export.batches, "<i8"),
            "initial_sha256": {name: digest(value, "<f4")
                               for name, value in sorted(export.initial.items())},
            "noise_sum": float(np.sum(export.noise, dtype=np.float64)),
            "noise_sum_of_squares": float(np.sum(np.square(export.noise, dtype=np.float64))),
            "noise_first": [float(v) for v in export.noise.reshape(-1)[:8]],
        },
        "losses": {name: [float(v) for v in losses[:, i]] for i, name in enumerate(LOSS_NAMES)},
        "gradients": {
            name: {
                "shape": list(value.shape),
                "norm": float(np.linalg.norm(value.astype(np.float64))),
                "max": float(np.abs(value).max()),
                "index": sample_indices(value.size),
                "value": [float(v) for v in value.reshape(-1)[sample_indices(value.size)]],
            } for name, value in gradients.items()
        },
    }


def compare(losses, gradients, reference_losses, reference_gradients) -> tuple[bool, list[str]]:
    """Whether all is within the limits (NaN is not), and one line per quantity."""
    good, lines = True, []

    def judge(what, error, limit, where):
        nonlocal good
        within = bool(error <= limit)  # false for NaN
        good = good and within
        lines.append(f"{'ok  ' if within else 'FAIL'} {what:<32} {error:.3e} of {limit:.0e}{where}")

    with np.errstate(invalid="ignore", divide="ignore"):
        for column, name in enumerate(LOSS_NAMES):
            difference = np.abs(losses[:, column] - reference_losses[:, column])
            for what, error, limit in (
                    (name, difference / np.abs(reference_losses[:, 0]), LOSS_LIMIT),
                    (f"{name}, first {EARLY_STEPS}",
                     (difference / np.abs(reference_losses[:, column]))[:EARLY_STEPS], EARLY_LIMIT)):
                worst = int(np.argmax(error))  # the first NaN, if there is one
                judge(what, float(error[worst]), limit,
                      f"  step {worst + 1}: {losses[worst, column]:.9g}, "
                      f"PyTorch {reference_losses[worst, column]:.9g}")
        for name, reference in reference_gradients.items():
            reference = reference.astype(np.float64)
            difference = gradients[name].astype(np.float64) - reference
            judge(name + ", norm", float(np.linalg.norm(difference) / np.linalg.norm(reference)),
                  GRADIENT_LIMIT, "")
            worst = int(np.argmax(np.abs(difference)))
            judge(name + ", element", float(
                np.abs(difference).reshape(-1)[worst] / np.abs(reference).max()), GRADIENT_LIMIT,
                f"  at {[int(i) for i in np.unravel_index(worst, reference.shape)]}")
    return good, lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", metavar="EXPORT")
    parser.add_argument("--data", required=True, help="folder or IDX file of the training images")
    parser.add_argument("--steps", type=int, help="the first STEPS steps only (--write: 100)")
    parser.add_argument("--double", action="store_true", help="PyTorch in float64")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", metavar="DIR")
    mode.add_argument("--check", metavar="DIR", nargs="?", const="")
    args = parser.parse_args(arguments)
    if args.steps is not None and args.steps < 1:
        parser.error("--steps must be at least 1")
    try:
        export = Export(args.export, args.data,
                        args.steps or (GOLDEN_STEPS if args.write is not None else None))
        if args.check is not None:
            folder = args.check or args.export
            path = os.path.join(folder, "losses.npy")
            losses = read_npy(path, "<f8", 2)
            if losses.shape[1] != 3 or len(losses) < len(export.batches):
                raise InputError(f"{path}: {losses.shape}, expected {(len(export.batches), 3)}")
            path = os.path.join(folder, "gradients.safetensors")
            gradients = read_safetensors(path)
            check_tensors(gradients, export.shapes, path)
    except InputError as error:
        print(f"make_mnist_mlp: error: {error}", file=sys.stderr)
        return 3

    reference = train(export, args.double)
    if args.write is not None:
        if not np.isfinite(reference[0]).all():
            print("make_mnist_mlp: error: the losses are not finite: no golden file", file=sys.stderr)
            return 1
        os.makedirs(args.write, exist_ok=True)
        path = os.path.join(args.write, "mnist_mlp.json")
        with open(path + ".partial", "w", encoding="ascii") as file:
            json.dump(golden(export, *reference, args.double), file, indent=1)
            file.write("\n")
        os.replace(path + ".partial", path)
        print(path)
        return 0
    good, lines = compare(losses[:len(export.batches)], gradients, *reference)
    print("\n".join(lines))
    print(f"{'within' if good else 'OUTSIDE'} the limits: {len(export.batches)} steps, PyTorch in "
          f"{'float64' if args.double else 'float32'}")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ImportError as error:
        print(f"make_mnist_mlp: error: {error}: run it with the Python that scripts/peers-venv prints",
              file=sys.stderr)
        sys.exit(1)
