// The graph's builder and its checks.

#include "cuvae/graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/text.h"
#include "cuvae/error.h"
#include "cuvae/rng.h"
#include "graph/op.h"

namespace cuvae {

namespace {

std::string node_place(std::string_view name, std::string_view op) {
  return fmt::format("node `{}` ({})", name, op);
}

constexpr std::string_view kind_of(const Attrs::Attr& attr) {
  constexpr std::string_view kinds[] = {"an integer", "a real", "a text"};
  return kinds[attr.index()];
}

[[noreturn]] void attr_missing(std::string_view name) {
  throw Error(Status::usage, fmt::format("attribute `{}` is missing", name));
}

[[noreturn]] void attr_kind(std::string_view name, const Attrs::Attr& attr,
                            std::string_view wanted) {
  throw Error(Status::usage,
              fmt::format("attribute `{}` is {}, not {}", name, kind_of(attr), wanted));
}

std::int64_t as_integer(std::string_view name, const Attrs::Attr& attr) {
  if (const auto* value = std::get_if<std::int64_t>(&attr)) return *value;
  attr_kind(name, attr, "an integer");
}

double as_real(std::string_view name, const Attrs::Attr& attr) {
  if (const auto* value = std::get_if<double>(&attr)) return *value;
  if (const auto* value = std::get_if<std::int64_t>(&attr)) return static_cast<double>(*value);
  attr_kind(name, attr, "a real");
}

const std::string& as_text(std::string_view name, const Attrs::Attr& attr) {
  if (const auto* value = std::get_if<std::string>(&attr)) return *value;
  attr_kind(name, attr, "a text");
}

}  // namespace

Attrs::Attrs(std::initializer_list<std::pair<std::string, Attr>> entries) {
  for (const auto& [name, attr] : entries) set(name, attr);
}

void Attrs::set(std::string_view name, Attr attr) {
  const auto at = std::lower_bound(
      entries_.begin(), entries_.end(), name,
      [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
  if (at != entries_.end() && at->first == name)
    at->second = std::move(attr);
  else
    entries_.emplace(at, std::string(name), std::move(attr));
}

const Attrs::Attr* Attrs::find(std::string_view name) const noexcept {
  for (const auto& entry : entries_)
    if (entry.first == name) return &entry.second;
  return nullptr;
}

bool Attrs::has(std::string_view name) const noexcept {
  return find(name) != nullptr;
}

std::int64_t Attrs::integer(std::string_view name) const {
  const Attr* attr = find(name);
  if (!attr) attr_missing(name);
  return as_integer(name, *attr);
}

double Attrs::real(std::string_view name) const {
  const Attr* attr = find(name);
  if (!attr) attr_missing(name);
  return as_real(name, *attr);
}

const std::string& Attrs::text(std::string_view name) const {
  const Attr* attr = find(name);
  if (!attr) attr_missing(name);
  return as_text(name, *attr);
}

std::int64_t Attrs::integer(std::string_view name, std::int64_t otherwise) const {
  const Attr* attr = find(name);
  return attr ? as_integer(name, *attr) : otherwise;
}

double Attrs::real(std::string_view name, double otherwise) const {
  const Attr* attr = find(name);
  return attr ? as_real(name, *attr) : otherwise;
}

std::string Attrs::text(std::string_view name, std::string_view otherwise) const {
  const Attr* attr = find(name);
  return attr ? as_text(name, *attr) : std::string(otherwise);
}

std::size_t Graph::index(Value value) const {
  if (value.id < 0 || static_cast<std::size_t>(value.id) >= values_.size())
    throw Error(Status::usage,
                value ? fmt::format("value {} is not of this graph", value.id) : "no value");
  return static_cast<std::size_t>(value.id);
}

Value Graph::find(std::string_view name) const noexcept {
  for (std::size_t i = 0; i < values_.size(); ++i)
    if (values_[i].name == name) return {static_cast<std::int32_t>(i)};
  return {};
}

Value Graph::make_value(ValueInfo info) {
  if (values_.size() >= static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
    throw Error(Status::usage, "a graph holds at most 2^31 - 1 values");
  values_.push_back(std::move(info));
  return {static_cast<std::int32_t>(values_.size() - 1)};
}

Value Graph::persistent(std::string name, DType dtype, Shape shape, Storage storage) {
  if (name.empty()) throw Error(Status::usage, "a persistent value without a name");
  if (find(name))
    throw Error(Status::usage, fmt::format("the name `{}` is already taken", name), "graph",
                "give every value a name of its own");
  ValueInfo info;
  info.name = std::move(name);
  info.dtype = dtype;
  info.shape = shape;
  info.storage = storage;
  return make_value(std::move(info));
}

Value Graph::parameter(std::string name, Shape shape) {
  if (static_cast<std::uint64_t>(shape.elements()) / 4 >= max_random_groups)
    throw Error(Status::usage,
                fmt::format("{} elements of `{}` do not fit 2^40 groups of four random numbers",
                            shape.elements(), name),
                "graph", "use smaller layers");
  return persistent(std::move(name), DType::f32, shape, Storage::parameter);
}

Value Graph::state(std::string name, DType dtype, Shape shape, double initial) {
  if (dtype != DType::f32 && initial != 0)
    throw Error(Status::usage, fmt::format("the state `{}` starts from {}", name, initial), "graph",
                "only f32 states start from something else than 0");
  const Value state = persistent(std::move(name), dtype, shape, Storage::state);
  values_[index(state)].initial = initial;
  return state;
}

Value Graph::input(std::string name, DType dtype, Shape shape) {
  return persistent(std::move(name), dtype, shape, Storage::input);
}

std::vector<Value> Graph::add(std::string_view op, std::string name, std::vector<Value> inputs,
                              Attrs attrs) {
  const OpDef* known = nullptr;
  try {
    known = &op_def(op);
  } catch (const Error& error) {
    throw Error(error.status(), fmt::format("unknown operator `{}`", op), node_place(name, op),
                suggest_op(op));
  }
  return add(known->op, std::move(name), std::move(inputs), std::move(attrs));
}

std::vector<Value> Graph::add(Op op, std::string name, std::vector<Value> inputs, Attrs attrs) {
  return add(op, std::move(name), std::move(inputs), std::move(attrs), {});
}

std::vector<Value> Graph::add(Op op, std::string name, std::vector<Value> inputs, Attrs attrs,
                              std::vector<std::string> names) {
  const OpDef& def = op_def(op);
  const std::string place = node_place(name, def.name);
  const auto refuse = [&](std::string_view what, std::string_view mend = {}) {
    throw Error(Status::usage, what, place, mend);
  };

  if (name.empty()) refuse("a node without a name");
  for (const Node& node : nodes_)
    if (node.name == name)
      refuse("a node of that name is already there", "give every node a name of its own");
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i] && static_cast<std::size_t>(inputs[i].id) >= values_.size())
      refuse(fmt::format("input {} is not a value of this graph", i));

  std::vector<OutputSpec> specs;
  try {
    specs = def.infer(InferContext(*this, def.name, name, inputs, attrs));
  } catch (const Error& error) {
    const std::string_view what = error.what();
    if (what.find(place) != what.npos) throw;
    throw Error(error.status(), what, place);  // of an attribute or a shape: name the node
  }

  if (def.random) {
    const std::int64_t stream = attrs.has("stream") ? attrs.integer("stream") : next_stream_;
    if (stream < 0 || stream > std::numeric_limits<std::uint16_t>::max())
      refuse(fmt::format("random stream {} does not fit 16 bits", stream),
             "a graph holds at most 65536 random nodes");
    const std::int64_t purpose = attrs.integer("purpose", 0);
    if (purpose < 0 || purpose > std::numeric_limits<std::uint8_t>::max())
      refuse(fmt::format("random purpose {} does not fit 8 bits", purpose));
    for (const OutputSpec& spec : specs)
      if (static_cast<std::uint64_t>(spec.shape.elements()) / 4 >= max_random_groups)
        refuse(
            fmt::format("{} random elements do not fit 2^40 groups of four", spec.shape.elements()),
            "use a smaller batch");
    attrs.set("stream", stream);
  }

  std::vector<Value> version_of(specs.size());
  for (const Slots& slots : def.updates) {
    if (static_cast<std::size_t>(slots.output) >= specs.size()) continue;
    if (static_cast<std::size_t>(slots.input) >= inputs.size() || !inputs[slots.input])
      refuse(fmt::format("input {}, which it updates, is missing", slots.input));
    const Value target = inputs[slots.input];
    const ValueInfo& info = values_[index(target)];
    const Value held = root(target);
    if (!held)
      refuse(fmt::format("cannot update `{}`: it is transient", info.name),
             "update a parameter or a state");
    if (values_[held.id].storage == Storage::input)
      refuse(
          fmt::format("cannot update `{}`: it is an input, which only the host writes", info.name),
          "update a parameter or a state");
    if (latest(held) != held ||
        std::find(version_of.begin(), version_of.end(), held) != version_of.end())
      refuse(fmt::format("a second update of `{}`", values_[held.id].name),
             "update each persistent value once");
    if (!(specs[slots.output].shape == info.shape) || specs[slots.output].dtype != info.dtype)
      throw Error(Status::failed,
                  fmt::format("the update of `{}` changes its shape or dtype", info.name), place);
    version_of[slots.output] = held;
  }

  if (names.empty())
    for (const OutputSpec& spec : specs)
      names.push_back(spec.slot.empty() ? name : name + "." + spec.slot);
  if (names.size() != specs.size())
    refuse(fmt::format("has {} outputs, not {}", specs.size(), names.size()));
  for (const std::string& output : names)
    if (output.empty() || find(output) || std::count(names.begin(), names.end(), output) > 1)
      refuse(fmt::format("the name `{}` of its output is already taken", output),
             "give the node another name");

  // Everything is checked: from here on nothing fails but memory.
  Node node;
  node.op = op;
  node.name = std::move(name);
  node.inputs = std::move(inputs);
  node.attrs = std::move(attrs);
  for (std::size_t i = 0; i < specs.size(); ++i) {
    ValueInfo info;
    info.name = std::move(names[i]);
    info.dtype = specs[i].dtype;
    info.shape = specs[i].shape;
    info.producer = static_cast<std::int32_t>(nodes_.size());
    info.producer_slot = static_cast<std::int32_t>(i);
    info.version_of = version_of[i];
    node.outputs.push_back(make_value(std::move(info)));
  }
  if (def.random) next_stream_ = std::max(next_stream_, node.attrs.integer("stream")) + 1;
  nodes_.push_back(std::move(node));
  return nodes_.back().outputs;
}

void Graph::output(Value value) {
  const ValueInfo& info = (*this)[value];
  if (root(value))
    throw Error(Status::usage, fmt::format("`{}` is persistent and cannot be an output", info.name),
                "graph", "read it from the store after the run");
  if (!is_output(value)) outputs_.push_back(value);
}

bool Graph::is_output(Value value) const {
  return std::find(outputs_.begin(), outputs_.end(), value) != outputs_.end();
}

void Graph::rename(Value value, std::string name) {
  ValueInfo& info = values_[index(value)];
  if (info.name == name) return;
  if (info.producer < 0)
    throw Error(Status::usage, fmt::format("cannot rename `{}`: it is persistent", info.name),
                "graph");
  if (name.empty())
    throw Error(Status::usage, fmt::format("cannot rename `{}` to nothing", info.name), "graph");
  if (find(name))
    throw Error(Status::usage,
                fmt::format("cannot rename `{}`: the name `{}` is already taken", info.name, name),
                "graph", "give every value a name of its own");
  info.name = std::move(name);
}

Value Graph::root(Value value) const {
  const ValueInfo& info = (*this)[value];
  if (info.version_of) return info.version_of;
  return info.producer < 0 ? value : Value{};
}

Value Graph::latest(Value persistent) const {
  const Value held = root(persistent);
  if (!held)
    throw Error(Status::usage,
                fmt::format("`{}` is transient: it has no versions", (*this)[persistent].name),
                "graph");
  for (std::size_t i = values_.size(); i-- > 0;)
    if (values_[i].version_of == held) return {static_cast<std::int32_t>(i)};
  return held;
}

std::vector<std::int32_t> Graph::readers(Value value) const {
  std::vector<std::int32_t> found;
  for (std::size_t n = 0; n < nodes_.size(); ++n)
    if (std::find(nodes_[n].inputs.begin(), nodes_[n].inputs.end(), value) !=
        nodes_[n].inputs.end())
      found.push_back(static_cast<std::int32_t>(n));
  return found;
}

}  // namespace cuvae
