#include "cli/app.h"

int main(int argc, char** argv) {
  return cuvae::cli::run_cuvae(argc, argv);
}
