#!/usr/bin/env python3
"""Predicts the step of the default model on an H200, phase by phase, from unit costs.

    bench/predict.py [--units FILE] [--kernels FILE] [--out bench/results/h200-predictions.md]

The unit costs are figures of others for an H100 or an H200 (each with its source below), until
--units replaces them by measured ones: the JSON lines of `cuvae-units`, `cuvae bench --suite units
--json`, or results.json of scripts/gpu-check. --kernels takes `cuvae bench --suite kernels --json`,
whose nodes are the plan as it is compiled: their work comes from there, and their times where they
were measured on a GPU. What was not measured says so.
"""

import argparse
import json
import pathlib
import re
import sys

UNMEASURED = "not measured yet"
MULTIPROCESSORS = 132
B, D, H, L = 128, 784, 512, 32  # batch, input, hidden, latent

# name: (value, unit, where the figure comes from, row and case of cuvae-units, factor to the unit)
UNITS = {
    "node": (1.40, "us", "a dependent kernel node of a CUDA graph, H100, flash-vla unit-coop",
             r"graph node", r"\d+ blocks of 256(?!.*programmatic)", 1),
    "node_pdl": (0.70, "us", "the same started programmatically: 0.5 to 0.9 us less (estimate)",
                 r"graph node", r"\d+ blocks of 256.*programmatic", 1),
    "hop": (0.651, "us", "red.release to ld.acquire in another block, H100, flash-vla unit-atomic",
            r"counter hop", r"red\.release", 1e-3),
    "l2_latency": (0.217, "us", "a bulk copy's first byte from L2, H100, flash-vla constants",
                   None, None, 1),
    "l2_per_kb": (0.0048, "us/KB", "the same, each KB into one multiprocessor", None, None, 1),
    "l2_rate": (5.5, "TB/s", "L2 bandwidth, H100 (estimate)", r"L2 bandwidth", r"", 1),
    "hbm_rate": (4.3, "TB/s", "device memory copy, H200, measured with a framework",
                 r"device memory copy", r"a kernel", 1),
    "tf32": (350.0, "TFLOP/s", "mma.sync: 1340 FLOP a cycle and multiprocessor at 1.98 GHz",
             r"mma\.sync tf32", r"16 warps", 1),
    "bf16": (700.0, "TFLOP/s", "mma.sync: 2680 FLOP a cycle and multiprocessor at 1.98 GHz",
             r"mma\.sync bf16", r"16 warps", 1),
    "epilogue": (0.15, "us", "registers to memory and the work between (estimate)", None, None, 1),
}

FORWARD = {"W1": 2 * B * D * H, "heads": 2 * B * H * 2 * L, "W3": 2 * B * L * H, "W4": 2 * B * H * D}
WEIGHTS = {"W1": D * H + H, "heads": H * 2 * L + 2 * L, "W3": L * H + H, "W4": H * D + D}


def update(name):
    """Bytes of dW + Adam: weight, both moments read and written."""
    return 6 * 4 * WEIGHTS[name]


# The nodes of the graph path: FLOPs, bytes through L2, bytes of device memory, on the critical path.
GRAPH = [
    ("E0: x W1 + b, relu", FORWARD["W1"], B * D + 4 * (WEIGHTS["W1"] + B * H), B * D, True),
    ("heads, sample, KL, first decoder layer", FORWARD["heads"] + FORWARD["W3"],
     4 * (WEIGHTS["heads"] + WEIGHTS["W3"] + 2 * B * H + 4 * B * L), 0, True),
    ("output layer, likelihood, d(logits)", FORWARD["W4"], B * D + 4 * (WEIGHTS["W4"] + B * H + B * D),
     0, True),
    ("dX of the output layer", FORWARD["W4"], 4 * (WEIGHTS["W4"] + B * D + 2 * B * H), 0, True),
    ("gradient of the latents, heads' dX", FORWARD["W3"] + FORWARD["heads"],
     4 * (WEIGHTS["W3"] + WEIGHTS["heads"] + 3 * B * H + 6 * B * L), 0, True),
    ("dW1 + Adam", FORWARD["W1"], update("W1") + B * D + 4 * B * H, 0, True),
    ("dW4 + Adam", FORWARD["W4"], update("W4") + 4 * (B * D + B * H), 0, False),
    ("dW3 + Adam", FORWARD["W3"], update("W3") + 4 * (B * H + B * L), 0, False),
    ("dW of the heads + Adam", FORWARD["heads"], update("heads") + 4 * (B * H + 2 * B * L), 0, False),
    ("rows of the next batch", 0, 16 * B, 0, False),
    ("loss and its parts", 2 * 2 * B, 4 * 2 * B, 0, False),
]

