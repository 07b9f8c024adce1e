#!/usr/bin/env python3
"""Tests of the PyTorch scripts: parity script, peer of the benchmark, learning curve.

    "$(scripts/peers-venv --jax)" tests/golden/test_scripts.py

The parity script is held against a VAE written in NumPy, in double, with its gradients by hand.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import io
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import unittest

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PEERS = os.path.join(ROOT, "bench", "peers")
sys.path.insert(0, PEERS)
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(ROOT, "bench"))

import torch  # noqa: E402
import free_runs  # noqa: E402
import idx  # noqa: E402
import make_mnist_mlp  # noqa: E402
import torch_presets  # noqa: E402
import torch_vae  # noqa: E402

INPUT, HIDDEN, LATENT, BATCH, STEPS, SAMPLES = 36, 20, 3, 8, 120, 50
CONFIG = {"batch_size": BATCH, "lr": 1e-3, "beta": 0.7, "hidden": HIDDEN, "latent": LATENT,
          "seed": 0}


def write_idx(path, array):
    with gzip.open(path, "wb") as file:
        file.write(b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape))
        file.write(array.tobytes())


def write_npy(path, array):
    header = (f"{{'descr': '{array.dtype.str}', 'fortran_order': False, "
              f"'shape': {array.shape}, }}").encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + array.tobytes())


def write_safetensors(path, tensors):
    header, body = {}, b""
    for name, value in tensors.items():
        raw = np.ascontiguousarray(value, "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(value.shape),
                        "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + body)


def bound(v):
    """Soft bound of logvar and its derivative."""
    t = np.tanh((np.abs(v) - 10) / 10)
    inside = np.abs(v) <= 10
    return np.where(inside, v, np.sign(v) * (10 + 10 * t)), np.where(inside, 1.0, 1 - t * t)


def numpy_step(p, x, eps, beta):
    """(loss, reconstruction, kl) and the gradients, in double."""
    n = len(x)
    a1 = x @ p["encoder.0.weight"].T + p["encoder.0.bias"]
    h1 = np.maximum(a1, 0)
    mean = h1 @ p["encoder.mean.weight"].T + p["encoder.mean.bias"]
    logvar, slope = bound(h1 @ p["encoder.logvar.weight"].T + p["encoder.logvar.bias"])
    sigma = np.exp(logvar / 2)
    z = mean + eps * sigma
    a2 = z @ p["decoder.0.weight"].T + p["decoder.0.bias"]
    h2 = np.maximum(a2, 0)
    logits = h2 @ p["decoder.out.weight"].T + p["decoder.out.bias"]
    reconstruction = np.sum(np.maximum(logits, 0) - logits * x + np.log1p(np.exp(-np.abs(logits)))) / n
    kl = 0.5 * np.sum(mean**2 + np.exp(logvar) - logvar - 1) / n
    d_logits = (1 / (1 + np.exp(-logits)) - x) / n
    d_a2 = (d_logits @ p["decoder.out.weight"]) * (a2 > 0)
    d_z = d_a2 @ p["decoder.0.weight"]
    d_mean = d_z + beta * mean / n
    d_logvar = (d_z * eps * sigma / 2 + beta * 0.5 * (np.exp(logvar) - 1) / n) * slope
    d_a1 = (d_mean @ p["encoder.mean.weight"] + d_logvar @ p["encoder.logvar.weight"]) * (a1 > 0)
    g = {}
    for name, dy, x_in in (("encoder.0", d_a1, x), ("encoder.mean", d_mean, h1),
                           ("encoder.logvar", d_logvar, h1), ("decoder.0", d_a2, z),
                           ("decoder.out", d_logits, h2)):
        g[name + ".weight"], g[name + ".bias"] = dy.T @ x_in, dy.sum(0)
    return (reconstruction + beta * kl, reconstruction, kl), g


def make_export(folder):
    """The folder that cuvae would export, and its data; the reference is NumPy's."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (SAMPLES, 6, 6), dtype=np.uint8)
    write_idx(os.path.join(folder, "train-images-idx3-ubyte.gz"), images)
    layers = {"encoder.0": (HIDDEN, INPUT), "encoder.mean": (LATENT, HIDDEN),
              "encoder.logvar": (LATENT, HIDDEN), "decoder.0": (HIDDEN, LATENT),
              "decoder.out": (INPUT, HIDDEN)}
    initial = {}
    for name, shape in layers.items():
        limit = 1 / np.sqrt(shape[1])
        initial[name + ".weight"] = rng.uniform(-limit, limit, shape).astype("<f4")
        initial[name + ".bias"] = rng.uniform(-limit, limit, shape[0]).astype("<f4")
    initial["encoder.logvar.bias"][0] = 12.0  # beyond the bound's straight part
    batches = rng.integers(0, SAMPLES, (STEPS, BATCH)).astype("<i8")
    noise = rng.standard_normal((STEPS, BATCH, LATENT)).astype("<f4")

    p = {name: value.astype(np.float64) for name, value in initial.items()}
    m, v = ({name: np.zeros_like(value) for name, value in p.items()} for _ in range(2))
    losses, first = [], None
    for step in range(STEPS):
        x = images.reshape(SAMPLES, -1)[batches[step]] / 255.0
        terms, g = numpy_step(p, x, noise[step].astype(np.float64), CONFIG["beta"])
        losses.append(terms)
        first = first or g
        for name in p:
            m[name] = 0.9 * m[name] + 0.1 * g[name]
            v[name] = 0.999 * v[name] + 0.001 * g[name]**2
            t = step + 1
            p[name] -= CONFIG["lr"] * (m[name] / (1 - 0.9**t)) / (
                np.sqrt(v[name] / (1 - 0.999**t)) + 1e-8)
    write_safetensors(os.path.join(folder, "initial.safetensors"), initial)
    write_safetensors(os.path.join(folder, "gradients.safetensors"), first)
    write_npy(os.path.join(folder, "batches.npy"), batches)
    write_npy(os.path.join(folder, "noise.npy"), noise)
    write_npy(os.path.join(folder, "losses.npy"), np.array(losses))
    with open(os.path.join(folder, "config.json"), "w", encoding="ascii") as file:
        json.dump(CONFIG, file)
    return np.array(losses), first


