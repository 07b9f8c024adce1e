#pragma once
// Blocks that hold the narrow weights around the latents, whole, and take 8 rows of the batch each.
// Their products have the weights' rows as the 16 rows of a tile and the batch's as its 8 columns.

#include "kernels/persistent.cuh"

namespace CUVAE_KERNELS {

template <class Format>
class Middle {
 public:
  static constexpr int rows = Layout::middle_rows;

  // `adam` is shared.
  __device__ __forceinline__ Middle(const PersistentRun& run, unsigned char* shared, AdamStep* adam)
      : run_(run),
        l_(run.layout),
        shared_(shared),
        adam_(adam),
        block_(static_cast<int>(blockIdx.x) - l_.owners) {}

  // False: some block waited in vain.
  __device__ bool train() {
    load();
    for (int step = 0; step < run_.steps; ++step) {
      const auto round = static_cast<unsigned>(step) + 1;
      const auto middles = round * static_cast<unsigned>(l_.middles);
      draw(step);
      if (!await(run_, counter(run_, Counter::encoded),
                 round * static_cast<unsigned>(l_.encode.blocks())))
        return false;
      forward();
      arrive(counter(run_, Counter::decoded));
      if (!await(run_, counter(run_, Counter::returned),
                 round * static_cast<unsigned>(l_.back.blocks())))
        return false;
      backward(step);
      arrive(counter(run_, Counter::finished));
      // What follows has to be there for the next step's forward().
      if (block_ == 0) report(step);
      if (threadIdx.x == Layout::threads - 1) *adam_ = adam_step(adam_of_step(run_, step));
      arrive(counter(run_, Counter::middle_grads));
      if (!await(run_, counter(run_, Counter::middle_grads), middles)) return false;
      update(step);
      arrive(counter(run_, Counter::middle_updated));
      if (!await(run_, counter(run_, Counter::middle_updated), middles)) return false;
      refresh(step);
      if (stops_after(run_, step)) break;
    }
    device::cp_async_wait<0>();
    __syncthreads();
    store();
    return true;
  }

 private:
  [[nodiscard]] __device__ __forceinline__ int batch() const { return l_.sizes.batch; }
  [[nodiscard]] __device__ __forceinline__ int latent() const { return l_.sizes.latent; }
  [[nodiscard]] __device__ __forceinline__ static int warp() {
    return static_cast<int>(threadIdx.x) / 32;
  }
  // The rows of the batch that the block takes, and the share of the weights that it updates.
  [[nodiscard]] __device__ __forceinline__ int row0() const { return block_ * rows; }
  [[nodiscard]] __device__ __forceinline__ int count() const { return min(rows, batch() - row0()); }
  [[nodiscard]] __device__ __forceinline__ int column0() const { return block_ * l_.heads_columns; }
  [[nodiscard]] __device__ __forceinline__ int unit0() const { return block_ * l_.hidden_rows; }
  // What the block holds (PersistentLayout::Middle).
  [[nodiscard]] __device__ __forceinline__ float* heads() const {
    return shared_at<float>(shared_, l_.middle.heads);
  }
  [[nodiscard]] __device__ __forceinline__ float* hidden() const {
    return shared_at<float>(shared_, l_.middle.hidden);
  }
  [[nodiscard]] __device__ __forceinline__ float* tile() const {
    return shared_at<float>(shared_, l_.middle.tile);
  }
  [[nodiscard]] __device__ __forceinline__ float* parts() const {
    return shared_at<float>(shared_, l_.middle.parts);
  }
  [[nodiscard]] __device__ __forceinline__ float* dheads() const {
    return shared_at<float>(shared_, l_.middle.dheads);
  }
  [[nodiscard]] __device__ __forceinline__ float* z() const {
    return shared_at<float>(shared_, l_.middle.z);
  }

