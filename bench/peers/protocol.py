"""What the peers of `cuvae bench` have in common: their flags, what they start from, and how they
are asked.

A peer prints one JSON line that describes it, then answers each line of stdin with one:

    {"steps": 200, "batch": 128}
        -> {"seconds": ..., "steps": 200, "batch": 128, "loss": ...}
    {"steps": 300, "batch": 128, "work": "check", "rows": 8192}
        -> {"neg_elbo": ..., "steps": 300, "batch": 128, "rows": 8192}

or {"error": ...}. "check" goes back to the start (weights, moments, first row), trains by the very
code that is timed, and tells neg_elbo of the first `rows` images with one latent sample each. At
the end of stdin the status is 0; 2 is wrong usage, 3 a file that cannot be read, 4 a device or a
framework that is not there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys


def add_flags(parser: argparse.ArgumentParser, precision_help: str) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: all cores)")
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="fp32",
                        help=precision_help)
    parser.add_argument("--start", metavar="FILE",
                        help="safetensors: data (u8 [samples, input]), order of the first epoch, "
                        "and the weights under cuvae's names; without it all are drawn")
    parser.add_argument("--samples", type=int, default=60000,
                        help="rows of the data where they are drawn")
    parser.add_argument("--input", type=int, default=784, help="... and their features")
    parser.add_argument("--encoder", "--hidden", type=widths, default=[512], metavar="N,N",
                        help="widths of the encoder's hidden layers")
    parser.add_argument("--decoder", type=widths, metavar="N,N",
                        help="... of the decoder's (the encoder's backwards)")
    parser.add_argument("--latent", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)


def widths(text: str) -> list[int]:
    values = [int(part) for part in text.split(",")]
    if min(values) < 1:
        raise ValueError(text)
    return values


def parse_flags(parser: argparse.ArgumentParser) -> argparse.Namespace:
    args = parser.parse_args()
    for name in ("samples", "input", "latent", "unroll"):
        if getattr(args, name, 1) < 1:
            parser.error(f"--{name} must be at least 1")
    if args.threads < 0:
        parser.error("--threads must not be negative")
    if not args.lr > 0:
        parser.error("--lr must be above 0")
    if args.device == "cpu" and args.precision == "tf32":
        parser.error("--precision tf32 needs --device cuda")
    args.threads = args.threads or len(os.sched_getaffinity(0))
    args.decoder = args.decoder or args.encoder[::-1]
    return args


class Unreadable(Exception):
    """A file that is none of ours."""


class Start:
    """What --start holds, as NumPy arrays: weights by name, data, order."""

    def __init__(self, path: str, args: argparse.Namespace):
        tensors = read_safetensors(path)
        try:
            self.data, self.order = tensors.pop("data"), tensors.pop("order")
        except KeyError as error:
            raise Unreadable(f"{path} has no tensor {error}") from None
        self.weights = tensors
        args.samples, args.input = self.data.shape


def read_safetensors(path: str) -> dict:
    """A u64 header length, a JSON header (name -> dtype, shape, data_offsets), the bytes."""
    import numpy as np
    dtypes = {"U8": "u1", "I64": "<i8", "F32": "<f4"}
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            body = file.read()
        tensors = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            tensors[name] = np.frombuffer(body[begin:end], dtypes[entry["dtype"]]).reshape(
                entry["shape"])
        return tensors
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
            MemoryError) as error:
        words = str(error).splitlines()
        raise Unreadable(f"{path}: {words[0] if words else 'no safetensors'}") from None


class Refused(Exception):
    """A request that cannot be served."""


class Request:
    """steps, batch, work, and rows of a check."""

    def __init__(self, line: str, samples: int, works: tuple[str, ...]):
        try:
            request = json.loads(line)
            self.steps, self.batch = request["steps"], request["batch"]
            self.work = request.get("work", "step")
            self.rows = request.get("rows", samples)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Refused('expected {"steps": N, "batch": N} on one line') from None
        for name in ("steps", "batch", "rows"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise Refused(f"{name} must be a positive integer")
        if max(self.batch, self.rows) > samples:
            name, value = ("batch", self.batch) if self.batch > samples else ("rows", self.rows)
            raise Refused(f"{name} {value} exceeds the {samples} samples: "
                          "start with a larger --samples")
        if self.work not in works:
            raise Refused("work must be " + " or ".join(f'"{name}"' for name in works))


def serve(name: str, make_peer, missing: str) -> int:
    """Answers until stdin ends. `missing` is said where the framework gives no reason."""
    try:
        peer = make_peer()
    except Unreadable as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 3
    except (ImportError, RuntimeError, AssertionError) as error:
        words = str(error).splitlines()
        print(f"{name}: error: {words[0] if words else missing}", file=sys.stderr)
        return 4
    print(json.dumps(peer.describe()), flush=True)
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            reply = peer.serve(line)
            if not all(math.isfinite(v) for v in reply.values() if isinstance(v, float)):
                reply = {"error": "its training has diverged"}
        except Refused as error:
            reply = {"error": str(error)}
        except (RuntimeError, ValueError) as error:  # memory, or the compiler
            words = str(error).splitlines()
            reply = {"error": words[0] if words else type(error).__name__}
        print(json.dumps(reply), flush=True)
    return 0
