#!/usr/bin/env python3
"""Draws step time against batch size, ours and the peers', with the roof of the machine.

    "$(scripts/peers-venv --plot)" bench/plot.py step.json [--out step.png] [--title TEXT]

Reads what `cuvae bench --suite step --peers --out step.json` wrote, of several runs where several
files are given (one precision or executor each). The roof is the longer of the step's FLOPs at the
rate that products reach and its least bytes at the rate that copies reach, both measured in the same
run. Needs matplotlib: from that environment, or Debian's python3-matplotlib.
"""

import argparse
import json
import pathlib
import sys


def series_of(reports):
    """{name: [(batch, ms, spread)]}, the roof's among them, and what was left out, with reasons."""
    series, left_out = {}, []

    def add(name, batch, ms, spread=0.0):
        # Of several reports that have the same roof or peer: the faster.
        points = series.setdefault(name, {})
        points[batch] = min(points.get(batch, (ms, spread)), (ms, spread))

    def add_ours(name, batch, ms, spread):
        # A second measurement is a curve of its own.
        number, label = 1, name
        while batch in series.get(label, {}):
            number += 1
            label = f"{name}, {number}"
        add(label, batch, ms, spread)

    for report in reports:
        for row in report["results"]:
            batch = row["batch"]
            if "skipped" in row:
                left_out.append(f"cuvae {row['precision']}, batch {batch}: {row['skipped']}")
                continue
            add_ours(f"cuvae ({row['precision']}, {row['exec']})", batch, row["step_ms"],
                     row["step_ms_spread"])
            if row.get("roof_ms"):
                add(f"roof ({row['precision']})", batch, row["roof_ms"])
            for peer in row.get("peers", []):
                if "absent" in peer:
                    left_out.append(f"{peer['name']}, batch {batch}: {peer['absent']}")
                elif "withheld" in peer:  # it does other work: no curve beside ours
                    left_out.append(f"{peer['name']}, batch {batch}: {peer['withheld']}")
                else:
                    add(f"{peer['name']} {peer['version']} ({row['precision']})", batch,
                        peer["step_ms"], peer["step_ms_spread"])
    return {name: [(batch, *points[batch]) for batch in sorted(points)]
            for name, points in series.items()}, left_out


def draw(reports, series, out, title):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(figsize=(8, 5.5))
    for name, points in series.items():
        batches, times, spreads = zip(*points)
        if name.startswith("roof"):
            axes.plot(batches, times, color="0.35", linestyle="--", linewidth=1.2, label=name)
            continue
        ours = name.startswith("cuvae")
        axes.errorbar(batches, times, yerr=[s / 2 for s in spreads], marker="o" if ours else ".",
                      linewidth=2.2 if ours else 1.2, capsize=2, label=name, zorder=3 if ours else 2)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    batches = sorted({batch for points in series.values() for batch, _, _ in points})
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.minorticks_off()
    axes.set_xlabel("batch size")
    axes.set_ylabel("ms a training step (median, quartiles)")
    first = reports[0]
    axes.set_title(title or f"One training step of 784-512-32 on {first['machine']}"
                   + (f", threads: {first['threads']}" if first["threads"] else ""))
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path, metavar="FILE.json")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE.png",
                        help="default: beside the first file")
    parser.add_argument("--title")
    options = parser.parse_args()
    try:
        reports = [json.loads(path.read_text()) for path in options.files]
        series, left_out = series_of(reports)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"plot.py: error: no report of the suite step: {type(error).__name__}: {error}",
              file=sys.stderr)
        return 3
    if not series:
        print("plot.py: error: nothing was measured in it", file=sys.stderr)
        return 3
    out = options.out or options.files[0].with_suffix(".png")
    try:
        draw(reports, series, out, options.title)
    except ImportError:
        print("plot.py: error: no matplotlib: run it with $(scripts/peers-venv --plot), or install "
              "python3-matplotlib", file=sys.stderr)
        return 4
    for line in left_out:
        print(f"plot.py: left out: {line}", file=sys.stderr)
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