  // Element i of z for this thread: its row of the block and its latent; row -1: none.
  struct LatentPlace {
    int row;
    int j;
  };
  [[nodiscard]] __device__ __forceinline__ LatentPlace latent_place(int i) const {
    const int at = static_cast<int>(threadIdx.x) + i * Layout::threads;
    const int row = at / latent();
    return {row < count() ? row : -1, at % latent()};
  }

  // Tiles of 16 x 8 of the weights that this block updates.
  struct Tile {
    int row;
    int column;
  };
  [[nodiscard]] __device__ __forceinline__ Tile heads_tile(int slot) const {
    const int tile = warp() + slot * Layout::warps;
    const int high = l_.heads_ld / 16;
    return {tile % high * 16, column0() + tile / high * 8};
  }
  [[nodiscard]] __device__ __forceinline__ bool is_heads_tile(Tile tile) const {
    return tile.column < column0() + l_.heads_columns && tile.column < l_.sizes.encoder;
  }
  [[nodiscard]] __device__ __forceinline__ Tile hidden_tile(int slot) const {
    const int tile = warp() + slot * Layout::warps;
    const int high = l_.hidden_rows / 16;
    return {unit0() + tile % high * 16, tile / high * 8};
  }
  [[nodiscard]] __device__ __forceinline__ bool is_hidden_tile(Tile tile) const {
    return tile.column < latent() && tile.row < l_.sizes.decoder;
  }
  [[nodiscard]] __device__ __forceinline__ std::int64_t heads_place(int slot, int element) const {
    const Tile own = heads_tile(slot);
    const int row = own.row + TilePlace().row(element);
    const int column = own.column + TilePlace().column(element);
    if (!is_heads_tile(own) || row >= 2 * latent() || column >= l_.sizes.encoder) return -1;
    return static_cast<std::int64_t>(row) * l_.sizes.encoder + column;
  }
  [[nodiscard]] __device__ __forceinline__ std::int64_t hidden_place(int slot, int element) const {
    const Tile own = hidden_tile(slot);
    const int row = own.row + TilePlace().row(element);
    const int column = own.column + TilePlace().column(element);
    if (!is_hidden_tile(own) || row >= l_.sizes.decoder || column >= latent()) return -1;
    return static_cast<std::int64_t>(row) * latent() + column;
  }
  // Biases: the first middle has the heads', each the decoder's of its rows.
  [[nodiscard]] __device__ __forceinline__ bool holds_heads_bias() const {
    return block_ == 0 && static_cast<int>(threadIdx.x) < 2 * latent();
  }
  [[nodiscard]] __device__ __forceinline__ bool holds_hidden_bias() const {
    return static_cast<int>(threadIdx.x) < min(l_.hidden_rows, l_.sizes.decoder - unit0());
  }

  __device__ void load() {
    const int thread = static_cast<int>(threadIdx.x);
    copy(heads(), l_.middle.heads_ld, run_.heads.weight, l_.sizes.encoder, 2 * latent(),
         l_.sizes.encoder);
    copy(hidden(), l_.middle.hidden_ld, run_.hidden.weight, latent(), l_.sizes.decoder, latent());
    heads_moments_.load(run_.heads, [this](int s, int e) { return heads_place(s, e); });
    hidden_moments_.load(run_.hidden, [this](int s, int e) { return hidden_place(s, e); });
    if (holds_heads_bias()) heads_bias_.load(run_.heads, thread);
    if (holds_hidden_bias()) hidden_bias_.load(run_.hidden, unit0() + thread);
  }

