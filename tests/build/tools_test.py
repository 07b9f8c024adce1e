#!/usr/bin/env python3
"""Tests of the scripts that read machine code and measurements, on made-up ones.

    tools_test.py [unittest's arguments]
"""

import importlib.machinery
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "scripts"))


def load(path):
    loader = importlib.machinery.SourceFileLoader(path.stem.replace("-", "_"), str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


class Temporary(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.place = pathlib.Path(folder.name)

    def run_tool(self, *words):
        return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True,
                              timeout=60)


class MachineCode(Temporary):
    """nvdisasm is a fake that prints what stands in the cubin."""

    TENSOR = "_ZN5cuvae3gpu4gemmINS0_6TensorINS0_4Tf32EEEEEvPf"  # gemm<Tensor<Tf32> >(float*)
    IMPLICIT = "_ZN5cuvae3gpu8convolveINS0_6TensorINS0_4Tf32EEEEEvPf"
    PLAIN = "_ZN5cuvae3gpu4elboEPf"
    GOOD = ("@!P0 LDGSTS.E.BYPASS.128.ZFILL [R1], [R2.64]", "HMMA.1688.F32.TF32 R4, R8, R9, R4",
            "LDG.E R3, [R2.64]", "@P0 STG.E [R2.64], R3", "LDGDEPBAR", "LDS R1, [R2]", "STS [R2], R1",
            "ATOMG.E.ADD.STRONG.GPU PT, R9, [R4.64], R9", "EXIT")

    def check(self, kernels, *flags):
        tool = self.place / "bin/nvdisasm"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text("#!/bin/sh\ncat \"$2\"\n")
        tool.chmod(0o755)
        cubins = self.place / "cubins"
        cubins.mkdir(exist_ok=True)
        text = "".join(
            f"\t.section\t.text.{name},\"ax\",@progbits\n.text.{name}:\n" +
            "".join(f"        /*{16 * i:04x}*/                   {line} ;\n"
                    for i, line in enumerate(code)) +
            f"\t.section\t.nv.info.{name},\"\",@\"SHT_CUDA_INFO\"\n"
            for name, code in kernels.items())
        (cubins / "all.cubin").write_text(text)
        return subprocess.run(
            [sys.executable, str(ROOT / "scripts/machine-code"), "--cubins", str(cubins), *flags],
            capture_output=True, text=True, env={"PATH": f"{tool.parent}:/usr/bin:/bin"}, timeout=60)

    def test_what_is_right_passes(self):
        done = self.check({self.TENSOR: self.GOOD, self.PLAIN: self.GOOD[2:]}, "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        kernels = {row["kernel"]: row for row in json.loads(done.stdout)["kernels"]}
        product = kernels["gemm<Tensor<Tf32> >"]
        self.assertEqual((product["mma"], product["copies_128"], product["instructions"]), (1, 1, 9))
        self.assertEqual(kernels["elbo"]["mma"], 0)

    def test_what_is_wrong_is_named(self):
        swaps = {"no mma in TF32": ("HMMA.1688.F32.TF32", "HMMA.16816.F32.BF16"),
                 "no asynchronous copy of 128 bits": ("LDGSTS.E.BYPASS.128.ZFILL", "LDGSTS.E"),
                 "1 accesses of local memory": ("STS [R2]", "STL [R1]"),
                 "1 accesses by generic addresses": ("ATOMG.", "ATOM.")}
        for words, (old, new) in swaps.items():
            code = [line.replace(old, new) for line in self.GOOD]
            self.assertNotEqual(code, list(self.GOOD))
            done = self.check({self.TENSOR: code})
            self.assertEqual(done.returncode, 1, words)
            self.assertEqual(done.stderr, f"machine-code: gemm<Tensor<Tf32> >: {words}\n")

    def test_an_implicit_product_copies_element_by_element(self):
        narrow = [line.replace("LDGSTS.E.BYPASS.128.ZFILL", "LDGSTS.E") for line in self.GOOD]
        done = self.check({self.IMPLICIT: narrow})
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        for kernel in (self.IMPLICIT, self.TENSOR):
            done = self.check({kernel: [line for line in self.GOOD if "LDGSTS" not in line]})
            self.assertEqual(done.returncode, 1)
            self.assertTrue(done.stderr.endswith(": no asynchronous copy\n"), done.stderr)

    def test_no_products_is_no_pass(self):
        done = self.check({self.PLAIN: self.GOOD[2:]})
        self.assertEqual(done.returncode, 1)
        self.assertIn("no kernel is a product", done.stderr)

    def test_one_of_several_makes_the_environment(self):
        """Without nvdisasm on PATH; a Python whose venv and pip are made up."""
        python = self.place / "bin/python3"
        python.parent.mkdir()
        python.write_text(f"""#!/bin/sh
if [ "$2" = venv ]; then
  echo "$*" >>'{self.place}/calls'
  rm -rf "$4"
  mkdir -p "$4/bin"
  cp "$0" "$4/bin/python"
elif [ "$2" = pip ]; then
  sleep 0.5
  folder=$(dirname "$(dirname "$0")")/lib/python3/site-packages/nvidia/cu13/bin
  mkdir -p "$folder"
  printf '#!/bin/sh\\ncat "$2"\\n' >"$folder/nvdisasm"
  chmod +x "$folder/nvdisasm"
else
  exec '{sys.executable}' "$@"
fi
""")
        python.chmod(0o755)
        # The script asks for its own interpreter: it is to be the made-up one.
        start = ("import runpy, sys; sys.executable = sys.argv.pop(1); sys.argv.pop(0); "
                 "runpy.run_path(sys.argv[0], run_name='__main__')")
        cubins = self.place / "cubins"
        cubins.mkdir()
        (cubins / "all.cubin").write_text(f"\t.section\t.text.{self.TENSOR},\"ax\"\n" + "".join(
            f"        /*{16 * i:04x}*/   {line} ;\n" for i, line in enumerate(self.GOOD)))
        environment = {"PATH": "/usr/bin:/bin", "CUVAE_CACHE": str(self.place / "cache"),
                       "PYTHONPATH": str(ROOT / "scripts")}
        command = [sys.executable, "-c", start, str(python), str(ROOT / "scripts/machine-code"),
                   "--cubins", str(cubins)]
        running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, text=True) for _ in range(3)]
        for process in running:
            _, said = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0, said)
        self.assertEqual(len((self.place / "calls").read_text().splitlines()), 1)

    def test_usage(self):
        for words, status in ((["--arch", "90"], 2), (["x.cu"], 3), (["x.cpp"], 2),
                              (["--cubins", self.place, ROOT / "kernels/elbo.cu"], 2)):
            done = self.run_tool(ROOT / "scripts/machine-code", *words)
            self.assertEqual((done.returncode, len(done.stderr.splitlines())), (status, 1),
                             done.stderr)


