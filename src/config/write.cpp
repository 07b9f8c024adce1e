#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

#include "config/keys.h"
#include "cuvae/config.h"

namespace cuvae {
namespace {

struct Line {
  std::string text;
  std::string comment;
};

// A short value carries its comment behind it, in a column; a long one above it.
void append_lines(std::string& out, const std::vector<Line>& lines) {
  constexpr std::size_t longest_aligned = 40;
  std::size_t column = 0;
  for (const Line& line : lines) {
    if (!line.comment.empty() && line.text.size() <= longest_aligned) {
      column = std::max(column, line.text.size());
    }
  }
  for (const Line& line : lines) {
    if (line.comment.empty()) {
      out += line.text + "\n";
    } else if (line.text.size() <= longest_aligned) {
      out += fmt::format("{:<{}}  # {}\n", line.text, column, line.comment);
    } else {
      out += fmt::format("# {}\n{}\n", line.comment, line.text);
    }
  }
}

std::string joined(const std::vector<std::string_view>& words) {
  std::string text;
  for (const std::string_view word : words) {
    text += text.empty() ? "" : " | ";
    text += word;
  }
  return text;
}

std::string comment_of(const config::Key& key) {
  std::string comment(key.doc);
  if (key.kind == config::Kind::choice) {
    comment += fmt::format(" ({})", joined(key.choices));
  } else if (!key.types.empty()) {
    comment = fmt::format("{}: {}", joined(key.types), comment);
  }
  if (key.kind == config::Kind::integer || key.kind == config::Kind::number ||
      key.kind == config::Kind::pair)
    comment += fmt::format(" ({}{}{})", config::range_text(key), key.choices.empty() ? "" : " | ",
                           joined(key.choices));
  return comment;
}

// "# conv2d (out, kernel, stride, padding, bias): a convolution, as PyTorch's Conv2d"
std::string layer_comment(const LayerDoc& doc) {
  std::string keys;
  for (const std::string& key : doc.keys)
    keys += (keys.empty() ? " (" : ", ") + key.substr(0, key.find(' '));
  return fmt::format("# {}{}: {}", doc.name, keys.empty() ? "" : keys + ")", doc.doc);
}

}  // namespace

std::string to_toml(const Config& config, bool comments) {
  std::string out;
  std::vector<Line> lines;
  std::string_view section;
  lines.push_back({"schema = 1", ""});
  for (const config::Key& key : config::keys()) {
    const bool applies = config::applies(key, config);
    if (!applies && !comments) continue;
    const auto dot = key.path.find('.');
    const bool top = dot == std::string_view::npos;
    const std::string_view here = top ? std::string_view{} : key.path.substr(0, dot);
    if (here != section) {
      append_lines(out, lines);
      lines.clear();
      out += fmt::format("\n[{}]\n", here);
      section = here;
    }
    // The types of layers, once.
    if (comments && key.path == "model.encoder.layers")
      for (const LayerDoc& doc : layer_docs()) lines.push_back({layer_comment(doc), ""});
    // What another type would have is shown as what it would be.
    lines.push_back(
        {fmt::format("{}{} = {}", applies ? "" : "# ", top ? key.path : key.path.substr(dot + 1),
                     config::value_as_toml(key, config)),
         comments ? comment_of(key) : std::string()});
  }
  append_lines(out, lines);
  return out;
}

}  // namespace cuvae
