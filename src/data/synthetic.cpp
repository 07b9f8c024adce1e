#include "data/synthetic.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>

#include "base/text.h"
#include "cuvae/error.h"
#include "data/sha256.h"

namespace cuvae {
namespace {

constexpr std::array sources = {&synthetic_linear_gaussian, &synthetic_dense, &synthetic_counts,
                                &synthetic_shapes};

using Kind = SyntheticParameter::Kind;

std::vector<std::string_view> parts_of(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const auto end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string allowed(const SyntheticParameter& parameter) {
  const char* what = parameter.kind == Kind::whole  ? "an integer from {} to {:.0f}"
                     : parameter.kind == Kind::real ? "a number from {} to {}"
                                                    : "numbers from {} to {} with commas between";
  return fmt::format(fmt::runtime(what), parameter.low, parameter.high);
}

// Empty where the text is no value of the parameter.
std::vector<double> values_of(const SyntheticParameter& parameter, std::string_view text) {
  std::vector<double> values;
  for (const std::string_view part :
       parameter.kind == Kind::list ? parts_of(text, ',') : std::vector{text}) {
    double value = 0;
    const char* const end = part.data() + part.size();
    const auto [stop, error] = std::from_chars(part.data(), end, value);
    const bool whole = parameter.kind != Kind::whole || value == std::rint(value);
    if (error != std::errc{} || stop != end || !whole ||
        !(value >= parameter.low && value <= parameter.high))
      return {};
    values.push_back(value);
  }
  return values;
}

void hash_split(const std::optional<DatasetSplit>& split, Sha256& hash) {
  if (!split) return;
  hash.update(split->images->bytes());
  hash.update(std::as_bytes(std::span(split->labels)));
}

}  // namespace

SyntheticValues::SyntheticValues(std::span<const SyntheticParameter> parameters,
                                 std::string_view query, std::string_view where)
    : parameters_(parameters), values_(parameters.size()), where_(where) {
  for (const std::string_view setting : parts_of(query, '&')) {
    if (query.empty()) break;
    const auto equals = setting.find('=');
    const std::string_view name = setting.substr(0, equals);
    std::vector<std::string> names;
    std::size_t place = parameters.size();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      names.emplace_back(parameters[i].name);
      if (parameters[i].name == name) place = i;
    }
    if (place == parameters.size()) {
      const std::string guess = closest(name, names);
      refuse(fmt::format("unknown parameter `{}`", name),
             guess.empty() ? fmt::format("it has {}", fmt::join(names, ", "))
                           : fmt::format("did you mean `{}`?", guess));
    }
    const SyntheticParameter& parameter = parameters[place];
    if (!values_[place].empty())
      refuse(fmt::format("`{}` is given twice", name), "leave one of them out");
    const std::string_view text =
        equals == std::string_view::npos ? std::string_view() : setting.substr(equals + 1);
    values_[place] = values_of(parameter, text);
    if (values_[place].empty())
      refuse(fmt::format("`{}` = `{}`", name, text), fmt::format("give {}", allowed(parameter)));
  }
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (values_[i].empty()) values_[i] = values_of(parameters[i], parameters[i].standard);
}

void SyntheticValues::refuse(const std::string& what, const std::string& mend) const {
  throw Error(Status::usage, what, where_, mend);
}

const std::vector<double>& SyntheticValues::list(std::string_view name) const {
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    if (parameters_[i].name == name) return values_[i];
  throw Error(Status::failed, fmt::format("no parameter `{}`", name), where_);
}

double SyntheticValues::real(std::string_view name) const {
  return list(name).front();
}

std::int64_t SyntheticValues::integer(std::string_view name) const {
  return static_cast<std::int64_t>(real(name));
}

std::span<const SyntheticSource* const> synthetic_sources() {
  return sources;
}

Dataset load_synthetic(std::string_view text) {
  constexpr std::string_view prefix = "synthetic:";
  const std::string_view rest = text.substr(prefix.size());
  const auto mark = rest.find('?');
  const std::string_view name = rest.substr(0, mark);
  std::vector<std::string> names;
  for (const SyntheticSource* source : sources) {
    names.emplace_back(source->name);
    if (source->name != name) continue;
    const SyntheticValues values(
        source->parameters,
        mark == std::string_view::npos ? std::string_view() : rest.substr(mark + 1), text);
    Dataset dataset = source->draw(values);
    dataset.path = text;
    Sha256 hash;
    hash_split(dataset.train, hash);
    hash_split(dataset.test, hash);
    dataset.sha256 = hash.hex();
    return dataset;
  }
  const std::string guess = closest(name, names);
  throw Error(Status::usage, fmt::format("there are no synthetic data `{}`", name), text,
              guess.empty() ? fmt::format("choose {}", fmt::join(names, ", "))
                            : fmt::format("did you mean `{}{}`?", prefix, guess));
}

// x = k ln 2 + r with |r| <= ln 2 / 2; the Taylor terms left out are below 1e-18 of the sum.
double exact_exp(double x) {
  if (x < -700) return 0;
  constexpr double ln2_high = 0x1.62e42fee00000p-1;
  constexpr double ln2_low = 0x1.a39ef35793c76p-33;
  const double k = std::floor(x * 0x1.71547652b82fep+0 + 0.5);
  const double r = (x - k * ln2_high) - k * ln2_low;
  double sum = 1;
  for (int n = 16; n > 0; --n) sum = 1 + r * sum / n;
  return std::ldexp(sum, static_cast<int>(k));
}

double Draws::uniform(std::uint64_t i, std::uint64_t step) const {
  RandomKey key = key_;
  key.step = step;
  const PhiloxWords words = random_words(key, i);
  const std::uint64_t bits = (std::uint64_t{words[0]} << 21) | (words[1] >> 11);
  return static_cast<double>(bits) * 0x1p-53;
}

// By inversion, in pieces whose e^-mean is far from the smallest uniform.
std::int64_t Draws::poisson(double mean, std::uint64_t i) const {
  constexpr double piece = 16;
  std::int64_t count = 0;
  for (std::uint64_t step = 0; mean > 0; ++step, mean -= piece) {
    const double part = mean < piece ? mean : piece;
    const double u = uniform(i, step);
    double p = exact_exp(-part);
    double below = p;
    for (int k = 1; u >= below && k < 200; ++k) {
      p *= part / k;
      below += p;
      ++count;
    }
  }
  return count;
}

}  // namespace cuvae
