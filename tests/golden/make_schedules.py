#!/usr/bin/env python3
"""Learning rates of PyTorch's schedulers, which step after every update, and of ReduceLROnPlateau.

    "$(scripts/peers-venv)" tests/golden/make_schedules.py > tests/golden/schedules.json
"""
import json
import math
import warnings

import torch
from torch.optim import lr_scheduler as schedulers

warnings.simplefilter("ignore")
STEPS = 40


def rates(make, lr=0.1):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=lr)
    scheduler = make(optimizer)
    values = []
    for _ in range(STEPS):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def plateau(metrics, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = schedulers.ReduceLROnPlateau(optimizer, eps=0, **options)
    values = []
    for metric in metrics:
        scheduler.step(metric)
        values.append(optimizer.param_groups[0]["lr"])
    return values


def warm(optimizer):
    first = schedulers.LinearLR(optimizer, start_factor=0.25, total_iters=8)
    return schedulers.SequentialLR(
        optimizer, [first, schedulers.CosineAnnealingLR(optimizer, T_max=32, eta_min=0.01)], [8])


metrics = [150 / (t + 1) + 100 + (3 if t % 3 == 0 else 0) for t in range(STEPS)]
metrics[7] = 1e9
print(json.dumps({
    "torch": torch.__version__.split("+")[0],
    "steps_7_0.5": rates(lambda o: schedulers.StepLR(o, 7, 0.5)),
    "milestones_3_10_11_0.2": rates(lambda o: schedulers.MultiStepLR(o, [3, 10, 11], 0.2)),
    "cosine_40_0.01": rates(lambda o: schedulers.CosineAnnealingLR(o, STEPS, 0.01)),
    "warm_8_0.25_cosine_32_0.01": rates(warm),
    "metrics": metrics,
    "plateau_0.5_2_1e-2_3_0.002": plateau(metrics, factor=0.5, patience=2, threshold=1e-2,
                                          cooldown=3, min_lr=0.002),
    "plateau_0.1_0_0_0_0": plateau(metrics, factor=0.1, patience=0, threshold=0.0),
}, indent=0))