# The phases of the persistent path (kernels/persistent.cuh) as src/cuda/persistent_layout.h spreads
# them over an H200: FLOPs; KB that a block loads before its first product; blocks at work;
# instructions that a warp issues, for sm_90 in tf32 and in bf16; hops after it.
# The instructions are counted in the machine code that nvdisasm lists: from the barrier behind one
# wait to the signal before the next, along the branches that this model takes (relu, Bernoulli,
# bytes without a shift), loops by their turns; of P6 the mean of the fullest warp and another, which
# share a scheduler. What runs while a hop or another phase is under way is not in it.
PERSISTENT = [
    ("P1: x W0, by pieces of the input", FORWARD["W1"], 0.0, 96, (731, 823), 1),
    ("P2: h1", 0, 3 * 8 * H * 4 / 1024, 16, (397, 349), 0),
    ("P2: heads, z, KL, h2", FORWARD["heads"] + FORWARD["W3"], 0, 16, (1147, 1012), 1),
    ("P3: logits by pieces", FORWARD["W4"], B * 128 * 4 / 1024, 100, (603, 467), 1),
    ("P3: pieces exchanged, nll, d(logits)", 0, 4 * 32 * 32 * 4 / 1024, 100, (315, 303), 1),
    ("P4: d(logits) W3, by pieces of the outputs", FORWARD["W4"], B * 272 * 4 / 1024, 96,
     (845, 648), 1),
    ("P5: d(h2), dz, d(heads), d(h1)", FORWARD["W3"] + FORWARD["heads"], 4 * 8 * H * 4 / 1024, 16,
     (1658, 1646), 1),
    ("P6: dW0 + Adam, by its owner", FORWARD["W1"], B * 16 * 4 / 1024, 96, (1518, 1312), 0),
]
# Beside P6, P1 and h1: the middles update a share of their weights each, and fetch all of them anew.
MIDDLES = [
    ("dW1, dW2 + Adam, a share each", FORWARD["W3"] + FORWARD["heads"],
     (2 * L + 3 * 32) * B * 4 / 1024, 16, (1695, 1586), 1),
    ("the new weights", 0, (2 * L * H + H * L) * 4 / 1024, 16, (447, 468), 0),
]
SCHEDULER_GHZ = 1.98  # an instruction of one warp a cycle


def figures_in(text):
    """Figures of cuvae-units in any of the three forms."""
    try:
        document = json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    if "rows" in document:  # gpu-check
        return [figure for name, row in document["rows"].items() if "units" in name
                for figure in row.get("figures", [])]
    return document["results"] if "results" in document else [document]


def unit_costs(path):
    """{name: (value, unit, source)}; measured ones say so."""
    figures = figures_in(path.read_text()) if path else []
    costs = {}
    for name, (value, unit, source, row, case, factor) in UNITS.items():
        found = [f for f in figures if row and "value" in f and re.search(row, f.get("row", "")) and
                 re.search(case, f.get("case", ""))]
        # Of several cases the best: the roof, or what a well-shaped launch costs.
        best = max if unit == "TB/s" or unit == "TFLOP/s" else min
        costs[name] = ((factor * best(f["value"] for f in found), unit, "measured") if found else
                       (value, unit, source))
    return costs