  // What this block updates; its shared copy is the newest.
  __device__ void store() const {
    const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int slot = 0; slot < Layout::heads_slots; ++slot)
#pragma unroll
      for (int element = 0; element < 4; ++element)
        if (const std::int64_t at = heads_place(slot, element); at >= 0)
          run_.heads.weight[at] =
              heads()[at / l_.sizes.encoder * l_.middle.heads_ld + at % l_.sizes.encoder];
#pragma unroll
    for (int slot = 0; slot < Layout::hidden_slots; ++slot)
#pragma unroll
      for (int element = 0; element < 4; ++element)
        if (const std::int64_t at = hidden_place(slot, element); at >= 0)
          run_.hidden.weight[at] = hidden()[at / latent() * l_.middle.hidden_ld + at % latent()];
    heads_moments_.store(run_.heads, [this](int s, int e) { return heads_place(s, e); });
    hidden_moments_.store(run_.hidden, [this](int s, int e) { return hidden_place(s, e); });
    if (holds_heads_bias()) heads_bias_.store(run_.heads, thread);
    if (holds_hidden_bias()) hidden_bias_.store(run_.hidden, unit0() + thread);
  }

  // The step's noise, while the owners are at work.
  __device__ void draw(int step) {
    Draws draws = run_.draws;
    draws.step = step;
    const RandomKey key = random_key(draws);
#pragma unroll
    for (int i = 0; i < Layout::latent_slots; ++i) {
      const LatentPlace at = latent_place(i);
      eps_[i] = at.row < 0 ? 0.0f
                           : draw_normal(key, first_draw(draws, row0() + at.row) +
                                                  static_cast<std::uint64_t>(at.j));
    }
  }

  // The sum over the pieces of a part, four columns at once.
  __device__ __forceinline__ float4 add_parts(const float* parts, int pieces, int ld, int row,
                                              int column) const {
    const std::int64_t plane = static_cast<std::int64_t>(batch()) * ld;
    const float* from = parts + static_cast<std::int64_t>(row) * ld + column;
    float4 sum = *reinterpret_cast<const float4*>(from);
    for (int piece = 1; piece < pieces; ++piece) {
      const float4 part = *reinterpret_cast<const float4*>(from + piece * plane);
      sum.x += part.x;
      sum.y += part.y;
      sum.z += part.z;
      sum.w += part.w;
    }
    return sum;
  }

  // C [width, 8] = A [width, terms] B [8, terms]^T, with the terms cut so that all warps work; the
  // parts go to parts() as [split][8][ld]. a_at(row, k): four terms of A. Returns the number of
  // parts.
  template <class A>
  __device__ int split_product(int width, int terms, int ld, A a_at, const float* b, int b_ld) {
    const int tiles = (width + 15) / 16;
    const int splits = Layout::splits(width);
    const int chunk =
        (terms / product_terms + splits - 1) / splits * product_terms;  // of the terms
    const TilePlace at;
    for (int unit = warp(); unit < tiles * splits; unit += Layout::warps) {
      const int m0 = unit % tiles * 16;
      const int k0 = unit / tiles * chunk;
      float sum[1][4] = {};
      warp_product<Format>(
          sum, max(0, min(chunk, terms - k0)),
          [=](int k, float4(&rows16)[2]) {
            rows16[0] = a_at(m0 + at.group, k0 + k);
            rows16[1] = a_at(m0 + at.group + 8, k0 + k);
          },
          [=](int k, float4(&columns)[1]) {
            columns[0] = four_terms(b + at.group * b_ld + k0 + k);
          });
#pragma unroll
      for (int element = 0; element < 4; ++element)
        parts()[(unit / tiles * rows + at.column(element)) * ld + m0 + at.row(element)] =
            sum[0][element];
    }
    __syncthreads();
    return splits;
  }
  __device__ __forceinline__ float split_sum(int splits, int ld, int row, int column) const {
    float sum = 0.0f;
    for (int split = 0; split < splits; ++split) sum += parts()[(split * rows + row) * ld + column];
    return sum;
  }

