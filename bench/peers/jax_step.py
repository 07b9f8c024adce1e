"""One training step of the default model in JAX, timed on request: the peer of `cuvae bench`.

The same protocol as torch_step.py's: a JSON line that describes the peer, then one JSON line for
each line of stdin, {"steps": 200, "batch": 128} -> {"seconds": ..., "steps": 200, "loss": ...}.

Many steps are one compiled program (jit of lax.scan, its state donated), so that nothing of Python
or of a launch stands between them: the way JAX is fastest on small models. The data is resident;
gather, scaling, noise, forward, backward and Adam are the step's own work, as they are ours. The
precision of products is given explicitly. At the end of stdin the status is 0; 2 is wrong usage, 4
no such device, or no JAX.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import sys
import time

import protocol

SEED = 20
SCAN_STEPS = 100  # of one compiled program; what is left over runs as programs of one step


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    protocol.add_flags(parser, "of products: tf32: cuda only; bf16: their operands are rounded")
    parser.add_argument("--mode", choices=("scan",), default="scan")
    parser.add_argument("--unroll", type=int, default=4, help="steps unrolled in the scan's loop")
    return protocol.parse_flags(parser)


class Peer:
    def __init__(self, args: argparse.Namespace):
        # Before JAX is loaded. It takes its cores from what the process may use.
        os.environ["JAX_PLATFORMS"] = args.device
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # others share the GPU
        if args.device == "cpu":
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:args.threads])
        import jax
        import jax.numpy as jnp
        self.jax, self.np, self.args = jax, jnp, args
        self.device = jax.devices()[0]
        keys = iter(jax.random.split(jax.random.key(SEED), 16))

        def layer(fan_in, fan_out):
            bound = 1 / math.sqrt(fan_in)
            draw = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
            return {"w": draw(next(keys), (fan_in, fan_out)), "b": draw(next(keys), (fan_out,))}

        parameters = {"encoder": layer(args.input, args.hidden),
                      "heads": layer(args.hidden, 2 * args.latent),
                      "decoder": layer(args.latent, args.hidden),
                      "out": layer(args.hidden, args.input)}
        zeros = lambda: jax.tree.map(jnp.zeros_like, parameters)
        # As sparse as MNIST: four pixels in five are zero.
        shape = (args.samples, args.input)
        grey = jax.random.randint(next(keys), shape, 1, 256, jnp.int32)
        kept = jax.random.uniform(next(keys), shape) < 0.2
        self.data = jnp.where(kept, grey, 0).astype(jnp.uint8)  # [samples, input]
        self.order = jax.random.permutation(next(keys), args.samples)
        self.state = {"parameters": parameters, "first": zeros(), "second": zeros(),
                      "step": jnp.zeros((), jnp.int32), "start": jnp.zeros((), jnp.int32),
                      "key": next(keys)}
        self.programs: dict[tuple[int, int], object] = {}
        self.warm: set[tuple[int, int]] = set()

    def describe(self) -> dict:
        return {"peer": "jax", "version": self.jax.__version__, "device": self.args.device,
                "device_name": self.device.device_kind, "threads": self.args.threads,
                "blas": "xla", "mode": self.args.mode, "adam": "written out",
                "precision": self.args.precision, "heads": "merged", "bound_logvar": False,
                "sizes": [self.args.input, self.args.hidden, self.args.latent], "work": ["step"]}

    def product(self, a, b):
        jnp, lax = self.np, self.jax.lax
        if self.args.precision == "bf16":
            return jnp.matmul(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16),
                              preferred_element_type=jnp.float32)
        if self.args.precision == "tf32":
            return jnp.matmul(a, b, precision=lax.DotAlgorithmPreset.TF32_TF32_F32)
        return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)

    def loss(self, parameters, x, eps):
        """x [B, input] in [0, 1], eps [B, latent]: reconstruction + kl, averaged over the batch."""
        jax, jnp = self.jax, self.np
        linear = lambda h, name: self.product(h, parameters[name]["w"]) + parameters[name]["b"]
        heads = linear(jax.nn.relu(linear(x, "encoder")), "heads")  # [B, 2 latent]
        mean, logvar = jnp.split(heads, 2, axis=1)
        z = mean + eps * jnp.exp(0.5 * logvar)
        logits = linear(jax.nn.relu(linear(z, "decoder")), "out")  # [B, input]
        reconstruction = jnp.sum(jnp.maximum(logits, 0) - logits * x +
                                 jnp.log1p(jnp.exp(-jnp.abs(logits))))
        kl = 0.5 * jnp.sum(mean * mean + jnp.exp(logvar) - logvar - 1)
        return (reconstruction + kl) / x.shape[0]

    def step(self, batch, state, data, order):
        jax, jnp = self.jax, self.np
        rows = (state["start"] + jnp.arange(batch, dtype=jnp.int32)) % self.args.samples
        x = data[order[rows]].astype(jnp.float32) / 255  # [B, input]
        key, mine = jax.random.split(state["key"])
        eps = jax.random.normal(mine, (batch, self.args.latent))  # [B, latent]
        loss, gradient = jax.value_and_grad(self.loss)(state["parameters"], x, eps)
        step = state["step"] + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state["first"], gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, state["second"], gradient)
        scale1, scale2 = 1 - 0.9 ** step.astype(jnp.float32), 1 - 0.999 ** step.astype(jnp.float32)
        parameters = jax.tree.map(
            lambda p, m, v: p - 1e-3 * (m / scale1) / (jnp.sqrt(v / scale2) + 1e-8),
            state["parameters"], first, second)
        return {"parameters": parameters, "first": first, "second": second, "step": step,
                "start": (state["start"] + batch) % self.args.samples, "key": key}, loss

    def program(self, steps, batch):
        """`steps` steps as one compiled program: the new state and the last loss."""
        if (steps, batch) not in self.programs:
            def run(state, data, order):
                state, losses = self.jax.lax.scan(
                    lambda s, _: self.step(batch, s, data, order), state, None, length=steps,
                    unroll=min(self.args.unroll, steps))
                return state, losses[-1]
            self.programs[steps, batch] = self.jax.jit(run, donate_argnums=0)
        return self.programs[steps, batch]

    def train(self, steps, batch) -> float:
        loss = None
        for size in (SCAN_STEPS, 1):
            count, steps = divmod(steps, size)
            for _ in range(count):
                self.state, loss = self.program(size, batch)(self.state, self.data, self.order)
        return float(loss)  # waits for the device

    def serve(self, line: str) -> dict:
        steps, batch, _ = protocol.request_of(line, self.args.samples, ("step",))
        # What this request will run is compiled outside the timing.
        for size in {s for s, n in ((SCAN_STEPS, steps // SCAN_STEPS), (1, steps % SCAN_STEPS)) if n}:
            if (size, batch) not in self.warm:
                self.train(size, batch)
                self.warm.add((size, batch))
        start = time.perf_counter()
        loss = self.train(steps, batch)
        return {"seconds": time.perf_counter() - start, "steps": steps, "batch": batch, "loss": loss}


def main() -> int:
    args = parse()
    return protocol.serve("jax_step", lambda: Peer(args), f"JAX has no {args.device}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(130)
