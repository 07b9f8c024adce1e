// Convolutions as implicit products. A slab holds some images of the source (or some rows of one)
// with zeros around them, and where there is a stride its residues apart: then what a tap sees of
// all positions is a run of the slab, and the products (cpu/loops_conv.h) read their operand there.
// Rows of the slab are a little longer than those of the result; what is computed in between is
// left out when results are put in their place. Tiles depend on shapes only.

#include "ops/conv.h"

#include <algorithm>

#include "cpu/kernel.h"

namespace cuvae {
namespace {

using Int = std::int64_t;

constexpr Int slab_elements = 96 * 1024;  // with weights and results about half of a usual L2 cache
constexpr Int most_positions = 1024;      // of a slab with more than one image
constexpr Int enough_tasks = 32;
constexpr Int most_part_elements = 16 << 20;  // of all partial sums of a weight gradient
constexpr Int panel_terms = 48;
constexpr Int panel_elements = 12 * 1024;  // most of a usual L1 cache

Int round_up(Int n, Int to) {
  return divide_up(n, to) * to;
}

Int divide_down(Int n, Int by) {
  return n >= 0 ? n / by : -divide_up(-n, by);
}

Int size_of_part(Int n, Int most) {
  return divide_up(n, std::max<Int>(1, divide_up(n, most)));
}

template <class T>
T* after(T* begin, Int elements) {
  return begin + round_up(elements, 64);
}

// Along one axis: position p and tap meet row p + shift of the slab's plane of their residue, whose
// row g is row g * stride + residue of the source.
struct SlabAxis {
  Int stride = 1;
  Int source = 0;
  Int positions = 0;
  Int low = 0, high = 0;  // shifts
  Int shared = 0;         // zeros behind the edge that are those before the next one
  std::vector<Int> residues;

  explicit SlabAxis(const std::vector<ConvPhaseAxis>& phases) {
    bool any = false;
    for (const ConvPhaseAxis& phase : phases) {
      stride = phase.stride;
      source = phase.source;
      positions = std::max(positions, phase.positions);
      for (Int tap = 0; tap < phase.taps; ++tap) {
        const Int at = shift(phase, tap);
        low = any ? std::min(low, at) : at;
        high = any ? std::max(high, at) : at;
        any = true;
        const Int residue = phase.start + tap * phase.step - at * stride;
        if (std::ranges::find(residues, residue) == residues.end()) residues.push_back(residue);
      }
    }
    const Int behind = positions + high - divide_up(source, stride);
    shared = std::max<Int>(0, std::min(-low, behind));
  }
  [[nodiscard]] static Int shift(const ConvPhaseAxis& phase, Int tap) {
    return divide_down(phase.start + tap * phase.step, phase.stride);
  }
  [[nodiscard]] Int plane(const ConvPhaseAxis& phase, Int tap) const {
    const Int residue = phase.start + tap * phase.step - shift(phase, tap) * stride;
    return std::ranges::find(residues, residue) - residues.begin();
  }
  [[nodiscard]] Int planes() const { return static_cast<Int>(residues.size()); }
  [[nodiscard]] Int extent(Int of_positions) const { return of_positions + high - low; }
};

std::vector<ConvPhaseAxis> axes(const std::vector<ConvPhase>& phases,
                                ConvPhaseAxis ConvPhase::*of) {
  std::vector<ConvPhaseAxis> all;
  for (const ConvPhase& phase : phases) all.push_back(phase.*of);
  return all;
}

// Images [first, first + count), rows [begin, end) of positions.
struct SlabTile {
  Int image, count;
  Int begin, end;
};

struct Slab {
  Int batch, channels;
  SlabAxis h, w;
  Int images = 1;  // of a tile
  Int rows = 0;    // of positions, of a tile
  Int width = 0;   // of a row
  Int height = 0;  // from image to image
  Int plane = 0;   // elements from plane to plane
  Int tiles = 0;

