#define CUVAE_LOOPS loops_v4
#define CUVAE_LOOPS_ISA "x86-64-v4"
#include "cpu/loops_float.h"
