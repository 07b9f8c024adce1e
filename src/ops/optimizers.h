#pragma once
// All of ops/optimizers.def.

#include "ops/optimizer.h"
#include "ops/optimizers/adagrad.h"
#include "ops/optimizers/adamax.h"
#include "ops/optimizers/iwae_adam.h"
#include "ops/optimizers/rmsprop.h"
#include "ops/optimizers/sgd.h"
