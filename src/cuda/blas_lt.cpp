// cuBLASLt as the library of matrix products. It is opened at run time, because it maps 540 MB and
// few programs need it; nothing of it is linked. Row-major C = A B is its column-major
// C^T = B^T A^T, so that its first operand is our B.

#include <cublasLt.h>
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "cuda/blas.h"
#include "cuda/devices.h"
#include "cuda/library_path.h"
#include "cuvae/error.h"

namespace cuvae::cuda {
namespace {

constexpr const char* library_name = "libcublasLt.so.13";
constexpr std::size_t most_workspace = std::size_t{32} << 20;

// The functions that are used, by name.
struct Library {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtGetVersion) version = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulAlgoConfigGetAttribute) config_get = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
};

template <class F>
bool load(void* handle, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(handle, name));
  return function != nullptr;
}

// The library stays open for the rest of the process, as it keeps threads and memory of its own.
const Library* open_library() {
  static const Library* const opened = []() -> const Library* {
    static Library library;
    const auto variable = [](const char* name) {
      const char* text = std::getenv(name);
      return std::string(text == nullptr ? "" : text);
    };
    for (const std::string& path : library_candidates(library_name, variable)) {
      void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (handle == nullptr) continue;
      if (load(handle, "cublasLtCreate", library.create) &&
          load(handle, "cublasLtDestroy", library.destroy) &&
          load(handle, "cublasLtGetVersion", library.version) &&
          load(handle, "cublasLtMatmulDescCreate", library.desc_create) &&
          load(handle, "cublasLtMatmulDescDestroy", library.desc_destroy) &&
          load(handle, "cublasLtMatmulDescSetAttribute", library.desc_set) &&
          load(handle, "cublasLtMatrixLayoutCreate", library.layout_create) &&
          load(handle, "cublasLtMatrixLayoutDestroy", library.layout_destroy) &&
          load(handle, "cublasLtMatmulPreferenceCreate", library.preference_create) &&
          load(handle, "cublasLtMatmulPreferenceDestroy", library.preference_destroy) &&
          load(handle, "cublasLtMatmulPreferenceSetAttribute", library.preference_set) &&
          load(handle, "cublasLtMatmulAlgoGetHeuristic", library.heuristic) &&
          load(handle, "cublasLtMatmulAlgoConfigGetAttribute", library.config_get) &&
          load(handle, "cublasLtMatmul", library.matmul))
        return &library;
      dlclose(handle);
    }
    return nullptr;
  }();
  return opened;
}

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(Status::device,
              std::string("cuBLASLt: ") + what + " failed, status " + std::to_string(status),
              "matrix product", "use --device cpu, or a driver that fits the library");
}

// A handle of the library that is given back.
template <class T>
class Owned {
 public:
  using Destroy = cublasStatus_t (*)(T);
  Owned() = default;
  Owned(T handle, Destroy destroy) : handle_(handle), destroy_(destroy) {}
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  Owned(Owned&& other) noexcept
      : handle_(std::exchange(other.handle_, nullptr)), destroy_(other.destroy_) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(destroy_, other.destroy_);
    return *this;
  }
  ~Owned() {
    if (handle_ != nullptr) static_cast<void>(destroy_(handle_));
  }
  [[nodiscard]] T get() const noexcept { return handle_; }

 private:
  T handle_ = nullptr;
  Destroy destroy_ = nullptr;
};

class LtPlan final : public Blas::Plan {
 public:
  LtPlan(const Library& library, std::shared_ptr<Owned<cublasLtHandle_t>> handle,
         const BlasProduct& product)
      : library_(library), handle_(std::move(handle)) {
    cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
    if (product.precision == Precision::tf32) compute = CUBLAS_COMPUTE_32F_FAST_TF32;
    if (product.precision == Precision::bf16) compute = CUBLAS_COMPUTE_32F_FAST_16BF;
    cublasLtMatmulDesc_t desc = nullptr;
    check(library.desc_create(&desc, compute, CUDA_R_32F), "describing a product");
    desc_ = {desc, library.desc_destroy};
    // Ours is [k, n] as it stands, or [n, k].
    const cublasOperation_t first = product.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = product.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    set(CUBLASLT_MATMUL_DESC_TRANSA, first);
    set(CUBLASLT_MATMUL_DESC_TRANSB, second);
    using Epilogue = BlasProduct::Epilogue;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    if (product.epilogue == Epilogue::bias) epilogue = CUBLASLT_EPILOGUE_BIAS;
    if (product.epilogue == Epilogue::relu_bias) epilogue = CUBLASLT_EPILOGUE_RELU_BIAS;
    if (product.epilogue == Epilogue::bias_gradient) epilogue = CUBLASLT_EPILOGUE_BGRADB;
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    has_vector_ = product.epilogue != Epilogue::none;
    const auto m = static_cast<std::uint64_t>(product.m);
    const auto n = static_cast<std::uint64_t>(product.n);
    const auto k = static_cast<std::uint64_t>(product.k);
    b_ = product.b_transposed ? layout(k, n) : layout(n, k);
    a_ = product.a_transposed ? layout(m, k) : layout(k, m);
    c_ = layout(n, m);
  }