class Predict(Temporary):
    SCRIPT = ROOT / "bench/predict.py"

    def test_the_committed_table_is_what_the_script_makes(self):
        predict = load(self.SCRIPT)
        text = (ROOT / "bench/results/h200-predictions.md").read_text()
        for line in (*predict.graph_section(predict.unit_costs(None)),
                     *predict.persistent_section(predict.unit_costs(None))):
            self.assertIn(line, text, "make it again: bench/predict.py --out")

    def test_the_work_is_the_step_s(self):
        predict = load(self.SCRIPT)
        # 551.6 MFLOP of products; the weights and moments of 853,840 parameters move once.
        flops = sum(phase[1] for phase in predict.GRAPH[:9])
        self.assertAlmostEqual(flops * 1e-6, 551.55, delta=0.05)
        self.assertEqual(sum(predict.WEIGHTS.values()), 853840)

    def test_measured_costs_replace_the_others(self):
        figures = [{"row": "graph node", "case": "1 block of 256 threads", "value": 0.5, "unit": "us"},
                   {"row": "graph node", "case": "132 blocks of 256 threads", "value": 2.0,
                    "unit": "us"},
                   {"row": "graph node", "case": "132 blocks of 256 threads, programmatic",
                    "value": 1.5, "unit": "us"},
                   {"row": "counter hop", "case": "red.release, ld.acquire", "value": 800,
                    "unit": "ns"},
                   {"row": "mma.sync tf32", "case": "16 warps a multiprocessor, random operands",
                    "unavailable": "no"}]
        forms = {"lines": "\n".join(map(json.dumps, figures)),
                 "suite": json.dumps({"suite": "units", "results": figures}),
                 "check": json.dumps({"rows": {"units/graphs": {"figures": figures[:3]},
                                               "bench/units barriers": {"figures": figures[3:]},
                                               "bench/step": {"figures": [{"row": "counter hop",
                                                   "case": "red.release", "value": 1}]}}})}
        predict = load(self.SCRIPT)
        for name, text in forms.items():
            path = self.place / name
            path.write_text(text)
            costs = predict.unit_costs(path)
            self.assertEqual(costs["node"], (2.0, "us", "measured"), name)
            self.assertEqual(costs["node_pdl"], (1.5, "us", "measured"), name)
            self.assertEqual(costs["hop"], (0.8, "us", "measured"), name)
            self.assertEqual(costs["tf32"][0], 350.0, name)
        done = self.run_tool(self.SCRIPT, "--units", self.place / "lines")
        self.assertIn("3 of 10 unit costs are measured", done.stdout)
        self.assertIn("| not measured yet |", done.stdout)

    def test_bad_files_are_one_line(self):
        (self.place / "bad").write_text("{]")
        for flag in ("--units", "--kernels"):
            done = self.run_tool(self.SCRIPT, flag, self.place / "bad")
            self.assertEqual((done.returncode, len(done.stderr.splitlines())), (3, 1), done.stderr)


