#!/usr/bin/env python3
"""Tests of scripts/gpu-check with programs that only say what the real ones would.

    gpu_check_test.py [unittest's arguments]
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "scripts/gpu-check"

# Every fake notes its arguments in calls.log beside it, then does what the file named after its
# first argument (or itself) in `how/` says: a Python program with `words`, `here` and `value()`.
FAKE = """#!{python}
import json, pathlib, re, sys, time
here = pathlib.Path(__file__).resolve().parent
words = sys.argv[1:]
def value(flag):
    return words[words.index(flag) + 1]
with open(here / "calls.log", "a") as log:
    log.write(pathlib.Path(__file__).name + " " + " ".join(words) + "\\n")
name = pathlib.Path(__file__).name
for how in (name + "-" + (words[0] if words else ""), name):
    if (here / "how" / how).exists():
        exec((here / "how" / how).read_text())
        break
"""
SMI = 'print("Fake GPU, 1.2, 1 MiB, 1 MHz, 2 MHz, 3 MHz, 4 MHz, 5 W, 30")'
TRAIN = """
out = pathlib.Path(value("--out"))
(out / "checkpoints").mkdir(parents=True, exist_ok=True)
for file in ("model.safetensors", "checkpoints/last.safetensors"):
    (out / file).write_bytes(("weights of " + value("--epochs")).encode())
executor = value("--exec") if "--exec" in words else "graph"
print(json.dumps({"device": "cuda:0", "exec": executor}))
"""
COMPARE = """
print(json.dumps({"device": "cuda:0", "passed": True, "steps": 50,
                  "tensors": [{"tensor": "w", "share": 0.5, "passed": True}]}))
"""
BENCH = """
peers = [{"name": value("--peer"), "version": "1", "step_ms": 0.1, "step_ms_spread": 0.0,
          "neg_elbo": 100.0, "ratio": 8.0}] if "--peer" in words else []
step = {"model": "784-512-32", "precision": "tf32", "exec": value("--exec") if
        "--exec" in words else "graph", "batch": 128, "step_ms": 0.012,
        "step_ms_spread": 0.002, "device_ms": 0.011, "device_ms_spread": 0.001,
        "share_of_ceiling": 0.2, "roof_ms": 0.004, "peers": peers}
report = {"device": "cuda:0"}
suite = value("--suite") if "--suite" in words else None
if suite is None:
    report.update(step)
else:
    report["suite"] = suite
    report["results"] = {
        "step": [step, {"model": "m", "precision": "tf32", "batch": 9, "skipped": "too long"}],
        "wide": [step],
        "kernels": [{"node": "n", "op": "linear", "us": 2.0, "mflop": 1, "mbytes": 1,
                     "share_of_step": 1, "share_of_roof": 0.5}],
        "epochs": [{"epochs": 100, "batch": 128, "precision": "tf32", "exec": "graph",
                    "seconds": 0.55, "device_seconds": 0.54, "context_seconds": 0.3,
                    "build_seconds": 0.01, "upload_seconds": 0.01, "capture_seconds": 0.02,
                    "evaluate_seconds": 0.01, "neg_elbo": 101.0, "peers": peers}],
        "decode": [{"what": "decode", "batch": 1, "us": 5.0, "us_spread": 1.0, "run_us": 3.0,
                    "run_us_spread": 0.5, "gbytes_per_second": 500.0, "share_of_roof": 0.1}],
        "replicas": [{"replicas": 8, "batch": 128, "precision": "tf32", "exec": "graph",
                      "samples_per_second": 9e6, "samples_per_second_spread": 1e5,
                      "ratio": 3.5}]}[suite]
pathlib.Path(value("--out")).write_text(json.dumps(report))
print(json.dumps(report))
"""
# GoogleTest as far as the script looks at it; skips.txt and fails.txt hold names.
TESTS = """
names = [f"Table/GpuParity.Values/{op}_on_gpu_{p}" for op in ("gather", "linear")
         for p in ("fp32", "tf32")] + ["Gpu/GpuConformance.AsOnTheRunner/votes", "CudaDevices.TheReal",
                                       "BlasLt.Agrees"]
if "--gtest_list_tests" in words:
    print("Table/GpuParity.")
    for name in names:
        if "/GpuParity." in name:
            print("  " + name.split(".")[1] + "  # GetParam()")
    sys.exit(0)
import fnmatch
pattern = [w for w in words if w.startswith("--gtest_filter=")][0].split("=", 1)[1]
pattern = pattern.replace("ValuesMatchAPlainDoubleLoop", "Values")
positive, _, negative = pattern.partition("-")
chosen = [n for n in names if any(fnmatch.fnmatch(n, p) for p in positive.split(":"))
          and not any(negative and fnmatch.fnmatch(n, p) for p in negative.split(":"))]