  // P2.
  __device__ void forward() {
    const int encoder = l_.sizes.encoder;
    const int decoder = l_.sizes.decoder;
    const int tile_ld = l_.middle.tile_ld;
    const int fours = l_.encoder_ld / 4;
    for (int i = static_cast<int>(threadIdx.x); i < count() * fours; i += Layout::threads) {
      const int row = i / fours;
      const int column = i % fours * 4;
      const float4 sum =
          add_parts(run_.encode_parts, l_.encode.pieces, l_.encoder_ld, row0() + row, column);
      const auto hidden = [&](float x, int j) {
        return column + j < encoder ? activate(run_.encoder, x + run_.encode.bias[column + j])
                                    : 0.0f;
      };
      const float4 h =
          make_float4(hidden(sum.x, 0), hidden(sum.y, 1), hidden(sum.z, 2), hidden(sum.w, 3));
      *reinterpret_cast<float4*>(tile() + row * tile_ld + column) = h;
      *reinterpret_cast<float4*>(run_.h1 + static_cast<std::int64_t>(row0() + row) * l_.encoder_ld +
                                 column) = h;
    }
    device::cp_async_wait<1>();  // the heads' weight
    __syncthreads();

    const int heads_ld = l_.middle.dheads_ld;
    const int splits = split_product(
        2 * latent(), l_.encoder_ld, heads_ld,
        [=, this](int row, int k) { return four_terms(heads() + row * l_.middle.heads_ld + k); },
        tile(), tile_ld);
    float kl[Layout::latent_slots];
#pragma unroll
    for (int i = 0; i < Layout::latent_slots; ++i) {
      kl[i] = 0.0f;
      const LatentPlace at = latent_place(i);
      if (at.row < 0) continue;
      mean_[i] = split_sum(splits, heads_ld, at.row, at.j) + run_.heads.bias[at.j];
      logvar_[i] = bound_logvar(split_sum(splits, heads_ld, at.row, latent() + at.j) +
                                run_.heads.bias[latent() + at.j]);
      const float drawn = reparameterise(mean_[i], logvar_[i], eps_[i]);
      z()[at.row * l_.middle.z_ld + at.j] = drawn;
      run_.z[static_cast<std::int64_t>(row0() + at.row) * l_.latent_ld + at.j] = drawn;
      kl[i] = gaussian_kl_term(mean_[i], logvar_[i]);
    }
    device::cp_async_wait<0>();  // the decoder's
    __syncthreads();             // z is there, and the parts give their place
#pragma unroll
    for (int i = 0; i < Layout::latent_slots; ++i) {
      const LatentPlace at = latent_place(i);
      if (at.row >= 0) parts()[at.row * heads_ld + at.j] = kl[i];
    }

    // h2, 16 of its columns at a time.
    const TilePlace at;
    for (int first = warp() * 16; first < l_.decoder_ld; first += Layout::warps * 16) {
      float sum[1][4] = {};
      warp_product<Format>(
          sum, l_.latent_ld,
          [=, this](int k, float4(&rows16)[2]) {
            const float* from = hidden() + (first + at.group) * l_.middle.hidden_ld + k;
            rows16[0] = four_terms(from);
            rows16[1] = four_terms(from + 8 * l_.middle.hidden_ld);
          },
          [=, this](int k, float4(&columns)[1]) {
            columns[0] = four_terms(z() + at.group * l_.middle.z_ld + k);
          });
#pragma unroll
      for (int element = 0; element < 4; ++element) {
        const int row = at.column(element);
        const int unit = first + at.row(element);
        if (row >= count() || unit >= decoder) continue;
        run_.h2[static_cast<std::int64_t>(row0() + row) * l_.decoder_ld + unit] =
            activate(run_.decoder, sum[0][element] + run_.hidden.bias[unit]);
      }
    }
    __syncthreads();
    if (const int row = static_cast<int>(threadIdx.x); row < count()) {
      float sum = 0.0f;
      for (int j = 0; j < latent(); ++j) sum += parts()[row * heads_ld + j];
      run_.kl[row0() + row] = sum;
    }
  }

