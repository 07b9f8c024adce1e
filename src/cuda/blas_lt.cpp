// cuBLASLt as the library of matrix products. It is opened at run time, because it maps 540 MB and
// few programs need it; nothing of it is linked. Row-major C = A B is its column-major
// C^T = B^T A^T, so that its first operand is our B.

#include <cublasLt.h>
#include <dlfcn.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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
  decltype(&cublasLtMatmulAlgoCheck) algorithm_check = nullptr;
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
          load(handle, "cublasLtMatmulAlgoCheck", library.algorithm_check) &&
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

// What the library must know of a product: shared by the plans of its algorithms.
struct LtProduct {
  Owned<cublasLtMatmulDesc_t> desc;
  Owned<cublasLtMatrixLayout_t> a, b, c;
  bool has_vector = false;
  bool has_mask = false;
};

template <class T>
void set(const Library& library, const LtProduct& product, cublasLtMatmulDescAttributes_t which,
         const T& value) {
  check(library.desc_set(product.desc.get(), which, &value, sizeof value), "describing a product");
}

cudaDataType_t data_type(DType dtype) {
  return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

// Column-major, without gaps.
Owned<cublasLtMatrixLayout_t> layout(const Library& library, DType dtype, std::int64_t rows,
                                     std::int64_t columns) {
  cublasLtMatrixLayout_t made = nullptr;
  check(library.layout_create(&made, data_type(dtype), static_cast<std::uint64_t>(rows),
                              static_cast<std::uint64_t>(columns), rows),
        "describing a matrix");
  return {made, library.layout_destroy};
}

// Its result is ours transposed, and its first operand is our B.
cublasLtEpilogue_t epilogue_of(BlasProduct::Epilogue epilogue) {
  using Epilogue = BlasProduct::Epilogue;
  switch (epilogue) {
    case Epilogue::none: return CUBLASLT_EPILOGUE_DEFAULT;
    case Epilogue::bias: return CUBLASLT_EPILOGUE_BIAS;
    case Epilogue::relu: return CUBLASLT_EPILOGUE_RELU;
    case Epilogue::relu_bias: return CUBLASLT_EPILOGUE_RELU_BIAS;
    case Epilogue::bias_gradient: return CUBLASLT_EPILOGUE_BGRADB;
    case Epilogue::relu_mask: return CUBLASLT_EPILOGUE_RELU_AUX;
    case Epilogue::relu_bias_mask: return CUBLASLT_EPILOGUE_RELU_AUX_BIAS;
    case Epilogue::relu_gradient: return CUBLASLT_EPILOGUE_DRELU;
    case Epilogue::relu_bias_gradient: return CUBLASLT_EPILOGUE_DRELU_BGRAD;
  }
  return CUBLASLT_EPILOGUE_DEFAULT;
}

std::shared_ptr<LtProduct> describe(const Library& library, const BlasProduct& product) {
  auto made = std::make_shared<LtProduct>();
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  if (product.operands == DType::f32 && product.precision == Precision::tf32)
    compute = CUBLAS_COMPUTE_32F_FAST_TF32;
  if (product.operands == DType::f32 && product.precision == Precision::bf16)
    compute = CUBLAS_COMPUTE_32F_FAST_16BF;
  cublasLtMatmulDesc_t desc = nullptr;
  check(library.desc_create(&desc, compute, CUDA_R_32F), "describing a product");
  made->desc = {desc, library.desc_destroy};
  // Ours is [k, n] as it stands, or [n, k].
  const cublasOperation_t first = product.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t second = product.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  set(library, *made, CUBLASLT_MATMUL_DESC_TRANSA, first);
  set(library, *made, CUBLASLT_MATMUL_DESC_TRANSB, second);
  set(library, *made, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(product.epilogue));
  made->has_vector = product.has_vector();
  made->has_mask = product.has_mask();
  // The choice of algorithms looks at the alignment of pointers only, which is that of all values.
  const void* const aligned = reinterpret_cast<const void*>(std::uintptr_t{256});
  if (made->has_mask) {
    const std::int64_t stride = product.mask_stride();
    set(library, *made, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, stride);
    set(library, *made, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aligned);
  }
  if (made->has_vector) {
    // Its type is that of the result, as the library takes it without being told.
    set(library, *made, CUBLASLT_MATMUL_DESC_BIAS_POINTER, aligned);
  }
  made->b = product.b_transposed ? layout(library, product.operands, product.k, product.n)
                                 : layout(library, product.operands, product.n, product.k);
  made->a = product.a_transposed ? layout(library, product.operands, product.m, product.k)
                                 : layout(library, product.operands, product.k, product.m);
  made->c = layout(library, product.result, product.n, product.m);
  return made;
}

// An algorithm as text: the library's version, what can be read of the choice, and all of it in
// hexadecimal, which that version takes back.
std::string algorithm_text(const Library& library, const cublasLtMatmulAlgo_t& algorithm) {
  const auto get = [&](cublasLtMatmulAlgoConfigAttributes_t which) {
    std::uint32_t value = 0;
    std::size_t written = 0;
    static_cast<void>(library.config_get(&algorithm, which, &value, sizeof value, &written));
    return std::to_string(value);
  };
  std::string text = "cublasLt " + std::to_string(library.version()) + " algorithm " +
                     get(CUBLASLT_ALGO_CONFIG_ID) + " tile " + get(CUBLASLT_ALGO_CONFIG_TILE_ID) +
                     " split " + get(CUBLASLT_ALGO_CONFIG_SPLITK_NUM) + " ";
  for (const std::uint64_t word : algorithm.data) {
    std::array<char, 24> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), word, 16);
    text.append(digits.data(), end.ptr);
    text += '.';
  }
  return text;
}

