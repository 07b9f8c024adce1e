#include "cuda/store.h"

#include <fmt/format.h>

#include "cuvae/error.h"

namespace cuvae::cuda {

CudaStore::~CudaStore() {
  context_->settle();  // what was launched may use the memory
}

const CudaStore::Entry& CudaStore::entry(std::string_view name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end())
    throw Error(Status::usage, fmt::format("the store holds no tensor `{}`", name), "store");
  return found->second;
}

// The entry of that kind, made where it is missing: zeroed, so that nobody reads what was never
// written where an upload fails.
CudaStore::Entry& CudaStore::entry(std::string_view name, DType dtype, const Shape& shape) {
  const auto found = entries_.find(name);
  if (found != entries_.end()) {
    Entry& there = found->second;
    if (there.dtype == dtype && there.shape == shape) return there;
    throw Error(Status::usage,
                fmt::format("the tensor `{}` is {} {}, not {} {}", name, name_of(there.dtype),
                            there.shape.str(), name_of(dtype), shape.str()),
                "store");
  }
  if (dtype == DType::f64)
    throw Error(Status::usage, fmt::format("the tensor `{}` is f64", name), "store",
                "a GPU computes in f32: convert it");
  const std::size_t bytes = static_cast<std::size_t>(shape.elements()) * size_of(dtype);
  Entry fresh;
  fresh.dtype = dtype;
  fresh.shape = shape;
  fresh.memory = DeviceBuffer(context_->runtime(), bytes, fmt::format("`{}`", name));
  context_->runtime().fill(fresh.memory.get(), 0, bytes, context_->main());
  return entries_.emplace(std::string(name), std::move(fresh)).first->second;
}

bool CudaStore::has(std::string_view name) const {
  return entries_.find(name) != entries_.end();
}

void CudaStore::declare(std::string_view name, DType dtype, const Shape& shape) {
  context_->enter();
  static_cast<void>(entry(name, dtype, shape));
}

void CudaStore::write(std::string_view name, const Tensor& tensor) {
  context_->enter();
  Entry& there = entry(name, tensor.dtype(), tensor.shape());
  there.bound.reset();
  context_->upload(there.memory.get(), tensor.bytes());
}

void CudaStore::bind(std::string_view name, std::shared_ptr<const Tensor> tensor) {
  if (!tensor) throw Error(Status::usage, fmt::format("no tensor to bind to `{}`", name), "store");
  context_->enter();
  Entry& there = entry(name, tensor->dtype(), tensor->shape());
  if (there.bound == tensor && !there.updated) return;
  there.bound.reset();
  context_->upload(there.memory.get(), tensor->bytes());
  there.bound = std::move(tensor);
}

Tensor CudaStore::read(std::string_view name) const {
  const Entry& there = entry(name);
  context_->enter();
  Tensor copy(there.dtype, there.shape);
  const Region region{copy.bytes().data(), there.memory.get(), copy.bytes().size()};
  context_->download({&region, 1});
  return copy;
}

std::vector<std::string> CudaStore::names() const {
  std::vector<std::string> found;
  for (const auto& [name, entry] : entries_) found.push_back(name);
  return found;
}

void CudaStore::mark_updated(std::string_view name) {
  entries_.find(name)->second.updated = true;
}

}  // namespace cuvae::cuda
