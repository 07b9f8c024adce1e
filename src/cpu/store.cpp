#include "cpu/store.h"

#include <fmt/format.h>

#include <cstring>

#include "cuvae/error.h"

namespace cuvae {

// A double device takes f64 tensors for f32 values.
DType HostStore::declared(DType dtype) const {
  return real_ == DType::f64 && dtype == DType::f64 ? DType::f32 : dtype;
}

const HostStore::Entry& HostStore::entry(std::string_view name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end())
    throw Error(Status::usage, fmt::format("the store holds no tensor `{}`", name), "store");
  return found->second;
}

void HostStore::require(std::string_view name, const Entry& there, DType dtype,
                        const Shape& shape) const {
  if (there.dtype == declared(dtype) && there.shape == shape) return;
  throw Error(Status::usage,
              fmt::format("the tensor `{}` is {} {}, not {} {}", name, name_of(there.dtype),
                          there.shape.str(), name_of(dtype), shape.str()),
              "store");
}

bool HostStore::has(std::string_view name) const {
  return entries_.find(name) != entries_.end();
}

void HostStore::declare(std::string_view name, DType dtype, const Shape& shape) {
  if (const auto found = entries_.find(name); found != entries_.end()) {
    require(name, found->second, dtype, shape);
    return;
  }
  Entry fresh{.dtype = declared(dtype), .stored = dtype, .shape = shape, .memory = {}, .bound = {}};
  if (fresh.dtype == DType::f32) fresh.stored = real_;
  fresh.memory = GuardedMemory(fresh.bytes(), fmt::format("the tensor `{}`", name).c_str());
  entries_.emplace(std::string(name), std::move(fresh));
  ++version_;
}

void HostStore::write(std::string_view name, const Tensor& tensor) {
  declare(name, tensor.dtype(), tensor.shape());
  const Tensor stored = tensor.to(entry(name).stored);
  if (!stored.bytes().empty())
    std::memcpy(writable(name), stored.bytes().data(), stored.bytes().size());
}

void HostStore::bind(std::string_view name, std::shared_ptr<const Tensor> tensor) {
  if (!tensor) throw Error(Status::usage, fmt::format("no tensor to bind to `{}`", name), "store");
  const auto found = entries_.find(name);
  if (found != entries_.end()) require(name, found->second, tensor->dtype(), tensor->shape());
  Entry fresh{.dtype = declared(tensor->dtype()),
              .stored = tensor->dtype(),
              .shape = tensor->shape(),
              .memory = {},
              .bound = {}};
  if (fresh.dtype == DType::f32) fresh.stored = real_;
  if (fresh.stored != tensor->dtype())
    tensor = std::make_shared<const Tensor>(tensor->to(fresh.stored));
  fresh.bound = std::move(tensor);
  entries_.insert_or_assign(std::string(name), std::move(fresh));
  ++version_;
}

std::byte* HostStore::writable(std::string_view name) {
  const auto found = entries_.find(name);
  if (found == entries_.end()) static_cast<void>(entry(name));
  Entry& there = found->second;
  if (there.bound) {
    GuardedMemory own(there.bytes(), fmt::format("the tensor `{}`", name).c_str());
    if (there.bytes() > 0) std::memcpy(own.data(), there.bound->bytes().data(), there.bytes());
    there.memory = std::move(own);
    there.bound.reset();
    ++version_;
  }
  return there.memory.data();
}

Tensor HostStore::read(std::string_view name) const {
  const Entry& there = entry(name);
  Tensor copy(there.stored, there.shape);
  if (there.bytes() > 0) std::memcpy(copy.bytes().data(), there.data(), there.bytes());
  return copy;
}

std::vector<std::string> HostStore::names() const {
  std::vector<std::string> found;
  for (const auto& [name, entry] : entries_) found.push_back(name);
  return found;
}

bool HostStore::guards_intact() const {
  for (const auto& [name, entry] : entries_)
    if (!entry.memory.intact()) return false;
  return true;
}

}  // namespace cuvae