// The inverse; false for a text of another version, or of none.
bool parse_algorithm(const Library& library, std::string_view text,
                     cublasLtMatmulAlgo_t& algorithm) {
  const std::string beginning = "cublasLt " + std::to_string(library.version()) + " algorithm ";
  if (!text.starts_with(beginning)) return false;
  text.remove_prefix(text.rfind(' ') + 1);
  for (std::uint64_t& word : algorithm.data) {
    const char* const end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, word, 16);
    if (read.ec != std::errc() || read.ptr == end || *read.ptr != '.') return false;
    text.remove_prefix(static_cast<std::size_t>(read.ptr - text.data()) + 1);
  }
  return text.empty();
}

// Partial sums that are added into the result as they come depend on who comes first.
bool is_deterministic(const Library& library, const cublasLtMatmulAlgo_t& algorithm) {
  std::uint32_t scheme = 0;
  std::size_t written = 0;
  const cublasStatus_t status = library.config_get(
      &algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme, sizeof scheme, &written);
  return status == CUBLAS_STATUS_SUCCESS && (scheme & CUBLASLT_REDUCTION_SCHEME_INPLACE) == 0;
}

class LtPlan final : public Blas::Plan {
 public:
  LtPlan(const Library& library, std::shared_ptr<Owned<cublasLtHandle_t>> handle,
         std::shared_ptr<LtProduct> product, const cublasLtMatmulAlgo_t& algorithm,
         std::size_t workspace)
      : library_(library),
        handle_(std::move(handle)),
        product_(std::move(product)),
        algorithm_(algorithm),
        workspace_(workspace) {}

  [[nodiscard]] std::int64_t workspace_bytes() const override {
    return static_cast<std::int64_t>(workspace_);
  }
  [[nodiscard]] std::string algorithm() const override {
    return algorithm_text(library_, algorithm_);
  }

  void run(Runtime&, const BlasOperands& operands, std::span<const Access>,
           Runtime::Raw stream) override {
    if (product_->has_vector)
      set(library_, *product_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.vector);
    if (product_->has_mask)
      set(library_, *product_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, operands.mask);
    const float one = 1.0f;
    const float zero = 0.0f;
    check(library_.matmul(handle_->get(), product_->desc.get(), &one, operands.b, product_->b.get(),
                          operands.a, product_->a.get(), &zero, operands.c, product_->c.get(),
                          operands.c, product_->c.get(), &algorithm_, operands.workspace,
                          workspace_, static_cast<cudaStream_t>(stream)),
          "a product");
  }

 private:
  const Library& library_;
  std::shared_ptr<Owned<cublasLtHandle_t>> handle_;
  std::shared_ptr<LtProduct> product_;
  cublasLtMatmulAlgo_t algorithm_;
  std::size_t workspace_;
};

class BlasLt final : public Blas {
 public:
  BlasLt(const Library& library, cublasLtHandle_t handle)
      : library_(library),
        handle_(std::make_shared<Owned<cublasLtHandle_t>>(handle, library.destroy)) {}

  [[nodiscard]] std::vector<std::unique_ptr<Plan>> candidates(const BlasProduct& product,
                                                              int most) override {
    const std::shared_ptr<LtProduct> described = describe(library_, product);
    cublasLtMatmulPreference_t preference = nullptr;
    check(library_.preference_create(&preference), "choosing an algorithm");
    const Owned<cublasLtMatmulPreference_t> owned(preference, library_.preference_destroy);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t which, const auto& value) {
      check(library_.preference_set(preference, which, &value, sizeof value),
            "choosing an algorithm");
    };
    // It takes operands and workspace to be aligned to 256 bytes; those of programs are.
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, most_workspace);
    // Partial sums are added in a fixed order, never into the result as they come.
    const std::uint32_t schemes =
        CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes);
    std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<std::size_t>(most));
    int found = 0;
    const cublasStatus_t status = library_.heuristic(
        handle_->get(), described->desc.get(), described->b.get(), described->a.get(),
        described->c.get(), described->c.get(), preference, most, results.data(), &found);
    std::vector<std::unique_ptr<Plan>> plans;
    if (status != CUBLAS_STATUS_SUCCESS) return plans;
    for (int i = 0; i < found; ++i) {
      const auto& result = results[static_cast<std::size_t>(i)];
      if (result.state != CUBLAS_STATUS_SUCCESS || !is_deterministic(library_, result.algo))
        continue;
      plans.push_back(std::make_unique<LtPlan>(library_, handle_, described, result.algo,
                                               result.workspaceSize));
    }
    return plans;
  }

  [[nodiscard]] std::unique_ptr<Plan> make(const BlasProduct& product,
                                           std::string_view algorithm) override {
    cublasLtMatmulAlgo_t algo = {};
    if (!parse_algorithm(library_, algorithm, algo)) return nullptr;
    const std::shared_ptr<LtProduct> described = describe(library_, product);
    cublasLtMatmulHeuristicResult_t result = {};
    const cublasStatus_t status = library_.algorithm_check(
        handle_->get(), described->desc.get(), described->b.get(), described->a.get(),
        described->c.get(), described->c.get(), &algo, &result);
    if (status != CUBLAS_STATUS_SUCCESS || result.workspaceSize > most_workspace ||
        !is_deterministic(library_, algo))
      return nullptr;
    return std::make_unique<LtPlan>(library_, handle_, described, algo, result.workspaceSize);
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