  Slab(Int batch_size, Int source_channels, const std::vector<ConvPhase>& phases, Int positions)
      : batch(batch_size),
        channels(source_channels),
        h(axes(phases, &ConvPhase::h)),
        w(axes(phases, &ConvPhase::w)) {
    width = w.extent(w.positions) - w.shared;
    height = h.extent(h.positions) - h.shared;
    const Int planes = std::max<Int>(1, channels * h.planes() * w.planes());
    const Int line = std::max<Int>(1, planes * width);
    rows = h.positions;
    if (batch < 1 || rows < 1 || w.positions < 1) return;
    if (line * h.extent(rows) > slab_elements || height * width > 2 * positions) {
      const Int fitting = std::min(slab_elements / line - (h.high - h.low), positions / width);
      rows = size_of_part(rows, std::max<Int>(2, fitting));
    } else {
      const Int shared_out = std::max(divide_up(batch, enough_tasks),
                                      divide_up(positions / 8, h.positions * w.positions));
      images = size_of_part(batch,
                            std::max<Int>(1, std::min({slab_elements / (line * height),
                                                       positions / (height * width), shared_out})));
    }
    plane = ((images - 1) * height + h.extent(rows)) * width + w.shared + conv_lanes;
    tiles = divide_up(batch, images) * row_tiles();
  }
  [[nodiscard]] Int row_tiles() const { return divide_up(h.positions, rows); }
  [[nodiscard]] Int elements(Int of_channels) const {
    return of_channels * h.planes() * w.planes() * plane;
  }
  [[nodiscard]] SlabTile tile(Int i) const {
    const Int image = i / row_tiles() * images;
    const Int begin = i % row_tiles() * rows;
    return {image, std::min(images, batch - image), begin, std::min(h.positions, begin + rows)};
  }
  // Of a position from the slab's first.
  [[nodiscard]] Int at(Int image, Int row) const { return (image * height + row) * width; }
  // Of what a phase's terms (channel, tap) see, from the position on.
  [[nodiscard]] std::vector<Int> offsets(const ConvPhase& phase, Int of_channels) const {
    std::vector<Int> all;
    for (Int c = 0; c < of_channels; ++c)
      for (Int i = 0; i < phase.h.taps; ++i)
        for (Int j = 0; j < phase.w.taps; ++j)
          all.push_back(
              ((c * h.planes() + h.plane(phase.h, i)) * w.planes() + w.plane(phase.w, j)) * plane +
              (SlabAxis::shift(phase.h, i) - h.low) * width + SlabAxis::shift(phase.w, j) - w.low);
    return all;
  }

  // Fills it with channels [c0, c1) of `source` [B, channels, h.source, w.source].
  template <class T>
  void gather(const Loops<T>& loops, const T* source, Int c0, Int c1, const SlabTile& tile,
              T* to) const {
    GatheredRows<T> job{.rows = h.extent(tile.end - tile.begin),
                        .every_row = h.stride,
                        .source_rows = h.source,
                        .source_width = w.source,
                        .width = width,
                        .every_column = w.stride};
    for (Int c = c0; c < c1; ++c)
      for (const Int down : h.residues)
        for (const Int right : w.residues) {
          const Int begin = std::max<Int>(w.low, 0);
          const Int end = std::min(w.low + width, divide_up(w.source - right, w.stride));
          job.first = (tile.begin + h.low) * h.stride + down;
          job.left = std::min(begin - w.low, width);
          job.count = std::clamp<Int>(end - begin, 0, width - job.left);
          job.column = begin * w.stride + right;
          for (Int b = 0; b < tile.count; ++b) {
            job.source = source + ((tile.image + b) * channels + c) * h.source * w.source;
            job.to = to + b * height * width;
            loops.gather_rows(job);
          }
          loops.fill(w.shared + conv_lanes, T{},
                     to + ((tile.count - 1) * height + job.rows) * width);
          to += plane;
        }
  }
};

// A phase of the result and its weights, packed as [block of rows, term, row].
struct PhaseProduct {
  ConvPhase phase;
  Int terms = 0;
  Int weights = 0;  // where they begin
};

// What the forms of conv2d and conv_transpose2d share.
struct Convolution {
  Conv2d s;
  bool transposed;
  Int channels, sources;  // of the result, of the source
  Int height, width;      // of the result
  bool bias;
  Int blocks;  // of conv_rows channels
  std::vector<PhaseProduct> products;
  Int packed = 0;   // elements of packed weights
  Int abreast = 0;  // phases of a row of the result, which follow each other

  Convolution(const CpuNode& node, bool is_transposed)
      : s(conv_of(node.graph, node.node)),
        transposed(is_transposed),
        channels(transposed ? s.in : s.out),
        sources(transposed ? s.out : s.in),
        height(transposed ? s.h.in : s.h.out),
        width(transposed ? s.w.in : s.w.out),
        bias(node.has(2)),
        blocks(divide_up(channels, conv_rows)) {
    for (const ConvPhase& phase : conv_phases(s, transposed)) {
      const Int terms = sources * phase.h.taps * phase.w.taps;
      products.push_back({phase, terms, packed});
      packed += blocks * terms * conv_rows;
      if (phase.h.first_row == products.front().phase.h.first_row) ++abreast;
    }
  }
  [[nodiscard]] std::vector<ConvPhase> phases() const { return conv_phases(s, transposed); }
  [[nodiscard]] bool has_work() const { return s.batch > 0 && channels > 0 && !products.empty(); }
  // The weight of a channel of the result, a channel of the source, and a tap.
  [[nodiscard]] Int weight(Int channel, Int source, Int tap) const {
    return (transposed ? source * channels + channel : channel * sources + source) * s.taps() + tap;
  }