listed = lambda file: (here / file).read_text().split() if (here / file).exists() else []
tests, bad = [], 0
for n in chosen:
    test = {"name": n.split(".")[1], "result": "COMPLETED"}
    if n in listed("skips.txt"):
        test["result"] = "SKIPPED"
        print("no GPU: the driver is asleep")
    if n in listed("fails.txt"):
        test["failures"] = [{"failure": "a.cpp:7\\n0.5 is not 1\\nmore"}]
        bad = 1
    tests.append((n.split(".")[0], test))
report = [w for w in words if w.startswith("--gtest_output=json:")][0].split(":", 1)[1]
pathlib.Path(report).write_text(json.dumps(
    {"testsuites": [{"name": suite, "testsuite": [test]} for suite, test in tests]}))
sys.exit(bad)
"""
UNITS_LIST = 'print("hop\\twhat\\nmma\\twhat")'
UNITS = """
print(json.dumps({"row": words[0], "case": "a", "value": 1.5, "low": 1, "high": 2, "unit": "us"}))
print(json.dumps({"row": words[0], "case": "b", "unavailable": "needs 9.0"}))
"""
# Runs what it is given, then its summary.
SANITIZER = """
import subprocess
start = next(i for i, w in enumerate(words) if w.startswith("/") )
status = subprocess.run(words[start:]).returncode
print("========= COMPUTE-SANITIZER")
if value("--tool") == "racecheck":
    print("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)")
else:
    print("========= ERROR SUMMARY: 0 errors")