  // P5.
  __device__ void backward(int step) {
    const int tile_ld = l_.middle.tile_ld;
    const int fours = l_.decoder_ld / 4;
    for (int i = static_cast<int>(threadIdx.x); i < count() * fours; i += Layout::threads) {
      const int row = i / fours;
      const int column = i % fours * 4;
      const std::int64_t at = static_cast<std::int64_t>(row0() + row) * l_.decoder_ld + column;
      float4 d = add_parts(run_.back_parts, l_.back.pieces, l_.decoder_ld, row0() + row, column);
      const float4 h = *reinterpret_cast<const float4*>(run_.h2 + at);
      d.x = activate_grad(run_.decoder, d.x, h.x);
      d.y = activate_grad(run_.decoder, d.y, h.y);
      d.z = activate_grad(run_.decoder, d.z, h.z);
      d.w = activate_grad(run_.decoder, d.w, h.w);
      *reinterpret_cast<float4*>(tile() + row * tile_ld + column) = d;
      *reinterpret_cast<float4*>(run_.dh2 + at) = d;
    }
    __syncthreads();

    const int z_ld = l_.middle.z_ld;
    const int splits = split_product(
        latent(), l_.decoder_ld, z_ld,
        [=, this](int row, int k) {
          return four_terms(hidden() + k * l_.middle.hidden_ld + row, l_.middle.hidden_ld);
        },
        tile(), tile_ld);
    const float dkl = run_.dkl.at(run_.hyper + 2 * step);
#pragma unroll
    for (int i = 0; i < Layout::latent_slots; ++i) {
      const LatentPlace at = latent_place(i);
      if (at.row < 0) continue;
      const float dz = split_sum(splits, z_ld, at.row, at.j);
      const HeadsGrad grad = heads_grad(dz, dkl, mean_[i], logvar_[i], eps_[i]);
      float* own = dheads() + at.row * l_.middle.dheads_ld;
      float* all = run_.dheads + static_cast<std::int64_t>(row0() + at.row) * l_.heads_ld;
      own[at.j] = all[at.j] = grad.dmean;
      own[latent() + at.j] = all[latent() + at.j] = grad.draw;
    }
    __syncthreads();

    const TilePlace at;
    for (int first = warp() * 16; first < l_.encoder_ld; first += Layout::warps * 16) {
      float sum[1][4] = {};
      warp_product<Format>(
          sum, l_.heads_ld,
          [=, this](int k, float4(&rows16)[2]) {
            const float* from = heads() + k * l_.middle.heads_ld + first + at.group;
            rows16[0] = four_terms(from, l_.middle.heads_ld);
            rows16[1] = four_terms(from + 8, l_.middle.heads_ld);
          },
          [=, this](int k, float4(&columns)[1]) {
            columns[0] = four_terms(dheads() + at.group * l_.middle.dheads_ld + k);
          });
#pragma unroll
      for (int element = 0; element < 4; ++element) {
        const int row = at.column(element);
        const int unit = first + at.row(element);
        if (row >= count() || unit >= l_.sizes.encoder) continue;
        const std::int64_t place = static_cast<std::int64_t>(row0() + row) * l_.encoder_ld + unit;
        run_.dh1[place] = activate_grad(run_.encoder, sum[0][element], run_.h1[place]);
      }
    }
  }

  // The loss of the step, and how far the run has come. All parts have been written: the gradients
  // that came back were made from them.
  __device__ void report(int step) {
    float2 sums = {0.0f, 0.0f};
    for (int b = static_cast<int>(threadIdx.x); b < batch(); b += Layout::threads) {
      float nll = 0.0f;
      for (int tile = 0; tile < l_.decode.tiles; ++tile)
        nll += run_.nll_parts[static_cast<std::int64_t>(tile) * batch() + b];
      sums.x += run_.nll_constant + nll;
      sums.y += run_.kl[b];
    }
    sums.x = block_sum(sums.x);
    __syncthreads();  // the parts give their place to the next ones
    sums.y = block_sum(sums.y);
    if (threadIdx.x != 0) return;
    const float mean = 1.0f / static_cast<float>(batch());
    const float reconstruction = sums.x * mean;
    const float kl = sums.y * mean;
    run_.losses[step] = reconstruction + kl * run_.beta.at(run_.hyper + 2 * step);
    run_.losses[run_.steps + step] = reconstruction;
    run_.losses[2 * run_.steps + step] = kl;
    device::store_to_host(run_.progress, static_cast<unsigned>(step) + 1);
  }

