#define CUVAE_LOOPS loops_v3
#define CUVAE_LOOPS_ISA "x86-64-v3"
#include "cpu/loops_float.h"