class Plot(Temporary):
    SCRIPT = ROOT / "bench/plot.py"
    REPORT = {"machine": "m", "threads": 2, "results": [
        {"batch": 128, "precision": "fp32", "exec": "eager", "step_ms": 2.0, "step_ms_spread": 0.1,
         "roof_ms": 1.0, "peers": [
             {"name": "a", "version": "1", "step_ms": 4.0, "step_ms_spread": 0.0, "ratio": 2.0},
             {"name": "b", "absent": "not here"},
             {"name": "c", "version": "1", "step_ms": 1.0, "step_ms_spread": 0.0,
              "withheld": "another neg_elbo"}]},
        {"batch": 4096, "precision": "fp32", "skipped": "too long"}]}

    def test_only_what_is_comparable_is_drawn(self):
        series, left_out = load(self.SCRIPT).series_of([self.REPORT])
        self.assertEqual(series, {"cuvae (fp32, eager)": [(128, 2.0, 0.1)], "roof (fp32)": [(128, 1.0, 0.0)],
                                  "a 1 (fp32)": [(128, 4.0, 0.0)]})
        self.assertEqual(left_out, ["b, batch 128: not here", "c, batch 128: another neg_elbo",
                                    "cuvae fp32, batch 4096: too long"])

    def test_executors_are_lines_of_their_own(self):
        def report(executor, ms, roof, peer):
            rows = [{"batch": batch, "precision": "tf32", "exec": executor, "step_ms": ms,
                     "step_ms_spread": 0.0, "roof_ms": roof, "peers": [
                         {"name": "a", "version": "1", "step_ms": peer, "step_ms_spread": 0.5,
                          "ratio": 2.0}]} for batch in (256, 128)]
            return {"machine": "m", "threads": 0, "results": rows}
        series, _ = load(self.SCRIPT).series_of([report("graph", 3.0, 1.0, 9.0),
                                                 report("persistent", 2.0, 1.5, 8.0)])
        self.assertEqual(series, {
            "cuvae (tf32, graph)": [(128, 3.0, 0.0), (256, 3.0, 0.0)],
            "cuvae (tf32, persistent)": [(128, 2.0, 0.0), (256, 2.0, 0.0)],
            "roof (tf32)": [(128, 1.0, 0.0), (256, 1.0, 0.0)],
            "a 1 (tf32)": [(128, 8.0, 0.5), (256, 8.0, 0.5)]})

    def test_a_second_measurement_is_a_line_of_its_own(self):
        later = json.loads(json.dumps(self.REPORT))
        later["results"][0]["step_ms"] = 3.0
        series, _ = load(self.SCRIPT).series_of([self.REPORT, later])
        self.assertEqual(series["cuvae (fp32, eager)"], [(128, 2.0, 0.1)])
        self.assertEqual(series["cuvae (fp32, eager), 2"], [(128, 3.0, 0.1)])

    def test_a_picture_or_a_line(self):
        path = self.place / "step.json"
        path.write_text(json.dumps(self.REPORT))
        done = self.run_tool(self.SCRIPT, path)
        if done.returncode == 4:  # no matplotlib
            self.assertEqual(len(done.stderr.splitlines()), 1)
            self.assertIn("peers-venv --plot", done.stderr)
        else:
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual((self.place / "step.png").read_bytes()[:4], b"\x89PNG")
        path.write_text('{"results": [{}]}')
        self.assertEqual(self.run_tool(self.SCRIPT, path).returncode, 3)
        path.write_text('{"results": []}')
        self.assertEqual(self.run_tool(self.SCRIPT, path).returncode, 3)