  // Zeroes the rows beyond the batch, asks for the others.
  __device__ __forceinline__ float* stage(int offset, int ld, const float* from, int from_ld,
                                          int columns) {
    float* const to = shared_at<float>(shared_, offset);
    fetch(to, ld, from, from_ld, batch(), columns);
    for (int i = batch() * ld + static_cast<int>(threadIdx.x); i < l_.rows * ld;
         i += Layout::threads)
      to[i] = 0.0f;
    return to;
  }

  // One tile of a gradient, the sum over the batch of a's columns times b's.
  __device__ __forceinline__ void gradient(float (&sum)[1][4], const float* a, int a_ld,
                                           const float* b, int b_ld) const {
    const int group = TilePlace().group;
    warp_product<Format>(
        sum, l_.rows,
        [=](int k, float4(&rows16)[2]) {
          rows16[0] = four_terms(a + k * a_ld + group, a_ld);
          rows16[1] = four_terms(a + k * a_ld + group + 8, a_ld);
        },
        [=](int k, float4(&columns)[1]) { columns[0] = four_terms(b + k * b_ld + group, b_ld); });
  }

  // dW1 = d(heads)^T h1 and dW2 = d(h2)^T z for this block's share of both, and Adam. The operands
  // take the place of the weights, which are fetched anew thereafter.
  __device__ void update(int step) {
    if (*run_.adam.commit == 0) return;
    const Layout::Middle& m = l_.middle;
    float heads_w[Layout::heads_slots][4];
    float hidden_w[Layout::hidden_slots][4];
#pragma unroll
    for (int slot = 0; slot < Layout::heads_slots; ++slot)
#pragma unroll
      for (int element = 0; element < 4; ++element) {
        const Tile own = heads_tile(slot);
        heads_w[slot][element] = is_heads_tile(own)
                                     ? heads()[(own.row + TilePlace().row(element)) * m.heads_ld +
                                               own.column + TilePlace().column(element)]
                                     : 0.0f;
      }
#pragma unroll
    for (int slot = 0; slot < Layout::hidden_slots; ++slot)
#pragma unroll
      for (int element = 0; element < 4; ++element) {
        const Tile own = hidden_tile(slot);
        hidden_w[slot][element] =
            is_hidden_tile(own) ? hidden()[(own.row + TilePlace().row(element)) * m.hidden_ld +
                                           own.column + TilePlace().column(element)]
                                : 0.0f;
      }
    __syncthreads();  // the weights give their place
    const float* all_dheads =
        stage(m.all_dheads, m.all_dheads_ld, run_.dheads, l_.heads_ld, l_.heads_ld);
    const float* some_h1 = stage(m.some_h1, m.some_h1_ld, run_.h1 + column0(), l_.encoder_ld,
                                 max(0, min(l_.heads_columns, l_.encoder_ld - column0())));
    const float* some_dh2 = stage(m.some_dh2, m.some_dh2_ld, run_.dh2 + unit0(), l_.decoder_ld,
                                  max(0, min(l_.hidden_rows, l_.decoder_ld - unit0())));
    const float* all_z = stage(m.all_z, m.all_z_ld, run_.z, l_.latent_ld, l_.latent_ld);
    device::cp_async_commit();
    device::cp_async_wait<0>();
    __syncthreads();

    const Adam adam = adam_of_step(run_, step);
    const TilePlace at;
    const std::int64_t next = (step + 1) % 2;
    float* const heads_copy = run_.heads_copy + next * l_.heads_ld * l_.encoder_ld;
    float* const hidden_copy = run_.hidden_copy + next * l_.decoder_ld * l_.latent_ld;
#pragma unroll
    for (int slot = 0; slot < Layout::heads_slots; ++slot) {
      const Tile own = heads_tile(slot);
      if (!is_heads_tile(own)) continue;
      float sum[1][4] = {};
      gradient(sum, all_dheads + own.row, m.all_dheads_ld, some_h1 + own.column - column0(),
               m.some_h1_ld);
#pragma unroll
      for (int element = 0; element < 4; ++element) {
        const int row = own.row + at.row(element);
        const int column = own.column + at.column(element);
        if (row >= 2 * latent() || column >= l_.sizes.encoder) continue;
        float& w = heads_w[slot][element];
        adam_update<FastRoots>(adam, *adam_, sum[0][element], w, heads_moments_.m[slot][element],
                               heads_moments_.v[slot][element]);
        heads_copy[row * l_.encoder_ld + column] = w;
      }
    }
#pragma unroll
    for (int slot = 0; slot < Layout::hidden_slots; ++slot) {
      const Tile own = hidden_tile(slot);
      if (!is_hidden_tile(own)) continue;
      float sum[1][4] = {};
      gradient(sum, some_dh2 + own.row - unit0(), m.some_dh2_ld, all_z + own.column, m.all_z_ld);
#pragma unroll
      for (int element = 0; element < 4; ++element) {
        const int row = own.row + at.row(element);
        const int column = own.column + at.column(element);
        if (row >= l_.sizes.decoder || column >= latent()) continue;
        float& w = hidden_w[slot][element];
        adam_update<FastRoots>(adam, *adam_, sum[0][element], w, hidden_moments_.m[slot][element],
                               hidden_moments_.v[slot][element]);
        hidden_copy[row * l_.latent_ld + column] = w;
      }
    }
    const int thread = static_cast<int>(threadIdx.x);
    const auto batch_sum = [&](const float* first, int ld) {
      float sum = 0.0f;
      for (int b = 0; b < batch(); ++b) sum += first[b * ld];
      return sum;
    };
    if (holds_heads_bias()) {
      adam_update(adam, *adam_, batch_sum(all_dheads + thread, m.all_dheads_ld), heads_bias_.value,
                  heads_bias_.m, heads_bias_.v);
      run_.heads.bias[thread] = heads_bias_.value;
    }
    if (holds_hidden_bias()) {
      adam_update(adam, *adam_, batch_sum(some_dh2 + thread, m.some_dh2_ld), hidden_bias_.value,
                  hidden_bias_.m, hidden_bias_.v);
      run_.hidden.bias[unit0() + thread] = hidden_bias_.value;
    }
  }

  // Asks for the weights as all middles have left them; those of the heads come first. Columns
  // beyond the sizes are zero again, which `update` wrote over.
  __device__ void refresh(int step) {
    if (*run_.adam.commit == 0) return;
    const std::int64_t next = (step + 1) % 2;
    fetch(heads(), l_.middle.heads_ld, run_.heads_copy + next * l_.heads_ld * l_.encoder_ld,
          l_.encoder_ld, l_.heads_ld, l_.encoder_ld);
    device::cp_async_commit();
    fetch(hidden(), l_.middle.hidden_ld, run_.hidden_copy + next * l_.decoder_ld * l_.latent_ld,
          l_.latent_ld, l_.decoder_ld, l_.latent_ld);
    device::cp_async_commit();
  }

  const PersistentRun& run_;
  const Layout& l_;
  unsigned char* shared_;
  AdamStep* adam_;
  int block_;
  float eps_[Layout::latent_slots];
  float mean_[Layout::latent_slots];
  float logvar_[Layout::latent_slots];
  Moments<Layout::heads_slots> heads_moments_;
  Moments<Layout::hidden_slots> hidden_moments_;
  BiasElement heads_bias_;
  BiasElement hidden_bias_;
};

}  // namespace CUVAE_KERNELS
