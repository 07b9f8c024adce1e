// Uses the installed headers and library, as any program outside this tree would.
#include <cuvae/error.h>
#include <cuvae/tensor.h>
#include <cuvae/version.h>

#include <iostream>

int main() {
  try {
    const cuvae::Tensor tensor(cuvae::DType::f32, {2, 3});  // [2, 3]
    std::cout << "cuvae version " << cuvae::version() << ", a tensor of " << tensor.elements()
              << '\n';
    return tensor.elements() == 6 ? 0 : 1;
  } catch (const cuvae::Error& error) {
    std::cerr << error.what() << '\n';
    return static_cast<int>(error.status());
  }
}
