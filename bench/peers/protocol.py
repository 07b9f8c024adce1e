"""What the peers of `cuvae bench` have in common: their flags, and how they are asked.

A peer prints one JSON line that describes it, then answers each line of stdin with one:

    {"steps": 200, "batch": 128}  ->  {"seconds": ..., "steps": 200, "batch": 128, "loss": ...}

or {"error": ...}. At the end of stdin its status is 0; 2 is wrong usage, 4 a device or a framework
that is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys


def add_flags(parser: argparse.ArgumentParser, precision_help: str) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: all cores)")
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="fp32",
                        help=precision_help)
    parser.add_argument("--samples", type=int, default=60000, help="rows of the resident data")
    parser.add_argument("--input", type=int, default=784)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--latent", type=int, default=32)


def parse_flags(parser: argparse.ArgumentParser) -> argparse.Namespace:
    args = parser.parse_args()
    for name in ("samples", "input", "hidden", "latent", "unroll"):
        if getattr(args, name, 1) < 1:
            parser.error(f"--{name} must be at least 1")
    if args.threads < 0:
        parser.error("--threads must not be negative")
    if args.device == "cpu" and args.precision == "tf32":
        parser.error("--precision tf32 needs --device cuda")
    args.threads = args.threads or len(os.sched_getaffinity(0))
    return args


class Refused(Exception):
    """A request that cannot be served."""


def request_of(line: str, samples: int, works: tuple[str, ...]) -> tuple[int, int, str]:
    """Steps, batch and work of a request."""
    try:
        request = json.loads(line)
        steps, batch = request["steps"], request["batch"]
        work = request.get("work", "step")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused('expected {"steps": N, "batch": N} on one line') from None
    for name, value in (("steps", steps), ("batch", batch)):
        if type(value) is not int or value < 1:
            raise Refused(f"{name} must be a positive integer")
    if batch > samples:
        raise Refused(f"batch {batch} exceeds the {samples} samples: start with a larger --samples")
    if work not in works:
        raise Refused("work must be " + " or ".join(f'"{name}"' for name in works))
    return steps, batch, work


def serve(name: str, make_peer, missing: str) -> int:
    """Answers until stdin ends. `missing` is said where the framework gives no reason."""
    try:
        peer = make_peer()
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
        except Refused as error:
            reply = {"error": str(error)}
        except (RuntimeError, ValueError) as error:  # memory, or the compiler
            words = str(error).splitlines()
            reply = {"error": words[0] if words else type(error).__name__}
        print(json.dumps(reply), flush=True)
    return 0
