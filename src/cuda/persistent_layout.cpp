#include "cuda/persistent_layout.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace cuvae::cuda {
namespace {

constexpr int round_up(int value, int to) {
  return (value + to - 1) / to * to;
}
constexpr int divide_up(int value, int by) {
  return (value + by - 1) / by;
}
// A row's stride in shared memory, in floats. With 16 modulo 32 the eight lanes that are served
// together when each fetches four floats hit different banks; with 4, two of them the same one.
constexpr int banked(int columns) {
  const int whole = round_up(columns, 16);
  return whole % 32 == 16 ? whole : whole + 16;
}
constexpr int strided(int columns) {
  return round_up(columns, 16) + 4;
}

PersistentCut cut(int tile, int rows, int columns, int pieces) {
  PersistentCut made;
  made.tile = tile;
  made.tiles = divide_up(rows, tile);
  made.piece = round_up(divide_up(columns, pieces), 16);
  made.pieces = divide_up(columns, made.piece);
  return made;
}

// Lays the parts of a block's shared memory one after the other.
class Shelf {
 public:
  int put(int bytes) {
    const int at = end_;
    end_ += round_up(bytes, 16);
    return at;
  }
  [[nodiscard]] int end() const { return end_; }

 private:
  int end_ = 0;
};

constexpr int float_bytes = static_cast<int>(sizeof(float));

PersistentLayout::Owner owner_memory(const PersistentLayout& l) {
  PersistentLayout::Owner o;
  Shelf shelf;
  o.weight_ld = banked(l.encode.piece);
  o.weight = shelf.put(PersistentLayout::encode_tile * o.weight_ld * float_bytes);
  o.out_ld = banked(l.decode.piece);
  o.out_weight = shelf.put(PersistentLayout::decode_tile * o.out_ld * float_bytes);
  o.back_ld = banked(l.back.piece);
  o.back_weight = shelf.put(PersistentLayout::back_tile * o.back_ld * float_bytes);
  o.x_ld = banked(l.encode.piece);  // bytes
  o.x_bytes = l.rows * o.x_ld;
  o.x = shelf.put(2 * o.x_bytes);
  o.hidden = shelf.put(l.rows * o.out_ld * float_bytes);
  o.dlogits_ld = PersistentLayout::decode_tile + 4;
  o.dh1_ld = banked(l.rows);
  o.grads = shelf.put(std::max(l.rows * o.dlogits_ld * float_bytes,
                               PersistentLayout::encode_tile * o.dh1_ld * float_bytes));
  o.source = shelf.put(2 * l.rows * static_cast<int>(sizeof(std::int64_t)));
  o.bytes = shelf.end();
  return o;
}

PersistentLayout::Middle middle_memory(const PersistentLayout& l) {
  PersistentLayout::Middle m;
  constexpr int rows = PersistentLayout::middle_rows;
  Shelf update;
  m.batch_ld = banked(l.rows);
  const auto floats = [&](int columns) { return update.put(columns * m.batch_ld * float_bytes); };
  m.all_dheads = floats(l.heads_ld);
  m.some_h1 = floats(l.heads_columns);
  m.some_dh2 = floats(l.hidden_rows);
  m.all_z = floats(l.latent_ld);
  Shelf shelf;
  m.heads_ld = strided(l.sizes.encoder);
  m.heads = shelf.put(l.heads_ld * m.heads_ld * float_bytes);
  m.hidden_ld = strided(l.sizes.latent);
  m.hidden = shelf.put(l.decoder_ld * m.hidden_ld * float_bytes);
  if (update.end() > shelf.end()) shelf.put(update.end() - shelf.end());
  m.tile_ld = strided(std::max(l.sizes.encoder, l.sizes.decoder));
  m.tile = shelf.put(rows * m.tile_ld * float_bytes);
  m.dheads_ld = strided(2 * l.sizes.latent);
  m.z_ld = strided(l.sizes.latent);
  m.z = m.dheads = shelf.put(rows * m.dheads_ld * float_bytes);
  m.bias = shelf.put(l.decoder_ld * float_bytes);
  const auto bytes = [&](int width) {
    return PersistentLayout::splits(width) * rows * strided(width) * float_bytes;
  };
  m.parts = shelf.put(std::max(bytes(2 * l.sizes.latent), bytes(l.sizes.latent)));
  m.bytes = shelf.end();
  return m;
}

// What a step of the cut costs, in microseconds, as far as cuts differ: loads at 64 bytes a clock,
// products at mma's 1340 FLOP a clock, 1.98 GHz. What is issued beside mma grows with the products.
double cost(const PersistentLayout& l) {
  constexpr double bytes_us = 64 * 1.98e3;
  constexpr double flops_us = 1340 * 1.98e3;
  const double rows = l.rows;
  const double width = PersistentLayout::decode_tile;
  const double encode = 2 * rows * PersistentLayout::encode_tile * l.encode.piece / flops_us;
  const double decode =
      2 * rows * width * l.decode.piece / flops_us + 4 * rows * l.decode.piece / bytes_us;
  const double back = 2 * rows * PersistentLayout::back_tile * l.back.piece / flops_us +
                      4 * rows * l.back.piece / bytes_us;
  const double parts = 4.0 * PersistentLayout::middle_rows *
                       (l.encode.pieces * l.sizes.encoder + l.back.pieces * l.sizes.decoder) /
                       bytes_us;
  const double exchange = 4 * width * rows / bytes_us;  // each adds all pieces of its share
  return 2 * encode + decode + back + parts + exchange;
}

}  // namespace