  template <class T>
  void pack(const CpuArgs<T>& args) const {
    // Blocks of some channels of the source, so that there are tasks enough for one block of rows.
    const Int some = size_of_part(sources, 64);
    const Int chunks = divide_up(sources, std::max<Int>(some, 1));
    args.team.parallel_for(blocks * chunks, [&](Int task, int) {
      const Int block = task / chunks;
      const Int begin = task % chunks * some;
      const Int end = std::min(sources, begin + some);
      const Int first = block * conv_rows;
      const Int rows = std::min(conv_rows, channels - first);
      const Int taps = s.taps();
      const auto packed_of = [&](const PhaseProduct& product, Int c) {
        return args.shared() + product.weights +
               (block * product.terms + c * product.phase.h.taps * product.phase.w.taps) *
                   conv_rows;
      };
      if (!transposed) {  // one phase, whose terms lie as they do in the weights
        args.loops.transpose_rows(rows, (end - begin) * taps, args.in(1) + weight(first, begin, 0),
                                  weight(1, 0, 0), packed_of(products.front(), begin), conv_rows);
        return;
      }
      for (Int c = begin; c < end; ++c)
        for (const PhaseProduct& product : products) {
          const ConvPhaseAxis& h = product.phase.h;
          const ConvPhaseAxis& w = product.phase.w;
          const T* from = args.in(1) + weight(first, c, h.first_tap * s.w.kernel + w.first_tap);
          T* to = packed_of(product, c);
          if (h.taps * w.taps == taps) {
            args.loops.transpose_rows(rows, taps, from, taps, to, conv_rows);
            continue;
          }
          for (Int i = 0; i < h.taps; ++i)
            for (Int j = 0; j < w.taps; ++j, to += conv_rows) {
              const T* tap = from + i * h.every_tap * s.w.kernel + j * w.every_tap;
              for (Int r = 0; r < rows; ++r) to[r] = tap[r * taps];
              for (Int r = rows; r < conv_rows; ++r) to[r] = T{};
            }
        }
    });
  }

  // Puts the results of the phases abreast from `first` on, `apart` elements from one to the next,
  // into an image of y, from their row `begin` on. `job` says how they lie there.
  template <class T>
  void place(const CpuArgs<T>& args, PlacedRows<T> job, std::size_t first, const T* results,
             Int apart, Int image, Int c0, Int begin) const {
    const ConvPhaseAxis& h = products[first].phase.h;
    job.bias = bias ? args.in(2) + c0 : nullptr;
    job.to_channel = height * width;
    job.to_row = h.every_row * width;
    // Two phases of columns are put side by side at once.
    const bool pairs = abreast == 2 && products[first].phase.w.every_row == 2;
    if (pairs) job.second_width = products[first + 1].phase.w.positions;
    for (Int i = 0; i < abreast; i += pairs ? 2 : 1) {
      const ConvPhaseAxis& w = products[first + static_cast<std::size_t>(i)].phase.w;
      job.width = w.positions;
      job.every_column = w.every_row;
      job.from = results + i * apart;
      job.second = pairs ? job.from + apart : nullptr;
      job.to = args.out(0) +
               ((image * channels + c0) * height + h.first_row + begin * h.every_row) * width +
               w.first_row;
      args.loops.place_rows(job);
    }
  }
};

// By a slab.
template <class T>
CpuKernel<T> convolve_by_slabs(CpuNode& node, const Convolution& conv) {
  const Int sources = conv.sources;
  const Slab slab(conv.s.batch, sources, conv.phases(), most_positions);
  std::vector<std::vector<Int>> offsets;
  for (const PhaseProduct& product : conv.products)
    offsets.push_back(slab.offsets(product.phase, sources));
  const Int line = round_up(slab.plane, conv_lanes) + conv_lanes;  // of results
  const Int parts = std::clamp<Int>(divide_up(enough_tasks / 2, std::max<Int>(slab.tiles, 1)), 1,
                                    std::max<Int>(conv.blocks, 1));
  const Int gathered = slab.elements(sources);
  node.scratch =
      (round_up(gathered, 64) + conv.abreast * conv_rows * line) * static_cast<Int>(sizeof(T));
  node.shared = conv.packed * static_cast<Int>(sizeof(T));
  return [=](const CpuArgs<T>& args) {
    conv.pack(args);
    args.team.parallel_for(slab.tiles * parts, [&](Int task, int worker) {
      const SlabTile tile = slab.tile(task / parts);
      const Int part = task % parts;
      T* source = args.scratch(worker);
      T* results = after(source, gathered);
      slab.gather(args.loops, args.in(0), 0, sources, tile, source);
      const Int last = conv.blocks * (part + 1) / parts;
      for (Int block = conv.blocks * part / parts; block < last; ++block) {
        const Int c0 = block * conv_rows;
        PlacedRows<T> job{.channels = std::min(conv_rows, conv.channels - c0),
                          .from_channel = line,
                          .from_row = slab.width};
        for (std::size_t first = 0; first < conv.products.size();
             first += static_cast<std::size_t>(conv.abreast)) {
          job.rows = std::min(tile.end, conv.products[first].phase.h.positions) - tile.begin;
          if (job.rows <= 0) continue;
          for (Int i = 0; i < conv.abreast; ++i) {
            const std::size_t at = first + static_cast<std::size_t>(i);
            const PhaseProduct& product = conv.products[at];
            args.loops.window_products(
                static_cast<int>(job.channels),
                slab.at(tile.count - 1, job.rows - 1) + product.phase.w.positions, product.terms,
                args.shared() + product.weights + block * product.terms * conv_rows,
                offsets[at].data(), source, results + i * conv_rows * line, line);
          }
          for (Int b = 0; b < tile.count; ++b)
            conv.place(args, job, first, results + slab.at(b, 0), conv_rows * line, tile.image + b,
                       c0, tile.begin);
        }
      }
    });
  };
}

// What the taps of one phase see of some rows of an image, laid out [(channel, tap), position].
struct Panel {
  ConvPhase phase;
  Int sources;  // channels
  Int lines;    // rows of positions, at the most
  Int pieces;   // of an image

