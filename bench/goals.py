#!/usr/bin/env python3
"""Measures the CPU's training step beside PyTorch and holds it to the goals.

    bench/goals.py build/cpu/cuvae [--out bench/results/cpu-step.md]

At batch 128: at least 0.75 of the machine's ceiling, and as many times faster than PyTorch (the
faster of eager and compiled) as the smaller of 1.5 and 0.9 of what the products alone would allow.
At batch 4096: at least 0.85 of the ceiling, and not slower. Each figure is the median of three runs
of `cuvae bench --peers`, whose repeats interleave ours, the ceiling's products and the peers. PyTorch
absent, or at another neg_elbo, fails the check; JAX's rows are told without a goal. Python's standard
library only; the peers run in scripts/peers-venv.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNS = 3
GOALS = {128: 0.75, 4096: 0.85}


def bench(binary, python, batch):
    command = [str(binary), "bench", "--device", "cpu", "--batch-size", str(batch), "--peers",
               "--python", python, "--json", "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"goals: `{' '.join(command)}` ended with status {done.returncode}")
    return json.loads(done.stdout)


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def judge(batch, runs):
    """Table rows of one batch size and the goals that are not met."""
    missed = []
    share = median(runs, "share_of_ceiling")
    rows = [f"| {batch} | cuvae | {median(runs, 'step_ms'):.3f} "
            f"| {median(runs, 'samples_per_second'):,.0f} | {median(runs, 'gemm_gflops'):.0f} of "
            f"{median(runs, 'ceiling_gflops'):.0f} | {share:.3f} | | |"]
    if not share >= GOALS[batch]:
        missed.append(f"batch {batch}: share of the ceiling {share:.3f}, goal {GOALS[batch]}")
    fastest = None
    for index, name in enumerate(peer["name"] for peer in runs[0]["peers"]):
        peers = [run["peers"][index] for run in runs]
        held_to = name.startswith("pytorch")
        absent = [peer["absent"] for peer in peers if "absent" in peer]
        withheld = [peer["withheld"] for peer in peers if "withheld" in peer]
        if absent or withheld:
            reason = f"absent ({absent[0]})" if absent else f"no peer ({withheld[0]})"
            if held_to:
                missed.append(f"batch {batch}: {name} is {reason}")
            else:
                rows.append(f"| {batch} | {name}: {reason} | | | | | | |")
            continue
        ratio, bound = median(peers, "ratio"), median(peers, "bound")
        rows.append(f"| {batch} | {name} {peers[0]['version']} | {median(peers, 'step_ms'):.3f} | "
                    f"| | | {ratio:.2f} | {bound:.2f} |")
        if held_to and (fastest is None or ratio < fastest[0]):
            fastest = (ratio, bound, name)
    if fastest is not None:
        ratio, bound, name = fastest
        goal = min(1.5, 0.9 * bound) if batch == 128 else 1.0
        if not ratio >= goal:
            missed.append(f"batch {batch}: {ratio:.2f} times {name}, goal {goal:.2f}")
    return rows, missed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--python", help="of an environment with PyTorch and JAX; "
                        "scripts/peers-venv's")
    parser.add_argument("--out", type=pathlib.Path, help="writes the table there, too")
    arguments = parser.parse_args()
    python = arguments.python or subprocess.run(
        [str(ROOT / "scripts/peers-venv"), "--jax"], stdout=subprocess.PIPE, text=True,
        check=True).stdout.strip()

    rows, missed, first = [], [], None
    for batch in GOALS:
        runs = [bench(arguments.binary, python, batch) for _ in range(RUNS)]
        first = first or runs[0]
        more, fails = judge(batch, runs)
        rows += more
        missed += fails
    kernels = os.environ.get("OPENBLAS_CORETYPE", "cuvae's own choice")
    text = "\n".join([
        "# The training step of the default model on a CPU", "",
        f"{datetime.date.today()}, {first['machine']}, {first['threads']} threads, "
        f"{platform.system()} {platform.machine()}, OPENBLAS_CORETYPE: {kernels}. Command: "
        f"`bench/goals.py build/cpu/cuvae`. Medians of {RUNS} runs, each of interleaved repeats. "
        "Peers: float32, data resident, no loader, fused Adam, the same threads.", "",
        "`share`: the step's matrix FLOP/s over the ceiling, the best that threaded OpenBLAS or our "
        "tiles reach on the step's products. `ratio`: the peer's step time over ours; `bound`: over "
        "our products alone.", "",
        "| batch | | ms a step | samples/s | GFLOP/s | share | ratio | bound |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |", *rows, "",
        *(f"Missed: {line}" for line in missed), *([""] if missed else ["All goals met.", ""])])
    print(text)
    if arguments.out:
        arguments.out.write_text(text)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