std::string PersistentLayout::str() const {
  return fmt::format(
      "{} owners (first layer {} x {}, last layer {} x {}, its gradient {} x {}), {} middles, {} "
      "of "
      "shared memory",
      owners, encode.tiles, encode.pieces, decode.tiles, decode.pieces, back.tiles, back.pieces,
      middles, format_bytes(shared_bytes));
}

PersistentFit persistent_layout(const PersistentSizes& sizes, const Properties& gpu) {
  using Layout = PersistentLayout;
  if (gpu.major < 9)
    return {{}, fmt::format("compute capability {}.{}, it needs 9.0", gpu.major, gpu.minor)};
  if (!gpu.cooperative_launch) return {{}, "the GPU launches no cooperative kernels"};
  // Each of these is below 2^31 / 16, whatever is computed from them below.
  constexpr int most = 1 << 20;
  for (const int size : {sizes.batch, sizes.in, sizes.encoder, sizes.latent, sizes.decoder})
    if (size < 1 || size > most) return {{}, "sizes from 1 to 1,048,576"};

  Layout base;
  base.sizes = sizes;
  base.rows = round_up(sizes.batch, 16);
  base.middles = divide_up(sizes.batch, Layout::middle_rows);
  base.encoder_ld = round_up(sizes.encoder, 16);
  base.decoder_ld = round_up(sizes.decoder, 16);
  base.latent_ld = round_up(sizes.latent, 16);
  base.heads_ld = round_up(2 * sizes.latent, 16);
  base.out_ld = round_up(sizes.in, Layout::decode_tile);
  base.heads_columns = round_up(divide_up(sizes.encoder, base.middles), 8);
  base.hidden_rows = round_up(divide_up(sizes.decoder, base.middles), 16);
  const int owners = gpu.multiprocessors - base.middles;
  if (owners < 1)
    return {{},
            fmt::format("a batch of {} wants {} multiprocessors and more, the GPU has {}",
                        sizes.batch, base.middles, gpu.multiprocessors)};
  const auto slots = [](int tiles) { return divide_up(tiles, Layout::warps); };
  if (sizes.latent * Layout::middle_rows > Layout::latent_slots * Layout::threads ||
      2 * sizes.latent > Layout::threads)
    return {{}, fmt::format("{} latents, it takes up to 128", sizes.latent)};
  if (slots(base.heads_ld / 16 * (base.heads_columns / 8)) > Layout::heads_slots ||
      slots(base.hidden_rows / 16 * (base.latent_ld / 8)) > Layout::hidden_slots ||
      base.hidden_rows > Layout::threads)
    return {{}, "the layers around the latents are too wide for this batch"};
  base.middle = middle_memory(base);

  std::optional<Layout> best;
  int least = 0;  // shared memory of those that were too large
  double best_cost = 0;
  bool blocks_fit = false;
  for (int e = 1; e <= 64; ++e) {
    Layout l = base;
    l.encode = cut(Layout::encode_tile, sizes.encoder, sizes.in, e);
    if (l.encode.blocks() > owners || slots(l.encode.piece / 8) > Layout::encode_slots) continue;
    for (int o = 1; o <= 64; ++o) {
      l.decode = cut(Layout::decode_tile, sizes.in, sizes.decoder, o);
      if (l.decode.blocks() > owners ||
          2 * (l.decode.piece / 8) > Layout::decode_slots * Layout::warps)
        continue;
      for (int b = 1; b <= 64; ++b) {
        l.back = cut(Layout::back_tile, sizes.decoder, sizes.in, b);
        if (l.back.blocks() > owners) continue;
        blocks_fit = true;
        l.owners = std::max({l.encode.blocks(), l.decode.blocks(), l.back.blocks()});
        l.owner = owner_memory(l);
        l.shared_bytes = std::max(l.owner.bytes, l.middle.bytes);
        if (l.shared_bytes > gpu.shared_bytes_per_block_optin - Layout::static_bytes) {
          if (least == 0 || l.shared_bytes < least) least = l.shared_bytes;
          continue;
        }
        const double c = cost(l);
        if (!best || c < best_cost) {
          best = l;
          best_cost = c;
        }
      }
    }
  }
  if (best) return {best, {}};
  if (!blocks_fit)
    return {{},
            fmt::format("the weights of the widest layers do not fit {} multiprocessors",
                        gpu.multiprocessors)};
  return {{},
          fmt::format("{} of shared memory a block, the GPU has {}",
                      format_bytes(least + Layout::static_bytes),
                      format_bytes(gpu.shared_bytes_per_block_optin))};
}

}  // namespace cuvae::cuda