class Parity(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = self.temporary.name
        self.losses, self.gradients = make_export(self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def run_script(self, *arguments):
        """The script's main, in this process: PyTorch takes seconds to load."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = make_mnist_mlp.main([self.folder, "--data", self.folder, *arguments])
            except SystemExit as exit_:
                status = exit_.code
        return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())

    def test_as_a_program(self):
        command = [sys.executable, os.path.join(HERE, "make_mnist_mlp.py"), self.folder, "--data",
                   self.folder, "--check"]
        result = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        os.remove(os.path.join(self.folder, "losses.npy"))
        result = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(result.returncode, 3)
        self.assertIn("losses.npy", result.stderr)

    def test_numpy_and_pytorch_agree(self):
        for extra in ([], ["--double"]):
            result = self.run_script("--check", *extra)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            self.assertEqual(result.stdout.count("ok  "), 6 + 2 * 10)

    def test_double_agrees_to_rounding(self):
        export = make_mnist_mlp.Export(self.folder, self.folder, None)
        losses, gradients = make_mnist_mlp.train(export, double=True)
        np.testing.assert_allclose(losses, self.losses, rtol=1e-11)
        for name, value in gradients.items():
            np.testing.assert_allclose(value, self.gradients[name], rtol=0,
                                       atol=1e-12 * np.abs(value).max())

    def test_a_difference_is_noticed(self):
        for step, column, name in ((37, 2, "kl, first 50"), (37, 1, "reconstruction, first 50"),
                                   (57, 0, "loss ")):
            wrong = self.losses.copy()
            wrong[step, column] *= 1 + 3e-4
            write_npy(self.path("losses.npy"), wrong)
            result = self.run_script("--check")
            self.assertEqual(result.returncode, 1)
            self.assertIn(f"FAIL {name}", result.stdout)
            self.assertIn(f"step {step + 1}:", result.stdout)
        write_npy(self.path("losses.npy"), self.losses)
        for value in (1e-4, np.nan):
            gradients = {name: g.copy() for name, g in self.gradients.items()}
            g = gradients["decoder.0.weight"]
            g[3, 1] += value * np.abs(g).max()
            write_safetensors(self.path("gradients.safetensors"), gradients)
            result = self.run_script("--check")
            self.assertEqual(result.returncode, 1)
            self.assertIn("FAIL decoder.0.weight, element", result.stdout)
            self.assertIn("[3, 1]", result.stdout)

    def test_nan_losses_fail(self):
        wrong = self.losses.copy()
        wrong[4, 0] = np.nan
        write_npy(self.path("losses.npy"), wrong)
        result = self.run_script("--check")
        self.assertEqual(result.returncode, 1)
        self.assertIn("FAIL loss", result.stdout)

    def test_fewer_steps_than_exported(self):
        result = self.run_script("--check", "--steps", "5")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("5 steps", result.stdout)

    def test_golden_file(self):
        target = self.path("golden")
        result = self.run_script("--write", target)
        self.assertEqual(result.returncode, 0, result.stderr)
        path = os.path.join(target, "mnist_mlp.json")
        self.assertLess(os.path.getsize(path), 200_000)
        with open(path, encoding="ascii") as file:
            golden = json.load(file)
        self.assertEqual(len(golden["losses"]["kl"]), 100)
        np.testing.assert_allclose(golden["losses"]["loss"], self.losses[:100, 0], rtol=1e-5)
        self.assertEqual(set(golden["gradients"]), set(self.gradients))
        for name, entry in golden["gradients"].items():
            expected = self.gradients[name]
            np.testing.assert_allclose(entry["norm"], np.linalg.norm(expected), rtol=1e-5)
            self.assertEqual(len(entry["index"]), min(64, expected.size))
            np.testing.assert_allclose(entry["value"], expected.reshape(-1)[entry["index"]],
                                       atol=1e-5 * np.abs(expected).max(), rtol=0)
        again = self.run_script("--write", target)
        self.assertEqual(again.returncode, 0)
        with open(path, encoding="ascii") as file:
            self.assertEqual(json.load(file), golden)

    def test_bad_input_is_one_line_and_status_3(self):
        def damage(name, change, said=None):
            with open(self.path(name), "rb") as file:
                raw = file.read()
            with open(self.path(name), "wb") as file:
                file.write(change(raw))
            result = self.run_script("--check")
            with open(self.path(name), "wb") as file:
                file.write(raw)
            self.assertEqual(result.returncode, 3, f"{name}: {result.stdout}{result.stderr}")
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
            self.assertIn(said or name, result.stderr)

        for name in ("initial.safetensors", "gradients.safetensors", "batches.npy", "noise.npy",
                     "losses.npy", "train-images-idx3-ubyte.gz", "config.json"):
            damage(name, lambda raw: raw[:-5])
            damage(name, lambda raw: b"")
            damage(name, lambda raw: b"nonsense" * 20)
        damage("initial.safetensors", lambda raw: raw.replace(b"F32", b"F16", 1))
        damage("initial.safetensors", lambda raw: raw.replace(b"encoder.0.bias", b"encoder.1.bias"))
        damage("noise.npy", lambda raw: raw.replace(b"<f4", b"<f8"))
        damage("config.json", lambda raw: raw.replace(b'"batch_size": 8', b'"batch_size": 9'),
               said="batches.npy: (120, 8), batch_size is 9")
        os.remove(self.path("batches.npy"))
        self.assertEqual(self.run_script("--check").returncode, 3)

    def test_usage(self):
        self.assertEqual(self.run_script().returncode, 2)
        self.assertEqual(self.run_script("--check", "--steps", "0").returncode, 2)
        self.assertEqual(self.run_script("--check", "--steps", "999").returncode, 3)


class Model(unittest.TestCase):
    def test_bound_of_logvar(self):
        v = torch.tensor([-1e4, -30.0, -10.0, -3.0, 0.0, 9.9, 10.0, 10.5, 25.0, 1e4],
                         dtype=torch.float64, requires_grad=True)
        value = torch_vae.bound_logvar(v)
        value.sum().backward()
        expected, slope = bound(v.detach().numpy())
        np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-14)
        np.testing.assert_allclose(v.grad.numpy(), slope, atol=1e-14)

    def test_merged_heads_are_the_same_model(self):
        torch.manual_seed(1)
        separate = torch_vae.Vae(INPUT, HIDDEN, LATENT)
        merged = torch_vae.Vae(INPUT, HIDDEN, LATENT, merged_heads=True)
        state = separate.state_dict()
        for kind in ("weight", "bias"):
            state[f"encoder.heads.{kind}"] = torch.cat(
                [state.pop(f"encoder.mean.{kind}"), state.pop(f"encoder.logvar.{kind}")])
        merged.load_state_dict(state)
        x, eps = torch.rand(BATCH, INPUT), torch.randn(BATCH, LATENT)
        for a, b in zip(separate(x, eps), merged(x, eps)):
            self.assertAlmostEqual(a.item(), b.item(), delta=1e-5 * abs(a.item()))

    def test_names_and_shapes_of_the_default(self):
        shapes = {name: tuple(p.shape) for name, p in torch_vae.Vae().named_parameters()}
        self.assertEqual(shapes, {
            "encoder.0.weight": (512, 784), "encoder.0.bias": (512,),
            "encoder.mean.weight": (32, 512), "encoder.mean.bias": (32,),
            "encoder.logvar.weight": (32, 512), "encoder.logvar.bias": (32,),
            "decoder.0.weight": (512, 32), "decoder.0.bias": (512,),
            "decoder.out.weight": (784, 512), "decoder.out.bias": (784,)})

    def test_names_of_several_layers(self):
        names = {name: tuple(p.shape) for name, p in
                 torch_vae.Vae(30, (24, 16), 3, decoder=(20, 12)).named_parameters()
                 if name.endswith("weight")}
        self.assertEqual(names, {
            "encoder.0.weight": (24, 30), "encoder.1.weight": (16, 24),
            "encoder.mean.weight": (3, 16), "encoder.logvar.weight": (3, 16),
            "decoder.0.weight": (20, 3), "decoder.1.weight": (12, 20),
            "decoder.out.weight": (30, 12)})
        products = torch_vae.gemms(30, (24, 16), 3, 8, decoder=(20, 12))
        weights = 30 * 24 + 24 * 16 + 16 * 6 + 3 * 20 + 20 * 12 + 12 * 30
        self.assertEqual(sum(m * k * n for _, m, k, n in products), 8 * (3 * weights - 30 * 24))

    def test_gemms_of_the_default_step(self):
        products = torch_vae.gemms(784, 512, 32, 128)
        self.assertEqual(len(products), 11)
        # Three products a layer, less the first layer's dX.
        weights = 784 * 512 + 512 * 64 + 32 * 512 + 512 * 784
        self.assertEqual(sum(m * k * n for _, m, k, n in products),
                         128 * (3 * weights - 784 * 512))


class Step(unittest.TestCase):
    def talk(self, lines, *arguments, **variables):
        result = subprocess.run(
            [sys.executable, os.path.join(PEERS, "torch_step.py"), "--samples", "300", "--input", "40",
             "--hidden", "16", "--latent", "4", *arguments], input="".join(l + "\n" for l in lines),
            capture_output=True, text=True, timeout=900, env={**os.environ, **variables})
        return result.returncode, [json.loads(line) for line in result.stdout.splitlines()]

    def test_protocol(self):
        status, replies = self.talk([
            '{"steps": 3, "batch": 8}', '{"steps": 400, "batch": 8}', '',
            '{"steps": 2, "batch": 64, "work": "gemm"}', '{"steps": 0, "batch": 8}', 'nonsense',
            '{"steps": 1, "batch": 301}', '{"steps": 1, "batch": true}', '[1]',
            '{"steps": 2, "batch": 300}'], "--threads", "2")
        self.assertEqual(status, 0)
        hello, first, second, gemm, *errors, last = replies
        self.assertEqual((hello["peer"], hello["device"], hello["threads"]), ("pytorch", "cpu", 2))
        self.assertIn(hello["adam"], ("fused", "foreach", "single"))
        self.assertEqual((first["steps"], second["steps"], gemm["steps"]), (3, 400, 2))
        self.assertLess(second["loss"], first["loss"])  # it does train
        for reply in (first, second, gemm, last):
            self.assertGreater(reply["seconds"], 0)
        self.assertGreater(gemm["gflops"], 0)
        self.assertEqual(len(errors), 5)
        self.assertTrue(all(set(reply) == {"error"} for reply in errors), errors)

    def test_variants(self):
        for arguments in (["--adam", "single"], ["--heads", "separate"], ["--bound-logvar"],
                          ["--precision", "bf16"]):
            status, replies = self.talk(['{"steps": 2, "batch": 8}'], *arguments)
            self.assertEqual(status, 0, arguments)
            self.assertTrue(np.isfinite(replies[1]["loss"]), arguments)

    @unittest.skipUnless(hasattr(torch, "compile"), "this PyTorch has no torch.compile")
    def test_compile(self):
        # Its own cache: a compilation that was killed leaves a damaged file in the shared one.
        with tempfile.TemporaryDirectory() as cache:
            status, replies = self.talk(
                ['{"steps": 100, "batch": 8}', '{"steps": 2, "batch": 16}'], "--mode", "compile",
                TORCHINDUCTOR_CACHE_DIR=cache)
        _, eager = self.talk(['{"steps": 100, "batch": 8}'])
        self.assertEqual(status, 0)
        self.assertAlmostEqual(replies[1]["loss"], eager[1]["loss"], delta=0.1 * eager[1]["loss"])
        self.assertIn("seconds", replies[2])

    def test_usage(self):
        for arguments in (["--precision", "tf32"], ["--mode", "reduce-overhead"], ["--latent", "0"],
                          ["--threads", "-1"]):
            self.assertEqual(self.talk([], *arguments)[0], 2)

    @unittest.skipIf(torch.cuda.is_available(), "this machine has a CUDA device")
    def test_no_cuda_device_is_status_4(self):
        self.assertEqual(self.talk([], "--device", "cuda"), (4, []))


def has_jax():
    return importlib.util.find_spec("jax") is not None


class Check(unittest.TestCase):
    """All peers start from one file and reach the same neg_elbo, with several hidden layers too."""

    ENCODER, DECODER, LATENT, ROWS, STEPS = (24, 16), (20, 12), 3, 64, 100

    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.start = os.path.join(self.temporary.name, "start.safetensors")
        rng = np.random.default_rng(5)
        # Every second row is the other's negative: there is something to learn.
        pattern = rng.integers(0, 2, 30) * 200
        data = np.stack([pattern if i % 2 else 200 - pattern for i in range(self.ROWS)])
        sizes = [30, *self.ENCODER], [self.LATENT, *self.DECODER]
        shapes = {f"{side}.{i}": pair for side, widths in zip(("encoder", "decoder"), sizes)
                  for i, pair in enumerate(zip(widths, widths[1:]))}
        shapes |= {"encoder.mean": (self.ENCODER[-1], self.LATENT),
                   "encoder.logvar": (self.ENCODER[-1], self.LATENT),
                   "decoder.out": (self.DECODER[-1], 30)}
        self.weights = {}
        for name, (i, o) in shapes.items():
            limit = 1 / np.sqrt(i)
            self.weights[name + ".weight"] = rng.uniform(-limit, limit, (o, i)).astype("<f4")
            self.weights[name + ".bias"] = rng.uniform(-limit, limit, o).astype("<f4")
        self.tensors = {**self.weights, "data": data.astype("u1"),
                        "order": rng.permutation(self.ROWS).astype("<i8")}
        self.write(self.tensors)

    def write(self, tensors):
        header, body = {}, b""
        for name, value in tensors.items():
            raw = np.ascontiguousarray(value).tobytes()
            kind = {"f": "F32", "u": "U8", "i": "I64"}[value.dtype.kind]
            header[name] = {"dtype": kind, "shape": list(value.shape),
                            "data_offsets": [len(body), len(body) + len(raw)]}
            body += raw
        text = json.dumps(header).encode()
        with open(self.start, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text + body)

    def talk(self, script, lines, *arguments):
        result = subprocess.run(
            [sys.executable, os.path.join(PEERS, script), "--start", self.start, "--threads", "2",
             "--encoder", "24,16", "--decoder", "20,12", "--latent", "3", "--lr", "1e-2", *arguments],
            input="".join(l + "\n" for l in lines), capture_output=True, text=True, timeout=900)
        return result.returncode, [json.loads(line) for line in result.stdout.splitlines()], \
            result.stderr

    def expected(self):
        """neg_elbo of the same training in eager PyTorch, apart from the peer's own code."""
        torch.manual_seed(11)
        model = torch_vae.Vae(30, self.ENCODER, self.LATENT, decoder=self.DECODER)
        model.load_state_dict({name: torch.from_numpy(value.copy())
                               for name, value in self.weights.items()})
        adam = torch.optim.Adam(model.parameters(), lr=1e-2)
        x = torch.from_numpy(self.tensors["data"].astype("f4")) / 255
        order = torch.from_numpy(self.tensors["order"])
        for step in range(self.STEPS):
            rows = order[(16 * step + torch.arange(16)) % self.ROWS]
            adam.zero_grad()
            sum(model(x[rows], torch.randn(16, self.LATENT))).backward()
            adam.step()
        with torch.no_grad():
            return float(np.mean([sum(model(x, torch.randn(self.ROWS, self.LATENT))).item()
                                  for _ in range(20)]))

    def test_all_reach_the_same(self):
        want = self.expected()
        check = json.dumps({"work": "check", "steps": self.STEPS, "batch": 16, "rows": self.ROWS})
        peers = [("torch_step.py", "eager"), ("torch_step.py", "compile")]
        if has_jax():
            peers += [("jax_step.py", "jit"), ("jax_step.py", "scan")]
        for script, mode in peers:
            with self.subTest(script=script, mode=mode):
                # A repeat between leaves the second check what the first was.
                status, replies, said = self.talk(
                    script, [check, '{"steps": 7, "batch": 16}', check], "--mode", mode)
                self.assertEqual(status, 0, said)
                hello, first, repeat, second = replies
                self.assertIn("check", hello["work"])
                self.assertEqual(hello["sizes"], {"input": 30, "encoder": [24, 16], "latent": 3,
                                                  "decoder": [20, 12]})
                self.assertGreater(repeat["seconds"], 0)
                # Untrained it is 30 log 2 = 20.8; other noise makes about 5 % of so small a model.
                self.assertLess(want, 15)
                for reply in (first, second):
                    self.assertEqual(reply["rows"], self.ROWS)
                    self.assertAlmostEqual(reply["neg_elbo"], want, delta=0.2 * want)

    def test_another_learning_rate_is_noticed(self):
        check = json.dumps({"work": "check", "steps": self.STEPS, "batch": 16, "rows": self.ROWS})
        _, replies, _ = self.talk("torch_step.py", [check], "--lr", "1e-3")
        self.assertGreater(abs(replies[1]["neg_elbo"] - self.expected()), 0.4 * self.expected())

    def test_bad_starts_are_one_line_and_status_3(self):
        for change in ({"order": None}, {"encoder.1.weight": None},
                       {"decoder.0.bias": np.zeros(7, "<f4")}):
            self.write({name: value for name, value in {**self.tensors, **change}.items()
                        if value is not None})
            for script in ("torch_step.py", *(["jax_step.py"] if has_jax() else [])):
                status, replies, said = self.talk(script, [])
                self.assertEqual((status, replies, said.count("\n")), (3, [], 1), said)
                self.assertIn("start.safetensors", said)
        with open(self.start, "wb") as file:
            file.write(b"nonsense" * 9)
        self.assertEqual(self.talk("torch_step.py", [])[0], 3)


@unittest.skipUnless(has_jax(), "no JAX here: scripts/peers-venv --jax adds it")
class JaxStep(unittest.TestCase):
    def talk(self, lines, *arguments):
        result = subprocess.run(
            [sys.executable, os.path.join(PEERS, "jax_step.py"), "--samples", "40", "--input", "30",
             "--hidden", "16", "--latent", "4", *arguments], input="".join(l + "\n" for l in lines),
            capture_output=True, text=True, timeout=900)
        return result.returncode, [json.loads(line) for line in result.stdout.splitlines()]

    def test_protocol(self):
        for mode in ("jit", "scan"):
            # 13 steps of 8 are two epochs and three steps more.
            status, replies = self.talk(
                ['{"steps": 13, "batch": 8}', '{"steps": 300, "batch": 8}', '{"steps": 0, "batch": 8}',
                 '{"steps": 2, "batch": 41}', '{"steps": 2, "batch": 8, "work": "gemm"}'], "--mode",
                mode)
            self.assertEqual(status, 0)
            hello, first, second, *errors = replies
            self.assertEqual((hello["peer"], hello["device"], hello["mode"]), ("jax", "cpu", mode))
            self.assertLess(second["loss"], first["loss"])
            self.assertGreater(first["seconds"], 0)
            self.assertTrue(all(set(reply) == {"error"} for reply in errors), errors)

    def test_usage(self):
        for arguments in (["--precision", "tf32"], ["--mode", "eager"], ["--unroll", "0"],
                          ["--encoder", "16,0"], ["--lr", "0"]):
            self.assertEqual(self.talk([], *arguments)[0], 2, arguments)


class Curve(unittest.TestCase):
    def test_small_curve(self):
        with tempfile.TemporaryDirectory() as folder:
            rng = np.random.default_rng(0)
            for stem, count in (("train", 200), ("t10k", 50)):
                images = (rng.random((count, 5, 5)) < 0.2).astype(np.uint8) * 255
                write_idx(os.path.join(folder, stem + "-images-idx3-ubyte.gz"), images)
            result = subprocess.run(
                [sys.executable, os.path.join(PEERS, "torch_curve.py"), "--data", folder, "--epochs",
                 "5", "--seeds", "0,7", "--batch-size", "16", "--hidden", "16", "--latent", "2"],
                capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        curve = json.loads(result.stdout)
        self.assertEqual([run["seed"] for run in curve["runs"]], [0, 7])
        for run in curve["runs"]:
            self.assertEqual([point["epoch"] for point in run["test"]], [1, 2, 5])
            first, last = run["test"][0], run["test"][-1]
            self.assertLess(last["neg_elbo"], first["neg_elbo"])
            self.assertAlmostEqual(last["neg_elbo"], last["reconstruction"] + last["kl"], places=9)
        self.assertEqual(curve["mean"][0]["epoch"], 1)


class FreeRuns(unittest.TestCase):
    """What free runs are made of and judged by."""

    def test_a_part_is_written_as_it_is_read(self):
        random = np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as source, tempfile.TemporaryDirectory() as part:
            images = {}
            for split, stem in (("train", "train"), ("test", "t10k")):
                images[split] = random.integers(0, 256, (7, 28, 28), np.uint8)
                write_idx(os.path.join(source, stem + "-images-idx3-ubyte.gz"), images[split])
                write_idx(os.path.join(source, stem + "-labels-idx1-ubyte.gz"),
                          np.arange(7, dtype=np.uint8))
            idx.write_part(source, part, 64, {"train": 5, "test": 2}, change=lambda x: x // 2)
            for split, rows in (("train", 5), ("test", 2)):
                large = idx.read_images(part, split).reshape(rows, 64, 64)
                for dy, dx in ((4, 4), (5, 4), (4, 5), (5, 5)):
                    inner = large[:, dy:60:2, dx:60:2]
                    np.testing.assert_array_equal(inner, images[split][:rows] // 2)
                self.assertEqual(int(large[:, :4].sum()) + int(large[:, :, 60:].sum()), 0)
                np.testing.assert_array_equal(idx.read_labels(part, split), np.arange(rows))

    def test_rates_are_those_of_the_papers_code(self):
        rates = [torch_presets.iwae_rate(1e-3, epoch) for epoch in range(3280)]
        for stage in range(8):
            expected = round(10 ** (1 - stage / 7), 1) * 1e-4
            held = [rate for rate in rates if abs(rate - expected) < 1e-9]
            self.assertEqual(len(held), 3 ** stage)

    def test_the_table_is_judged_by_its_limits(self):
        def runs(preset, ours, theirs):
            return [{"preset": preset, "data": "mnist", "side": side, "seed": seed, "epochs": 5,
                     "neg_elbo": value} for side, values in (("cuvae", ours), ("pytorch", theirs))
                    for seed, value in enumerate(values)]

        def judged(*arguments):
            return free_runs.table(runs(*arguments), [arguments[0]], ["mnist"], [0, 1, 2], 5)

        lines, notes, good = judged("mnist-mlp", [100, 101, 102], [101, 101.5, 103])
        self.assertTrue(good)
        self.assertIn("| 101.00 (1.00) | 101.83 (1.04) | -0.83 | 0.83 | 1 | yes |", lines[2])
        self.assertFalse(judged("mnist-mlp", [100, 101, 102], [101, 102.5, 103])[2])
        self.assertTrue(judged("keras-conv", [100, 101, 102], [101, 102.5, 103])[2])
        self.assertFalse(judged("keras-conv", [100, 101, math.nan], [101, 102.5, 103])[2])
        # Where seeds differ by more than the limit, three standard errors are it.
        self.assertTrue(judged("conv-64", [300, 310, 290], [305, 315, 310])[2])
        self.assertFalse(judged("conv-64", [300, 301, 302], [311, 312, 313])[2])
        self.assertTrue(judged("conv-64", [300, 300.1, 300], [300.8, 300.9, 300.9])[2])
        self.assertFalse(judged("conv-64", [300, math.nan, 302], [300, 301, 302])[2])
        lines, notes, good = judged("mnist-mlp", [100, 101, 102], [101, 101.5])
        self.assertEqual(len(lines), 2)
        self.assertIn("cuvae 100.00, 101.00, 102.00; PyTorch 101.00, 101.50)", notes[0])


class Environment(unittest.TestCase):
    SCRIPT = os.path.join(ROOT, "scripts", "peers-venv")

    def test_a_finished_environment_is_printed_at_once(self):
        with tempfile.TemporaryDirectory() as cache:
            venv = os.path.join(cache, "peers-venv")
            os.makedirs(os.path.join(venv, "bin"))
            os.symlink(sys.executable, os.path.join(venv, "bin", "python"))
            with open(os.path.join(venv, "source"), "w", encoding="ascii") as file:
                file.write("pip 2.0\n")
            result = subprocess.run([self.SCRIPT], cwd="/", capture_output=True, text=True,
                                    env={**os.environ, "CUVAE_CACHE": cache})
            self.assertEqual((result.returncode, result.stdout, result.stderr),
                             (0, os.path.join(venv, "bin", "python") + "\n", ""))

    def test_failures_are_one_line(self):
        for arguments, variables, status in (
                (["--nonsense"], {}, 2), ([], {"CUVAE_PEERS_TORCH": "conda"}, 2),
                ([], {"CUVAE_CACHE": "/dev/null/cache"}, 1)):
            result = subprocess.run([self.SCRIPT, *arguments], capture_output=True, text=True,
                                    env={**os.environ, **variables})
            self.assertEqual(result.returncode, status, result.stderr)
            self.assertEqual(result.stdout, "")
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
            self.assertIn("peers-venv: error: ", result.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