class Pitfalls(Temporary):
    """tests/pitfalls.md and the table of tutorial bugs name tests that there are."""

    def setUp(self):
        super().setUp()
        self.tests = set()
        for path in (ROOT / "tests").rglob("*.cpp"):
            self.tests.update(
                ".".join(name) for name in re.findall(
                    r"TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\s*\)", path.read_text()))

    def exists(self, name):
        suite, test = name.split(".")
        if test == "*":
            return any(one.startswith(suite + ".") for one in self.tests)
        return name in self.tests or re.match(r"Likelihoods\.Golden(InFloat)?_[a-z_]+$", name)

    def test_every_pitfall_has_tests_that_exist(self):
        rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$",
                          (ROOT / "tests/pitfalls.md").read_text(), re.MULTILINE)
        self.assertEqual([int(number) for number, _ in rows], [*range(1, 24)])
        for number, tests in rows:
            names = re.findall(r"`(\w+\.[\w*]+)`", tests)
            if int(number) not in (16, 17, 18, 19, 22):  # of what there is not here
                self.assertTrue(names, number)
            for name in names:
                self.assertTrue(self.exists(name), name)
        for name in ("Pitfall1.IsNotThere", "NoSuite.*"):
            self.assertFalse(self.exists(name), name)

    def test_every_tutorial_bug_is_guarded(self):
        bugs = load(ROOT / "bench/tutorial_bugs.py")
        self.assertEqual(sorted(bugs.GUARDS), sorted(bugs.WRONG))
        self.assertEqual("".join(sorted(bugs.GUARDS)), "abcdefghijk")
        for names in bugs.GUARDS.values():
            for name in names:
                self.assertTrue(self.exists(name), name)
        # The table of the README is the measured one.
        measured = (ROOT / "bench/results/tutorial-bugs.md").read_text()
        table = measured[measured.index("| mistake"):].strip()
        self.assertIn(table, (ROOT / "README.md").read_text())

    def test_arithmetic_of_the_table(self):
        bugs = load(ROOT / "bench/tutorial_bugs.py")
        self.assertEqual(bugs.sigmoid32(16.7), 1.0)
        self.assertLess(bugs.sigmoid32(16.5), 1.0)
        self.assertIn("17.33", bugs.log_of_zero()[3])
        self.assertIn("16.1 by", bugs.log_of_zero()[3])
        self.assertIn("88.7", bugs.explosion()[3])
        path = self.place / "x.npy"
        header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }".ljust(117) + "\n"
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") +
                         header.encode() + b"\x00\x00\x80?\x00\x00\x00@")
        shape, values = bugs.npy(path)
        self.assertEqual((shape, list(values)), ((2, 1), [1.0, 2.0]))


if __name__ == "__main__":
    unittest.main()