  Panel(const ConvPhase& of, Int channels, Int panel_channels, Int elements)
      : phase(of), sources(channels) {
    const Int line =
        std::max<Int>(1, panel_channels * phase.h.taps * phase.w.taps * phase.w.positions);
    lines = size_of_part(phase.h.positions, std::max<Int>(1, elements / line));
    pieces = divide_up(phase.h.positions, lines);
  }
  [[nodiscard]] Int rows(Int begin) const { return std::min(lines, phase.h.positions - begin); }
  // Channels [c0, c1) of an image, rows from `begin` on; terms are `apart` elements apart.
  template <class T>
  void gather(const Loops<T>& loops, const T* source, Int image, Int c0, Int c1, Int begin,
              Int apart, T* to) const {
    const ConvPhaseAxis& h = phase.h;
    const ConvPhaseAxis& w = phase.w;
    GatheredRows<T> job{.rows = rows(begin),
                        .every_row = h.stride,
                        .source_rows = h.source,
                        .source_width = w.source,
                        .width = w.positions,
                        .every_column = w.stride};
    job.to = to;
    for (Int c = c0; c < c1; ++c) {
      job.source = source + (image * sources + c) * h.source * w.source;
      for (Int i = 0; i < h.taps; ++i)
        for (Int j = 0; j < w.taps; ++j, job.to += apart) {
          const Int right = w.start + j * w.step;
          job.first = begin * h.stride + h.start + i * h.step;
          job.left = std::clamp<Int>(-divide_down(right, w.stride), 0, job.width);
          job.column = job.left * w.stride + right;
          job.count =
              std::clamp<Int>(divide_up(w.source - job.column, w.stride), 0, job.width - job.left);
          loops.gather_rows(job);
        }
    }
  }
};

// With few terms, each of which would be copied once and used little: a panel, and results straight
// to their places. The bias is one more term.
template <class T>
CpuKernel<T> convolve_by_panels(CpuNode& node, const Convolution& conv) {
  const PhaseProduct& product = conv.products.front();
  const Panel panel(product.phase, conv.sources, conv.sources, panel_elements);
  const Int terms = product.terms + (conv.bias ? 1 : 0);
  const Int width = product.phase.w.positions;
  const Int apart = round_up(panel.lines * width, conv_lanes) + conv_lanes;
  std::vector<Int> offsets;
  for (Int k = 0; k < terms; ++k) offsets.push_back(k * apart);
  const Int weights = conv_rows * terms;  // of a block
  node.scratch =
      (round_up(terms * apart, 64) + conv_rows * conv_lanes) * static_cast<Int>(sizeof(T));
  node.shared = (round_up(conv.packed, 64) + conv.blocks * weights) * static_cast<Int>(sizeof(T));
  return [=](const CpuArgs<T>& args) {
    conv.pack(args);
    T* packed = args.shared();
    if (conv.bias) {
      packed = after(packed, conv.packed);
      for (Int block = 0; block < conv.blocks; ++block) {
        T* to = packed + block * weights;
        std::copy_n(args.shared() + block * product.terms * conv_rows, product.terms * conv_rows,
                    to);
        for (Int r = 0; r < conv_rows; ++r)
          to[product.terms * conv_rows + r] =
              args.in(2)[std::min(block * conv_rows + r, conv.channels - 1)];
      }
    }
    args.team.parallel_for(conv.s.batch * panel.pieces, [&](Int task, int worker) {
      const Int image = task / panel.pieces;
      const Int begin = task % panel.pieces * panel.lines;
      const Int n = panel.rows(begin) * width;
      const Int whole = n / conv_lanes * conv_lanes;
      T* source = args.scratch(worker);
      T* rest = after(source, terms * apart);
      panel.gather(args.loops, args.in(0), image, 0, conv.sources, begin, apart, source);
      if (conv.bias) args.loops.fill(n, T{1}, source + product.terms * apart);
      for (Int k = 0; k < terms; ++k) args.loops.fill(conv_lanes, T{}, source + k * apart + n);
      const Int plane = conv.height * conv.width;
      for (Int block = 0; block < conv.blocks; ++block) {
        const Int c0 = block * conv_rows;
        const Int rows = std::min(conv_rows, conv.channels - c0);
        T* to = args.out(0) + (image * conv.channels + c0) * plane + begin * width;
        args.loops.window_products(static_cast<int>(rows), whole, terms, packed + block * weights,
                                   offsets.data(), source, to, plane);
        if (whole == n) continue;
        args.loops.window_products(static_cast<int>(rows), n - whole, terms,
                                   packed + block * weights, offsets.data(), source + whole, rest,
                                   conv_lanes);
        for (Int r = 0; r < rows; ++r)
          std::copy_n(rest + r * conv_lanes, n - whole, to + r * plane + whole);
      }
    });
  };
}

// With few channels of the result and a source without stride: the products of all taps where the
// source lies, as rows of one product, and then the sum of its rows, each moved as its tap says.
template <class T>
CpuKernel<T> convolve_by_taps(CpuNode& node, const Convolution& conv) {
  const SlabAxis h(axes(conv.phases(), &ConvPhase::h));
  const Int taps = conv.s.taps();
  const Int rows = conv.channels * taps;
  const Int blocks = divide_up(rows, conv_rows);
  const Int sources = conv.sources;
  const Int width = conv.products.front().phase.w.source;
  const Int fitting = slab_elements / (std::max(sources, 2 * rows) * width) - (h.high - h.low);
  const Int lines = size_of_part(h.positions, std::max<Int>(2, fitting));
  const Int pieces = divide_up(h.positions, lines);
  const Int most = round_up(h.extent(lines) * width, conv_lanes);  // positions of the source
  const Int line = lines * width;                                  // of the result's phases
  std::vector<Int> in_place, in_rest;
  for (Int c = 0; c < sources; ++c) {
    in_place.push_back(c * h.source * width);
    in_rest.push_back(c * conv_lanes);
  }
  node.scratch = (round_up(rows * most, 64) + round_up(sources * conv_lanes, 64) +
                  conv.abreast * conv.channels * line) *
                 static_cast<Int>(sizeof(T));
  node.shared = blocks * sources * conv_rows * static_cast<Int>(sizeof(T));
  return [=](const CpuArgs<T>& args) {
    for (Int row = 0; row < blocks * conv_rows; ++row)
      for (Int c = 0; c < sources; ++c)
        args.shared()[(row / conv_rows * sources + c) * conv_rows + row % conv_rows] =
            row < rows ? args.in(1)[conv.weight(row / taps, c, row % taps)] : T{};
    args.team.parallel_for(conv.s.batch * pieces, [&](Int task, int worker) {
      const Int image = task / pieces;
      const Int begin = task % pieces * lines;
      const Int end = std::min(h.positions, begin + lines);
      // Rows of the source that these see.
      const Int first_row = std::clamp<Int>(begin + h.low, 0, h.source);
      const Int n = (std::clamp<Int>(end + h.high, first_row, h.source) - first_row) * width;
      const Int whole = n / conv_lanes * conv_lanes;
      T* products = args.scratch(worker);
      T* rest = after(products, rows * most);
      T* results = after(rest, sources * conv_lanes);
      const T* source = args.in(0) + image * sources * h.source * width + first_row * width;
      if (whole < n)
        for (Int c = 0; c < sources; ++c) {
          std::copy_n(source + in_place[static_cast<std::size_t>(c)] + whole, n - whole,
                      rest + c * conv_lanes);
          std::fill_n(rest + c * conv_lanes + n - whole, conv_lanes - (n - whole), T{});
        }
      for (Int block = 0; block < blocks; ++block) {
        const int count = static_cast<int>(std::min(conv_rows, rows - block * conv_rows));
        const T* weights = args.shared() + block * sources * conv_rows;
        T* to = products + block * conv_rows * most;
        args.loops.window_products(count, whole, sources, weights, in_place.data(), source, to,
                                   most);
        if (whole < n)
          args.loops.window_products(count, conv_lanes, sources, weights, in_rest.data(), rest,
                                     to + whole, most);
      }
      PlacedRows<T> job{.channels = conv.channels, .from_channel = line, .from_row = width};
      for (std::size_t first = 0; first < conv.products.size();
           first += static_cast<std::size_t>(conv.abreast)) {
        job.rows = std::min(end, conv.products[first].phase.h.positions) - begin;
        if (job.rows <= 0) continue;
        const Int size = job.rows * width;
        for (Int side = 0; side < conv.abreast; ++side) {
          const ConvPhase& phase = conv.products[first + static_cast<std::size_t>(side)].phase;
          for (Int c = 0; c < conv.channels; ++c) {
            T* to = results + (side * conv.channels + c) * line;
            args.loops.fill(size, T{}, to);
            for (Int i = 0; i < phase.h.taps; ++i)
              for (Int j = 0; j < phase.w.taps; ++j) {
                const Int tap = (phase.h.first_tap + i * phase.h.every_tap) * conv.s.w.kernel +
                                phase.w.first_tap + j * phase.w.every_tap;
                const Int down = begin + phase.h.start + i * phase.h.step - first_row;
                const Int right = phase.w.start + j * phase.w.step;
                T* product = products + (c * taps + tap) * most;
                // A tap belongs to one phase: its columns that no position of their row meets are
                // cleared, so that they do not come to the next row's.
                for (Int x = 0; x < n; x += width) {
                  for (Int k = 0; k < std::min(right, width); ++k) product[x + k] = T{};
                  for (Int k = std::max<Int>(0, width + right); k < width; ++k)
                    product[x + k] = T{};
                }
                const Int shift = down * width + right;
                const Int from = std::clamp<Int>(-shift, 0, size);
                const Int until = std::clamp<Int>(n - shift, from, size);
                if (until > from)
                  args.loops.add(until - from, to + from, product + from + shift, to + from);
              }
          }
        }
        conv.place(args, job, first, results, conv.channels * line, image, 0, begin);
      }
    });
  };
}

template <class T>
CpuKernel<T> convolve(CpuNode& node, bool transposed) {
  const Convolution conv(node, transposed);
  if (conv.has_work()) {
    if (conv.products.size() == 1 && conv.products.front().terms <= panel_terms / 2)
      return convolve_by_panels<T>(node, conv);
    const auto in_place = [](const PhaseProduct& product) {
      return product.phase.h.stride == 1 && product.phase.w.stride == 1 &&
             product.phase.w.positions == product.phase.w.source;
    };
    if (conv.channels * conv.s.taps() <= 2 * conv_rows &&
        std::ranges::all_of(conv.products, in_place))
      return convolve_by_taps<T>(node, conv);
  }
  return convolve_by_slabs<T>(node, conv);
}

// Tasks of a weight gradient: `blocks` of channels, and so many shares of the `tiles` as partial
// sums of `elements` allow, none of few positions: the shares are added in order.
Int shares_of(Int blocks, Int tiles, Int elements, Int positions) {
  const Int wanted = enough_tasks / std::max<Int>(blocks, 1);
  const Int fitting = most_part_elements / std::max<Int>(elements, 1);
  return std::clamp<Int>(std::min({wanted, tiles / 2, fitting, positions / 1024}), 1, enough_tasks);
}

// dw where few rows or few terms meet many positions: the rows of one operand as they lie in
// memory, and in a panel what the taps see of the other. Vectors run along positions, and sums have
// conv_lanes lanes. As a rule rows are the channels of dy; `swapped`, with a stride of 1, those of
// x.
template <class T>
CpuKernel<T> weight_gradient_by_rows(CpuNode& node, const Conv2d& s, bool swapped) {
  constexpr Int row_tile = 12, term_tile = 15;  // of every instruction set
  const ConvPhase phase = conv_phases(s, swapped).front();
  const Int rows = swapped ? s.in : s.out;
  const Int sources = swapped ? s.out : s.in;
  const Int taps = s.taps();
  const Int block = std::clamp<Int>(panel_terms / taps, 1, std::max<Int>(sources, 1));  // channels
  const Int blocks = divide_up(sources, block);
  const Int stride = round_up(block * taps, term_tile);
  const Int width = phase.w.positions;
  const Panel panel(phase, sources, block, 4 * panel_elements);
  const Int tiles = s.batch * panel.pieces;
  const Int part = round_up(rows, row_tile) * stride * conv_lanes;
  const Int shares = shares_of(blocks, tiles, part * blocks, s.batch * phase.h.positions * width);
  node.scratch = block * taps * panel.lines * width * static_cast<Int>(sizeof(T));
  node.shared = shares * blocks * part * static_cast<Int>(sizeof(T));
  return [=](const CpuArgs<T>& args) {
    const T* direct = args.in(swapped ? 1 : 0);
    const T* source = args.in(swapped ? 0 : 1);
    args.team.parallel_for(shares * blocks, [&](Int task, int worker) {
      const Int share = task / blocks;
      const Int c0 = task % blocks * block;
      const Int c1 = std::min(sources, c0 + block);
      T* seen = args.scratch(worker);
      T* sums = args.shared() + task * part;
      args.loops.fill(part, T{}, sums);
      const Int plane = phase.h.positions * width;
      for (Int tile = tiles * share / shares; tile < tiles * (share + 1) / shares; ++tile) {
        const Int image = tile / panel.pieces;
        const Int begin = tile % panel.pieces * panel.lines;
        const Int n = panel.rows(begin) * width;
        panel.gather(args.loops, source, image, c0, c1, begin, n, seen);
        args.loops.row_products(n, rows, direct + image * rows * plane + begin * width, plane,
                                (c1 - c0) * taps, seen, n, sums, stride);
      }
    });
    args.team.parallel_for(rows, [&](Int row, int) {
      for (Int c = 0; c < sources; ++c)
        for (Int tap = 0; tap < taps; ++tap) {
          const T* from = args.shared() + c / block * part +
                          (row * stride + c % block * taps + tap) * conv_lanes;
          double lanes[conv_lanes] = {};
          for (Int share = 0; share < shares; ++share, from += blocks * part)
            for (Int i = 0; i < conv_lanes; ++i) lanes[i] += static_cast<double>(from[i]);
          for (Int half = conv_lanes / 2; half > 0; half /= 2)
            for (Int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
          args.out(0)[(swapped ? c * rows + row : row * sources + c) * taps + tap] =
              static_cast<T>(lanes[0]);
        }
    });
  };
}

// dw otherwise: x in a slab, and dy transposed, so that vectors run along its channels.
template <class T>
CpuKernel<T> weight_gradient_by_positions(CpuNode& node, const Conv2d& s) {
  const std::vector<ConvPhase> phases = conv_phases(s, false);
  const Int taps = s.taps();
  const Int columns = round_up(s.out, conv_columns);
  const Int block = std::max<Int>(1, size_of_part(s.in, std::max<Int>(1, 256 / taps)));  // channels
  const Int blocks = divide_up(s.in, block);
  // The slab's sizes are those of one block; it strides over all channels of the source.
  Slab slab(s.batch, block, phases, std::clamp<Int>(slab_elements / columns, 64, 512));
  slab.channels = s.in;
  std::vector<Int> offsets = slab.offsets(phases.front(), block);
  const Int terms = round_up(block * taps, conv_terms);
  offsets.resize(static_cast<std::size_t>(terms), offsets.empty() ? 0 : offsets.front());
  const Int part = terms * columns;
  const Int plane = s.h.out * s.w.out;
  const Int shares = shares_of(blocks, slab.tiles, part * blocks, s.batch * plane);
  const Int gathered = slab.elements(block);
  const Int positions = slab.images * slab.rows * s.w.out;  // of a tile
  node.scratch =
      (round_up(gathered, 64) + round_up(positions * columns, 64)) * static_cast<Int>(sizeof(T)) +
      positions * static_cast<Int>(sizeof(Int));
  node.shared = shares * blocks * part * static_cast<Int>(sizeof(T));
  return [=](const CpuArgs<T>& args) {
    const T* dy = args.in(0);
    args.team.parallel_for(shares * blocks, [&](Int task, int worker) {
      const Int share = task / blocks;
      const Int c0 = task % blocks * block;
      const Int c1 = std::min(s.in, c0 + block);
      T* x = args.scratch(worker);
      T* transposed = after(x, gathered);
      Int* at = reinterpret_cast<Int*>(after(transposed, positions * columns));
      T* sums = args.shared() + task * part;
      args.loops.fill(part, T{}, sums);
      for (Int i = slab.tiles * share / shares; i < slab.tiles * (share + 1) / shares; ++i) {
        const SlabTile tile = slab.tile(i);
        slab.gather(args.loops, args.in(1), c0, c1, tile, x);
        const Int rows = tile.end - tile.begin;
        const Int n = tile.count * rows * s.w.out;
        Int p = 0;
        for (Int b = 0; b < tile.count; ++b)
          for (Int r = 0; r < rows; ++r)
            for (Int j = 0; j < s.w.out; ++j) at[p++] = slab.at(b, r) + j;
        for (Int first = 0; first < s.out; first += conv_columns) {
          T* to = transposed;
          for (Int b = 0; b < tile.count; ++b, to += rows * s.w.out * conv_columns)
            args.loops.transpose_rows(
                std::min(conv_columns, s.out - first), rows * s.w.out,
                dy + ((tile.image + b) * s.out + first) * plane + tile.begin * s.w.out, plane, to,
                conv_columns);
          args.loops.position_products(n, at, round_up((c1 - c0) * taps, conv_terms),
                                       offsets.data(), x, transposed, sums + first, columns);
        }
      }
    });
    // [(channel, tap), out] to [out, (channel, tap)].
    args.team.parallel_for(divide_up(s.in * taps, conv_columns), [&](Int chunk, int) {
      const Int last = std::min(s.in * taps, (chunk + 1) * conv_columns);
      const auto sum_of = [&](Int term) {
        const Int in_block = block * taps;
        return args.shared() + term / in_block * part + term % in_block * columns;
      };
      for (Int term = chunk * conv_columns; term < last; ++term)
        for (Int share = 1; share < shares; ++share)
          args.loops.add(s.out, sum_of(term), sum_of(term) + share * blocks * part, sum_of(term));
      const T* sums[conv_columns];
      for (Int term = chunk * conv_columns; term < last; ++term)
        sums[term - chunk * conv_columns] = sum_of(term);
      for (Int o = 0; o < s.out; ++o) {
        T* to = args.out(0) + o * s.in * taps + chunk * conv_columns;
        for (Int k = 0; k < last - chunk * conv_columns; ++k) to[k] = sums[k][o];
      }
    });
  };
}

template <class T>
CpuKernel<T> weight_gradient(CpuNode& node) {
  const Conv2d s = conv_of(node.graph, node.node);
  if (s.in * s.taps() <= panel_terms) return weight_gradient_by_rows<T>(node, s, false);
  if (s.out * s.taps() <= panel_terms && s.h.stride == 1 && s.w.stride == 1 && s.h.in > 0 &&
      s.w.in > 0)
    return weight_gradient_by_rows<T>(node, s, true);
  if (s.out < conv_columns / 2) return weight_gradient_by_rows<T>(node, s, false);
  return weight_gradient_by_positions<T>(node, s);
}

}  // namespace

template <class T>
CpuKernel<T> cpu_conv2d(CpuNode& node) {
  return convolve<T>(node, false);
}

template <class T>
CpuKernel<T> cpu_conv_transpose2d(CpuNode& node) {
  return convolve<T>(node, true);
}

template <class T>
CpuKernel<T> cpu_conv2d_wgrad(CpuNode& node) {
  return weight_gradient<T>(node);
}

template <class T>
CpuKernel<T> cpu_channel_sum(CpuNode& node) {
  const Int batch = node.in(0)[0];
  const Int channels = node.in(0)[1];
  const Int plane = node.in(0)[2] * node.in(0)[3];
  return [=](const CpuArgs<T>& args) {
    args.team.parallel_for(channels, [&](Int c, int) {
      double sum = 0;
      for (Int b = 0; b < batch; ++b)
        sum += static_cast<double>(args.loops.sum(plane, args.in(0) + (b * channels + c) * plane));
      args.out(0)[c] = static_cast<T>(sum);
    });
  };
}

CUVAE_CPU_ALWAYS(conv2d)
CUVAE_CPU_ALWAYS(conv_transpose2d)
CUVAE_CPU_ALWAYS(conv2d_wgrad)
CUVAE_CPU_ALWAYS(channel_sum)
CUVAE_CPU_OP(conv2d);
CUVAE_CPU_OP(conv_transpose2d);
CUVAE_CPU_OP(conv2d_wgrad);
CUVAE_CPU_OP(channel_sum);

}  // namespace cuvae
