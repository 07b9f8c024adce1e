#define CUVAE_LOOPS loops_v2
#define CUVAE_LOOPS_ISA "x86-64-v2"
#include "cpu/loops_float.h"