def work_us(costs, precision, flops, l2, hbm):
    """The longer of the products and the memory behind them."""
    rate = costs[precision][0]
    return max(flops / rate * 1e-6, l2 / costs["l2_rate"][0] * 1e-6, hbm / costs["hbm_rate"][0] * 1e-6)


def graph_us(costs, precision, node, phase):
    _, flops, l2, hbm, _ = phase
    return (costs[node][0] + costs["l2_latency"][0] + work_us(costs, precision, flops, l2, hbm) +
            costs["epilogue"][0])


def persistent_us(costs, precision, phase):
    """The operands' arrival, the longer of issuing instructions and of the products, the hops."""
    _, flops, kilobytes, blocks, instructions, hops = phase
    load_us = costs["l2_latency"][0] + kilobytes * costs["l2_per_kb"][0] if kilobytes else 0
    issue_us = 2 * instructions[0 if precision == "tf32" else 1] / SCHEDULER_GHZ * 1e-3
    product_us = flops / costs[precision][0] * 1e-6 * MULTIPROCESSORS / blocks
    return load_us + max(issue_us, product_us) + hops * costs["hop"][0]


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head),
            *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows), ""]


def graph_section(costs):
    rows = []
    sums = [0.0] * 4
    columns = [(p, n) for p in ("tf32", "bf16") for n in ("node", "node_pdl")]
    for phase in GRAPH:
        name, flops, l2, hbm, critical = phase
        times = [graph_us(costs, p, n, phase) for p, n in columns]
        if critical:
            sums = [a + b for a, b in zip(sums, times)]
        rows.append((name, f"{flops * 1e-6:.2f}", f"{l2 * 1e-6:.3f}", f"{hbm * 1e-6:.3f}",
                     *(f"{t:.2f}" if critical else "beside" for t in times), UNMEASURED))
    rows.append(("**step: the critical path**", f"{sum(p[1] for p in GRAPH) * 1e-6:.1f}",
                 f"{sum(p[2] for p in GRAPH) * 1e-6:.1f}", f"{sum(p[3] for p in GRAPH) * 1e-6:.2f}",
                 *(f"**{t:.1f}**" for t in sums), UNMEASURED))
    beside = sum(work_us(costs, "tf32", *phase[1:4]) for phase in GRAPH if not phase[4])
    return ["## Graph path: one node a phase", "",
            "Time of a node: its start (with and without programmatic launch), the first bytes from "
            "L2, the longer of the products and the traffic, the epilogue. `beside`: on a second "
            f"branch of the graph, {beside:.1f} us of traffic in all that the critical path has to "
            "leave room for. All operands but the rows of the batch lie in L2.", "",
            *table(("phase", "MFLOP", "L2 MB", "HBM MB", "tf32, us", "tf32, programmatic",
                    "bf16, us", "bf16, programmatic", "measured, us"), rows)]


def persistent_row(costs, phase):
    times = {p: persistent_us(costs, p, phase) for p in ("tf32", "bf16")}
    return times, (phase[0], f"{phase[1] * 1e-6:.2f}", f"{phase[2]:.0f}", phase[3],
                   f"{phase[4][0]}, {phase[4][1]}", phase[5],
                   *(f"{t:.2f}" for t in times.values()), UNMEASURED)