  // False where the library has none.
  bool choose() {
    cublasLtMatmulPreference_t preference = nullptr;
    check(library_.preference_create(&preference), "choosing an algorithm");
    const Owned<cublasLtMatmulPreference_t> owned(preference, library_.preference_destroy);
    check(library_.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                  &most_workspace, sizeof most_workspace),
          "choosing an algorithm");
    // It takes operands and workspace to be aligned to 256 bytes; those of programs are.
    // Partial sums are added in a fixed order, never into the result as they come.
    const std::uint32_t schemes =
        CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    check(library_.preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes,
                                  sizeof schemes),
          "choosing an algorithm");
    cublasLtMatmulHeuristicResult_t result = {};
    int found = 0;
    const cublasStatus_t status =
        library_.heuristic(handle_->get(), desc_.get(), b_.get(), a_.get(), c_.get(), c_.get(),
                           preference, 1, &result, &found);
    if (status != CUBLAS_STATUS_SUCCESS || found == 0) return false;
    algorithm_ = result.algo;
    workspace_ = result.workspaceSize;
    std::size_t written = 0;
    const auto get = [&](cublasLtMatmulAlgoConfigAttributes_t which) {
      std::uint32_t value = 0;
      static_cast<void>(library_.config_get(&algorithm_, which, &value, sizeof value, &written));
      return std::to_string(value);
    };
    name_ = "cublasLt " + std::to_string(library_.version()) + " algorithm " +
            get(CUBLASLT_ALGO_CONFIG_ID) + " tile " + get(CUBLASLT_ALGO_CONFIG_TILE_ID) +
            " split " + get(CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
    return true;
  }

  [[nodiscard]] std::int64_t workspace_bytes() const override {
    return static_cast<std::int64_t>(workspace_);
  }
  [[nodiscard]] std::string algorithm() const override { return name_; }

  void run(Runtime&, const BlasOperands& operands, std::span<const Access>,
           Runtime::Raw stream) override {
    if (has_vector_) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.vector);
    const float one = 1.0f;
    const float zero = 0.0f;
    check(library_.matmul(handle_->get(), desc_.get(), &one, operands.b, b_.get(), operands.a,
                          a_.get(), &zero, operands.c, c_.get(), operands.c, c_.get(), &algorithm_,
                          operands.workspace, workspace_, static_cast<cudaStream_t>(stream)),
          "a product");
  }

 private:
  template <class T>
  void set(cublasLtMatmulDescAttributes_t which, const T& value) {
    check(library_.desc_set(desc_.get(), which, &value, sizeof value), "describing a product");
  }
  // Column-major, without gaps.
  Owned<cublasLtMatrixLayout_t> layout(std::uint64_t rows, std::uint64_t columns) {
    cublasLtMatrixLayout_t made = nullptr;
    check(library_.layout_create(&made, CUDA_R_32F, rows, columns, static_cast<std::int64_t>(rows)),
          "describing a matrix");
    return {made, library_.layout_destroy};
  }

  const Library& library_;
  std::shared_ptr<Owned<cublasLtHandle_t>> handle_;
  Owned<cublasLtMatmulDesc_t> desc_;
  Owned<cublasLtMatrixLayout_t> a_, b_, c_;
  cublasLtMatmulAlgo_t algorithm_ = {};
  std::size_t workspace_ = 0;
  bool has_vector_ = false;
  std::string name_;
};

class BlasLt final : public Blas {
 public:
  BlasLt(const Library& library, cublasLtHandle_t handle)
      : library_(library),
        handle_(std::make_shared<Owned<cublasLtHandle_t>>(handle, library.destroy)) {}
  [[nodiscard]] std::unique_ptr<Plan> plan(const BlasProduct& product) override {
    auto plan = std::make_unique<LtPlan>(library_, handle_, product);
    if (!plan->choose()) return nullptr;
    return plan;
  }

 private:
  const Library& library_;
  std::shared_ptr<Owned<cublasLtHandle_t>> handle_;
};

}  // namespace

std::unique_ptr<Blas> make_blas() {
  const Library* const library = open_library();
  if (library == nullptr) return nullptr;
  cublasLtHandle_t handle = nullptr;
  if (library->create(&handle) != CUBLAS_STATUS_SUCCESS) return nullptr;
  return std::make_unique<BlasLt>(*library, handle);
}

}  // namespace cuvae::cuda