sys.exit(status)
"""


class GpuCheck(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.place = pathlib.Path(self.folder.name)
        self.fakes = self.place / "fakes"
        (self.fakes / "how").mkdir(parents=True)
        self.out = self.place / "out"
        for name, how in (("nvidia-smi", SMI), ("cuvae-train", TRAIN), ("cuvae-compare", COMPARE),
                          ("cuvae-bench", BENCH), ("cuvae-tests", TESTS), ("cuvae-units", UNITS),
                          ("cuvae-units---list", UNITS_LIST), ("compute-sanitizer", SANITIZER),
                          ("cuvae", "")):
            self.fake(name, how)

    def fake(self, name, how):
        (self.fakes / "how" / name).write_text(how)
        program = self.fakes / re.match(
            r"cuvae-tests|cuvae-units|cuvae|nvidia-smi|compute-sanitizer|ncu", name)[0]
        program.write_text(FAKE.replace("{python}", sys.executable))
        program.chmod(0o755)

    def command(self, part, *flags):
        return [sys.executable, str(SCRIPT), "--part", part, "--binaries", str(self.fakes), "--out",
                str(self.out), *flags]

    def environment(self):
        return dict(os.environ, PATH=f"{self.fakes}:/usr/bin:/bin")

    def run_script(self, part, *flags):
        return subprocess.run(self.command(part, *flags), env=self.environment(), text=True,
                              capture_output=True, timeout=120)

    def rows(self, part="correctness"):
        rows = json.loads((self.out / "results.json").read_text())["rows"]
        return {row["row"]: row for row in rows.values() if row["part"] == part}

    def calls(self):
        return (self.fakes / "calls.log").read_text().splitlines()

    def summary(self):
        return (self.out / "summary.md").read_text()

    def quick(self, *patterns):
        return [word for pattern in patterns for word in ("--rows", pattern)] + ["--quick"]

    # All is well ------------------------------------------------------------------------------

    def test_passes_and_runs_nothing_twice(self):
        flags = self.quick("[!c]*", "compare*", "conformance")  # all but the curves
        done = self.run_script("correctness", *flags)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        rows = self.rows()
        self.assertEqual({row["status"] for row in rows.values()}, {"passed"})
        for name in ("parity gather", "parity linear", "graph = eager, bf16", "two runs, fp32",
                     "resumed = straight, tf32", "1 = 3 streams, fp32", "memcheck, products",
                     "racecheck, training, graph", "initcheck, other operators", "conformance"):
            self.assertIn(name, rows)
        self.assertIn("Fake GPU", self.summary())
        self.assertIn("clocks.max.sm 2 MHz", self.summary())
        before = len(self.calls())
        self.assertEqual(self.run_script("correctness", *flags).returncode, 0)
        again = self.calls()[before:]
        self.assertEqual([c for c in again if "nvidia-smi" not in c and "list_tests" not in c], [])
        before = len(self.calls())
        self.assertEqual(self.run_script("correctness", *flags, "--again").returncode, 0)
        self.assertTrue(any("train" in call for call in self.calls()[before:]))

    def test_another_build_is_checked_anew(self):
        self.run_script("units")
        with open(self.fakes / "cuvae-units", "a") as file:
            file.write("# rebuilt\n")
        listed = self.run_script("units", "--list").stdout
        self.assertEqual(listed, "left\thop\nleft\tmma\n")

    def test_units_and_bench(self):
        self.assertEqual(self.run_script("units").returncode, 0)
        self.assertEqual(len(self.rows("units")["hop"]["figures"]), 2)
        self.assertIn("| hop | a | 1.5 | 1 - 2 | us |", self.summary())
        self.assertIn("| hop | b | unavailable | | needs 9.0 |", self.summary())
        self.fake("ncu", "print('==ERROR== ERR_NVGPUCTRPERM: no permission'); sys.exit(1)")
        done = self.run_script("bench")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        rows = self.rows("bench")
        self.assertNotIn("units hop", rows)  # measured already, as a part of their own
        self.assertEqual(rows["ncu"]["status"], "unavailable")  # in its own words
        self.assertIn("ERR_NVGPUCTRPERM", rows["ncu"]["reason"])
        for name in ("step 128, bf16, persistent", "epochs, fp32, persistent", "replicas 8",
                     "step 128, bf16, graph", "epochs, tf32, graph", "jax scan, bf16, batch 128",
                     "pytorch max-autotune, tf32, batch 128", "large batches, bf16, jax scan",
                     "wide 4096, bf16, pytorch tuned graph", "decode, fp32", "kernels, bf16"):
            self.assertEqual(rows[name]["status"], "passed", name)
        for words in ("## units", "jax scan / cuvae", "by events",
                      "first launch to final synchronise | 0.55", "apart: context | 0.3",
                      "too long", "share of the roof", "cuvae persistent",
                      "8 side by side, batch 128, tf32 | times one | 3.5"):
            self.assertIn(words, self.summary())
        # Every report stays as it came.
        report = json.loads((self.out / "bench/large-batches-bf16-jax-scan.json").read_text())
        self.assertEqual(report["results"][0]["peers"][0]["name"], "jax scan")

    def test_units_come_first_in_a_benchmark(self):
        done = self.run_script("bench", *self.quick("units*", "step 128, tf32, graph"))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(list(self.rows("bench")), ["units hop", "units mma",
                                                    "step 128, tf32, graph"])

    def test_units_that_are_not_complete_are_measured_by_a_benchmark(self):
        self.fake("cuvae-units---list", 'print("hop\\t\\nmma\\t\\nl2\\t")')
        self.fake("cuvae-units-mma", "sys.exit(1)")
        self.assertEqual(self.run_script("units", "--rows", "hop", "--rows", "mma").returncode, 6)
        rows = ("--rows", "units*")
        names = lambda: [line.split("\t")[1] for line in
                         self.run_script("bench", *rows, "--list").stdout.splitlines()]
        self.assertEqual(names(), ["units mma", "units l2"])  # one failed, one is left
        with open(self.fakes / "cuvae-units", "a") as file:
            file.write("# rebuilt\n")
        self.assertEqual(names(), ["units hop", "units mma", "units l2"])

    def test_every_suite_is_given_the_flags_that_it_takes(self):
        self.assertEqual(self.run_script("bench", *self.quick(
            "step 128, tf32, graph", "epochs, tf32, graph", "decode, fp32", "replicas 8")
            ).returncode, 0)
        calls = [call for call in self.calls() if call.startswith("cuvae bench")]
        self.assertEqual(len(calls), 4)
        for call in calls:
            suite = re.search(r"--suite (\w+)", call)
            suite = suite[1] if suite else ""
            self.assertEqual("--repeats" in call, suite != "epochs", call)
            self.assertEqual("--steps" in call, suite not in ("epochs", "decode"), call)

    def test_what_a_suite_has_measured_outlives_it(self):
        self.fake("cuvae-bench", BENCH.replace("print(json.dumps(report))", "time.sleep(600)"))
        done = self.run_script("bench", *self.quick("large batches, bf16"), "--budget", "8")
        self.assertEqual(done.returncode, 6, done.stdout)
        row = self.rows("bench")["large batches, bf16"]
        self.assertIn("budget", row["reason"])
        self.assertIn("cuvae graph", [figure["case"] for figure in row["figures"]])

    def test_a_ratio_that_is_withheld(self):
        self.fake("cuvae-bench", BENCH.replace('"ratio": 8.0', '"withheld": "another neg_elbo"'))
        self.assertEqual(self.run_script("bench", *self.quick("jax scan, tf32*")).returncode, 0)
        self.assertIn("| jax scan / cuvae | unavailable | | another neg_elbo |", self.summary())
        self.assertNotIn("times", self.summary())

    # Something is not -------------------------------------------------------------------------

    def test_failures(self):
        (self.fakes / "fails.txt").write_text("Table/GpuParity.Values/linear_on_gpu_tf32")
        self.fake("cuvae-compare", COMPARE.replace('"share": 0.5, "passed": True',
                                                   '"share": 2.5, "passed": False, "index": "[1]",'
                                                   ' "step": 3') + "\nsys.exit(6)")
        self.fake("cuvae-train", TRAIN + """