def persistent_section(costs):
    rows = []
    sums = {"tf32": 0.0, "bf16": 0.0}
    before = dict(sums)
    beside = dict(sums)
    for phase in PERSISTENT:
        times, row = persistent_row(costs, phase)
        rows.append(row)
        for precision, value in times.items():
            sums[precision] += value
            if phase[0] == "P2: h1" or phase[0].startswith(("P1:", "P6:")):
                before[precision] += value
    for phase in MIDDLES:
        times, row = persistent_row(costs, phase)
        rows.append((f"beside P6, P1 and h1: {row[0]}", *row[1:]))
        for precision, value in times.items():
            beside[precision] += value
    excess = {p: max(0.0, beside[p] - before[p]) for p in sums}
    rows.append(("by which that is longer than these", *("",) * 5,
                 *(f"{t:.2f}" for t in excess.values()), UNMEASURED))
    rows.append(("**step**", f"{sum(p[1] for p in PERSISTENT) * 1e-6:.1f}", "", "", "",
                 sum(p[5] for p in PERSISTENT),
                 *(f"**{sums[p] + excess[p]:.1f}**" for p in sums), UNMEASURED))
    return ["## Persistent path: weights and moments on chip", "",
            "Time of a phase: the block's operands from L2, the longer of issuing its instructions and "
            "of the products at the rate of mma, the hops to the next phase. The update of the last "
            "layer runs inside a wait, those of the narrow layers beside P6, P1 and h1, and P6 runs "
            "straight into the next P1. Instructions are counted in the machine code, along the "
            "branches that this model takes; latencies within a phase, beyond that of its first "
            "operands, are not.", "",
            *table(("phase", "MFLOP", "KB a block loads", "blocks", "instructions a warp, tf32, bf16",
                    "hops", "tf32, us", "bf16, us", "measured, us"), rows)]


def kernels_section(costs, path):
    report = json.loads(path.read_text())
    on_gpu = str(report["device"]).startswith("cuda") and "runner" not in report["machine"].lower()
    rows = []
    total = 0.0
    for node in report["results"]:
        us = graph_us(costs, "tf32", "node", (None, 1e6 * node["mflop"], 1e6 * node["mbytes"], 0, True))
        total += us
        rows.append((f"`{node['node']}`", node["op"], f"{node['mflop']:.3f}", f"{node['mbytes']:.3f}",
                     f"{us:.2f}", f"{node['us']:.2f}" if on_gpu else UNMEASURED))
    rows.append(("**all, one after the other**", "", f"{sum(n['mflop'] for n in report['results']):.1f}",
                 f"{sum(n['mbytes'] for n in report['results']):.1f}", f"**{total:.1f}**",
                 UNMEASURED if not on_gpu else f"{sum(n['us'] for n in report['results']):.1f}"))
    return ["## The plan's nodes as they are compiled", "",
            f"Batch {report['batch']}; from `cuvae bench --suite kernels --json`" +
            ("" if on_gpu else ", as a CPU's plan has them: a GPU's reads the batch's bytes where this "
             "one gathers first, and has the heads and the layer behind them in one node each way") +
            ". Bytes are the least that must move, through L2. The prediction "
            "takes each node for dependent and without programmatic launch, in tf32.", "",
            *table(("node", "operator", "MFLOP", "MB", "predicted, us", "measured, us"), rows)]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=pathlib.Path, metavar="FILE", help="measured unit costs")
    parser.add_argument("--kernels", type=pathlib.Path, metavar="FILE", help="the plan's nodes")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE", help="instead of printing")
    options = parser.parse_args()
    try:
        costs = unit_costs(options.units)
        kernels = kernels_section(costs, options.kernels) if options.kernels else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"predict.py: error: not what it should be: {type(error).__name__}: {error}",
              file=sys.stderr)
        return 3
    measured = sum(source == "measured" for _, _, source in costs.values())
    lines = [
        "# The default model's step on an H200: predictions", "",
        "**Nothing here has been measured on a GPU yet**" if not measured else
        f"{measured} of {len(costs)} unit costs are measured", "",
        f"Model {D}-{H}-{L}, batch {B}, one step. Made by `bench/predict.py`; a prediction stands "
        "beside the place of its measurement, so that a miss shows where.", "",
        "## Unit costs", "",
        *table(("cost", "value", "unit", "from"),
               [(name, f"{value:.4g}", unit, source) for name, (value, unit, source) in
                costs.items()]),
        *graph_section(costs), *persistent_section(costs), *kernels]
    lines[2] += "." if measured else ": every time below is computed from the unit costs."
    text = "\n".join(lines)
    if options.out:
        options.out.write_text(text)
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
