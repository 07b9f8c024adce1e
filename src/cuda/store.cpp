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
  fresh.memory =
      std::make_shared<DeviceBuffer>(context_->runtime(), bytes, fmt::format("`{}`", name));
  context_->runtime().fill(fresh.memory->get(), 0, bytes, context_->main());
  return entries_.emplace(std::string(name), std::move(fresh)).first->second;
}

bool CudaStore::has(std::string_view name) const {
  return entries_.find(name) != entries_.end();
}

void CudaStore::declare(std::string_view name, DType dtype, const Shape& shape) {
  context_->enter();
  static_cast<void>(entry(name, dtype, shape));
}

void CudaStore::declare_shadow(std::string_view name, std::string_view of) {
  context_->enter();
  entry(name, DType::bf16, entry(of).shape).shadow_of = of;
}

std::uint64_t& CudaStore::contents(std::string_view name) {
  return entries_.find(name)->second.contents;
}

std::uint64_t& CudaStore::copied(std::string_view shadow) {
  return entries_.find(shadow)->second.copied;
}

void CudaStore::write(std::string_view name, const Tensor& tensor) {
  context_->enter();
  Entry& there = entry(name, tensor.dtype(), tensor.shape());
  require_own(name, there);
  ++there.contents;
  there.bound.reset();
  context_->upload(there.memory->get(), tensor.bytes());
}

void CudaStore::require_own(std::string_view name, const Entry& there) const {
  if (there.memory.use_count() > 1)
    throw Error(Status::usage,
                fmt::format("the tensor `{}` shares its memory with another store", name), "store",
                "bind it without share(), for memory of its own");
  // Nobody shall share it for what it held.
  if (there.bound) context_->device()->remove_resident(there.memory);
}

void CudaStore::bind(std::string_view name, std::shared_ptr<const Tensor> tensor) {
  if (!tensor) throw Error(Status::usage, fmt::format("no tensor to bind to `{}`", name), "store");
  context_->enter();
  Entry& there = entry(name, tensor->dtype(), tensor->shape());
  if (there.bound == tensor && !there.updated) return;
  require_own(name, there);
  ++there.contents;
  there.bound.reset();
  context_->upload(there.memory->get(), tensor->bytes());
  if (!there.updated) context_->device()->add_resident({tensor, there.memory, context_});
  there.bound = std::move(tensor);
}

bool CudaStore::share(std::string_view name, const std::shared_ptr<const Tensor>& tensor) {
  if (!tensor) throw Error(Status::usage, fmt::format("no tensor to share as `{}`", name), "store");
  if (has(name)) return false;
  context_->enter();
  std::shared_ptr<Context> holder;
  auto memory = context_->device()->resident(tensor, holder);
  if (memory == nullptr) return false;
  if (holder && holder != context_) {
    // Its upload may be under way; a context that is gone has waited for it.
    Event uploaded(context_->runtime());
    uploaded.record(holder->main());
    context_->stream(0).wait(uploaded);
  }
  entries_.emplace(std::string(name), Entry{.dtype = tensor->dtype(),
                                            .shape = tensor->shape(),
                                            .memory = std::move(memory),
                                            .updated = false,
                                            .bound = tensor});
  return true;
}

Tensor CudaStore::read(std::string_view name) const {
  const Entry& there = entry(name);
  context_->enter();
  Tensor copy(there.dtype, there.shape);
  const Region region{copy.bytes().data(), there.memory->get(), copy.bytes().size()};
  context_->download({&region, 1});
  return copy;
}

std::vector<std::string> CudaStore::names() const {
  std::vector<std::string> found;
  for (const auto& [name, entry] : entries_)
    if (entry.shadow_of.empty()) found.push_back(name);
  return found;
}

void CudaStore::mark_updated(std::string_view name) {
  Entry& there = entries_.find(name)->second;
  require_own(name, there);
  there.updated = true;
}

}  // namespace cuvae::cuda
