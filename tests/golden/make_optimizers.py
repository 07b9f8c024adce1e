#!/usr/bin/env python3
"""20 steps of every optimiser in float64: PyTorch's torch.optim, and in plain NumPy, as their sources
write them, Keras' RMSprop and SGD (keras/src/optimizers/{rmsprop,sgd}.py of Keras 3) and the Adam of
the IWAE paper's code (optimizers.py of yburda/iwae).

    "$(scripts/peers-venv)" tests/golden/make_optimizers.py > tests/golden/optimizers.json
"""
import json

import numpy as np
import torch

STEPS, KEPT = 20, (1, 2, 20)
RATES = [0.05 / (1 + 0.1 * t) for t in range(STEPS)]  # the rate changes: conventions differ there
RATES_CONSTANT = [0.03] * STEPS


def problem():
    """Weights and gradients: zero, constant, alternating, growing, tiny, large, sparse, random."""
    random = np.random.default_rng(5)
    w = np.array([0.0, 1.0, -1.0, 0.5, 2.0, -3.0, 1e-3, 100.0, -0.25, 0.75, 1.5, -2.5])
    g = random.standard_normal((STEPS, w.size))
    t = np.arange(STEPS)
    g[:, 0] = 0.0
    g[:, 1] = 0.7
    g[:, 2] = np.where(t % 2 == 0, 0.3, -0.3)
    g[:, 3] = 1.5**t * 1e-3
    g[:, 4] *= 1e-6
    g[:, 5] *= 1e4
    g[:, 6] = np.where(t == 4, 1.0, 0.0)
    g[:, 7] = np.where(t == 0, -5.0, 0.01)
    # What float32 holds exactly, so that both types read the same.
    return w.astype(np.float32).astype(np.float64), g.astype(np.float32).astype(np.float64)


def with_torch(make, slots, rates):
    w0, gradients = problem()
    w = torch.nn.Parameter(torch.tensor(w0))
    optimizer = make([w])
    kept = []
    for t in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rates[t]
        w.grad = torch.tensor(gradients[t])
        optimizer.step()
        if t + 1 in KEPT:
            state = optimizer.state[w]
            kept.append([w.detach().tolist()] + [state[slot].tolist() for slot in slots])
    return kept


def with_numpy(step, states, rates):
    w, gradients = problem()
    w, s = w.copy(), [np.full_like(w, value) for value in states]
    kept = []
    for t in range(STEPS):
        step(w, s, gradients[t], rates[t], t + 1)
        if t + 1 in KEPT:
            kept.append([w.tolist()] + [x.tolist() for x in s])
    return kept


def keras_rmsprop(rho=0.9, momentum=0.0, epsilon=1e-7, centered=False):
    def step(w, s, g, lr, t):
        velocity = s[0]
        velocity[:] = rho * velocity + (1 - rho) * g**2
        denominator = velocity + epsilon
        if centered:
            s[1][:] = rho * s[1] + (1 - rho) * g
            denominator = velocity - s[1] ** 2 + epsilon
        increment = lr * g / np.sqrt(denominator)
        if momentum > 0:
            s[-1][:] = momentum * s[-1] + increment
            increment = s[-1]
        w -= increment

    return step


def keras_sgd(momentum, nesterov):
    def step(w, s, g, lr, t):
        s[0][:] = momentum * s[0] - lr * g
        w += momentum * s[0] - lr * g if nesterov else s[0]

    return step


def iwae_adam(delayed, beta1=0.99, beta2=0.999):
    def step(w, s, g, lr, t):
        old = [s[0].copy(), s[1].copy()]
        s[0][:] = beta1 * s[0] + (1 - beta1) * g
        s[1][:] = beta2 * s[1] + (1 - beta2) * g**2
        m, v = old if delayed else s
        alpha = lr * np.sqrt(1 - beta2**t) / (1 - beta1**t)
        w -= alpha * m / (np.sqrt(v) + 1e-4)

    return step


cases = []


def torch_case(name, op, attrs, slots, cls, rates=RATES, **options):
    values = with_torch(lambda p: cls(p, lr=1.0, **options), slots, rates)
    cases.append({"name": name, "op": op, "attrs": attrs, "lr": rates, "after": values})


def numpy_case(name, op, attrs, states, step, rates=RATES, weights_only=False):
    values = with_numpy(step, states, rates)
    if weights_only:  # the states mean another thing
        values = [row[:1] for row in values]
    cases.append({"name": name, "op": op, "attrs": attrs, "lr": rates, "after": values})