if executor == "eager":
    (out / "model.safetensors").write_bytes(b"Weights of 1")
""")
        done = self.run_script("correctness", *self.quick("parity*", "compare", "graph*fp32",
                                                          "two*fp32"))
        self.assertEqual(done.returncode, 6, done.stdout + done.stderr)
        rows = self.rows()
        self.assertEqual(rows["parity gather"]["status"], "passed")
        self.assertEqual(rows["two runs, fp32"]["status"], "passed")
        for name, words in (("parity linear", "0.5 is not 1"), ("compare", "worst w at [1], step 3"),
                            ("graph = eager, fp32", "differs in 1 of 12 bytes")):
            self.assertEqual(rows[name]["status"], "failed")
            self.assertIn(words, rows[name]["reason"])
        self.assertIn("**failed**", self.summary())

    def test_what_runs_elsewhere_or_says_nothing_fails(self):
        self.fake("cuvae-train", TRAIN.replace('"cuda:0"', '"cpu"'))
        self.fake("cuvae-compare", "print('all is well')")
        self.fake("cuvae-units", "print(json.dumps({'row': 'a', 'case': '', 'value': float('nan')}))")
        done = self.run_script("correctness", *self.quick("two*fp32", "compare"))
        self.assertEqual(done.returncode, 6)
        self.assertIn("ran on cpu", self.rows()["two runs, fp32"]["reason"])
        self.assertIn("no JSON object", self.rows()["compare"]["reason"])
        self.assertEqual(self.run_script("units").returncode, 6)

    def test_sanitizers_find_and_refuse(self):
        rows = self.quick("memcheck, training, eager", "racecheck, training, eager")
        self.fake("compute-sanitizer", SANITIZER.replace("0 errors\"", "2 errors\"").replace(
            'print("========= COMPUTE-SANITIZER")', 'print("========= Invalid __global__ write")'))
        self.assertEqual(self.run_script("correctness", *rows).returncode, 6)
        reason = self.rows()["memcheck, training, eager"]["reason"]
        self.assertEqual(reason, "2 findings: Invalid __global__ write")
        self.assertEqual(self.rows()["racecheck, training, eager"]["status"], "passed")
        # A refusal is the machine's, also where errors follow from it.
        self.fake("compute-sanitizer", 'print("========= Error: Device not supported")\n'
                  'print("========= ERROR SUMMARY: 1 error")\nsys.exit(9)')
        done = self.run_script("correctness", *rows, "--again")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("Device not supported", self.rows()["memcheck, training, eager"]["reason"])
        self.fake("compute-sanitizer", "sys.exit(1)")  # neither a summary nor a refusal
        self.assertEqual(self.run_script("correctness", *rows, "--again").returncode, 6)
        (self.fakes / "compute-sanitizer").unlink()
        self.assertEqual(self.run_script("correctness", *rows, "--again").returncode, 0)
        self.assertIn("not on PATH", self.rows()["memcheck, training, eager"]["reason"])

    def test_skipped_tests_and_absent_peers_are_unavailable(self):
        (self.fakes / "skips.txt").write_text("CudaDevices.TheReal")
        self.assertEqual(self.run_script("correctness", *self.quick("runtime")).returncode, 0)
        self.assertEqual(self.rows()["runtime"]["status"], "unavailable")
        self.assertIn("the driver is asleep", self.rows()["runtime"]["reason"])
        self.fake("cuvae-bench", BENCH.replace('"version": "1", ', '"absent": "no JAX here", '))
        self.assertEqual(self.run_script("bench", *self.quick("jax*128")).returncode, 0)
        self.assertIn("no JAX here", self.rows("bench")["jax scan, fp32, batch 128"]["reason"])

    def test_missing_files_and_no_gpu(self):
        for name, part in (("cuvae", "bench"), ("cuvae-tests", "correctness")):
            (self.fakes / name).rename(self.fakes / "gone")
            done = self.run_script(part)
            self.assertEqual((done.returncode, len(done.stderr.splitlines())), (3, 1), done.stderr)
            (self.fakes / "gone").rename(self.fakes / name)
        self.assertEqual(self.run_script("correctness", "--data", "/nonexistent").returncode, 3)
        self.assertEqual(self.run_script("units", "--rows", "nothing").returncode, 2)
        self.assertEqual(self.run_script("units", "--budget", "-1").returncode, 2)
        self.out.mkdir(exist_ok=True)
        (self.out / "results.json").write_text("{]")
        self.assertEqual(self.run_script("units").returncode, 3)
        self.fake("nvidia-smi", "print('No devices were found'); sys.exit(6)")
        done = self.run_script("units")
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (4, 1), done.stderr)

    # Time -------------------------------------------------------------------------------------

    def test_a_row_that_hangs_fails_or_is_left_and_the_rest_goes_on(self):
        self.fake("cuvae-units-hop", "time.sleep(600)")
        done = self.run_script("units", "--budget", "7")
        self.assertEqual(done.returncode, 6, done.stdout)  # it had the whole budget
        self.assertIn("budget", self.rows("units")["hop"]["reason"])
        self.assertEqual(self.run_script("units", "--budget", "7").returncode, 6)
        self.assertEqual(self.rows("units")["mma"]["status"], "passed")

    def test_what_the_budget_cuts_is_left_for_the_next_call_and_comes_last(self):
        self.fake("cuvae-units---list", 'print("slow\\t\\nlong\\t\\nmma\\t")')
        self.fake("cuvae-units-slow", "time.sleep(2)\n" + UNITS)
        self.fake("cuvae-units-long", "time.sleep(600)")
        done = self.run_script("units", "--budget", "9")
        self.assertEqual(done.returncode, 75, done.stdout)
        self.assertEqual(self.run_script("units", "--list").stdout,
                         "passed\tslow\nleft\tlong\nleft\tmma\n")
        self.assertIn("1 passed, 0 failed, 0 unavailable, 2 left", self.summary())
        self.fake("cuvae-units-long", UNITS)
        self.assertEqual(self.run_script("units").returncode, 0)
        order = [c.split()[1] for c in self.calls() if c.startswith("cuvae-units") and "-" not in
                 c.split()[1]]
        self.assertEqual(order, ["slow", "long", "mma", "long"])

    def test_goes_on_after_it_was_killed(self):
        self.fake("cuvae-units-mma", "(here / 'pid').write_text(str(__import__('os').getpid()))\n"
                  "time.sleep(600)")
        for sign, status in ((signal.SIGTERM, 130), (signal.SIGKILL, -9)):
            (self.fakes / "pid").unlink(missing_ok=True)
            script = subprocess.Popen(self.command("units"), env=self.environment(),
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            deadline = time.monotonic() + 60
            while not (self.fakes / "pid").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.1)
            script.send_signal(sign)
            script.communicate(timeout=60)
            self.assertEqual(script.returncode, status)
            child = int((self.fakes / "pid").read_text())
            if sign == signal.SIGTERM:
                self.assertFalse(pathlib.Path(f"/proc/{child}").exists(), "a child was left behind")
            else:
                os.kill(child, signal.SIGKILL)
            self.assertEqual(self.rows("units")["hop"]["status"], "passed")
            self.assertNotIn("mma", self.rows("units"))
        self.fake("cuvae-units-mma", UNITS)
        self.assertEqual(self.run_script("units").returncode, 0)
        self.assertEqual(sum(call == "cuvae-units hop" for call in self.calls()), 1)


class OnTheRunner(GpuCheck):
    """With the program itself, on the SIMT runner: CUVAE_SIMT names it."""

    def setUp(self):
        super().setUp()
        self.program = os.environ.get("CUVAE_SIMT")
        if not self.program:
            self.skipTest("CUVAE_SIMT names no program")
        (self.fakes / "cuvae").unlink()
        (self.fakes / "cuvae").symlink_to(self.program)

    def test_trainings_and_comparisons(self):
        done = self.run_script("correctness", *self.quick("compare*", "graph = eager, fp32",
                                                          "two runs, tf32", "resumed*bf16",
                                                          "1 = 3*fp32"))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(len(self.rows()), 9)
        self.assertEqual({row["status"] for row in self.rows().values()}, {"passed"})


# The fakes' tests need not run twice.
for name in [name for name in dir(GpuCheck) if name.startswith("test_")]:
    setattr(OnTheRunner, name, None)

if __name__ == "__main__":
    unittest.main()