O = torch.optim
torch_case("sgd", "sgd", {}, [], O.SGD)
torch_case("sgd_decay", "sgd", {"weight_decay": 0.1}, [], O.SGD, weight_decay=0.1)
torch_case("sgd_momentum", "sgd", {"momentum": 0.9}, ["momentum_buffer"], O.SGD, momentum=0.9)
torch_case("sgd_dampening", "sgd", {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01},
           ["momentum_buffer"], O.SGD, momentum=0.8, dampening=0.3, weight_decay=0.01)
torch_case("sgd_nesterov", "sgd", {"momentum": 0.9, "nesterov": 1}, ["momentum_buffer"], O.SGD,
           momentum=0.9, nesterov=True)
rms = "square_avg", "grad_avg", "momentum_buffer"
torch_case("rmsprop_torch", "rmsprop", {"convention": "torch"}, rms[:1], O.RMSprop)
torch_case("rmsprop_torch_decay", "rmsprop", {"rho": 0.9, "eps": 1e-3, "weight_decay": 0.1},
           rms[:1], O.RMSprop, alpha=0.9, eps=1e-3, weight_decay=0.1)
torch_case("rmsprop_torch_centered", "rmsprop", {"centered": 1, "eps": 1e-4}, rms[:2], O.RMSprop,
           centered=True, eps=1e-4)
torch_case("rmsprop_torch_momentum", "rmsprop", {"momentum": 0.9}, [rms[0], rms[2]], O.RMSprop,
           momentum=0.9)
torch_case("rmsprop_torch_all", "rmsprop", {"momentum": 0.5, "centered": 1, "eps": 1e-4}, rms,
           O.RMSprop, momentum=0.5, centered=True, eps=1e-4)
torch_case("adagrad", "adagrad", {}, ["sum"], O.Adagrad)
torch_case("adagrad_all", "adagrad", {"lr_decay": 0.1, "initial_accumulator": 0.1, "eps": 1e-7,
                                      "weight_decay": 0.1}, ["sum"], O.Adagrad, lr_decay=0.1,
           initial_accumulator_value=0.1, eps=1e-7, weight_decay=0.1)
torch_case("adamax", "adamax", {}, ["exp_avg", "exp_inf"], O.Adamax)
torch_case("adamax_all", "adamax", {"beta1": 0.8, "beta2": 0.9, "eps": 1e-4, "weight_decay": 0.1},
           ["exp_avg", "exp_inf"], O.Adamax, betas=(0.8, 0.9), eps=1e-4, weight_decay=0.1)
moments = ["exp_avg", "exp_avg_sq"]
torch_case("adam", "adam", {}, moments, O.Adam)
torch_case("adam_all", "adam", {"beta1": 0.5, "beta2": 0.99, "eps": 1e-4, "weight_decay": 0.1},
           moments, O.Adam, betas=(0.5, 0.99), eps=1e-4, weight_decay=0.1)
torch_case("adamw", "adam", {"weight_decay": 0.1, "decoupled": 1}, moments, O.AdamW,
           weight_decay=0.1)
numpy_case("rmsprop_keras", "rmsprop", {"convention": "keras"}, [0], keras_rmsprop())
numpy_case("rmsprop_keras_centered", "rmsprop", {"convention": "keras", "centered": 1}, [0, 0],
           keras_rmsprop(centered=True))
numpy_case("rmsprop_keras_momentum", "rmsprop", {"convention": "keras", "momentum": 0.9}, [0, 0],
           keras_rmsprop(momentum=0.9))
numpy_case("rmsprop_keras_all", "rmsprop",
           {"convention": "keras", "momentum": 0.5, "centered": 1, "rho": 0.95, "eps": 1e-3},
           [0, 0, 0], keras_rmsprop(0.95, 0.5, 1e-3, True))
for nesterov in (False, True):
    numpy_case("sgd_keras" + ("_nesterov" if nesterov else ""), "sgd",
               {"momentum": 0.9, "nesterov": int(nesterov)}, [0], keras_sgd(0.9, nesterov),
               RATES_CONSTANT, weights_only=True)
numpy_case("adam_eps_hat", "adam", {"beta1": 0.99, "eps": 1e-4, "eps_hat": 1, "v0": 1.0}, [0, 1],
           iwae_adam(False))
numpy_case("iwae_adam", "iwae_adam", {}, [0, 1], iwae_adam(True))

w, gradients = problem()
assert all(np.isfinite(row).all() for case in cases for kept in case["after"] for row in kept)
print(json.dumps({"torch": torch.__version__.split("+")[0], "w": w.tolist(),
                  "gradients": gradients.tolist(), "kept": KEPT, "cases": cases})
      .replace('{"name"', '\n{"name"'))
