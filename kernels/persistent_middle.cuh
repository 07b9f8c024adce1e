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
        block_(static_cast<int>(blockIdx.x) - l_.owners),
        commits_(*run.adam.commit != 0) {}

  // False: some block waited in vain.
  __device__ __forceinline__ bool train() {
    load();
    draw(0);
    for (int step = 0; step < run_.steps; ++step) {
      const auto round = static_cast<unsigned>(step) + 1;
      const auto middles = round * static_cast<unsigned>(l_.middles);
      if (!await(run_, counter(run_, Counter::encoded),
                 round * static_cast<unsigned>(l_.encode.blocks())))
        return false;
      forward(step);
      arrive(counter(run_, Counter::decoded));
      // While the owners are at work.
      prepare(step);
      if (!await(run_, counter(run_, Counter::returned),
                 round * static_cast<unsigned>(l_.back.blocks())))
        return false;
      backward(step);
      arrive(counter(run_, Counter::finished));
      // What follows has to be there for the next step's forward().
      Weights own;
      take(own);
      if (!await(run_, counter(run_, Counter::finished), middles)) return false;
      update(step, own);
      arrive(counter(run_, Counter::middle_updated));
      if (!await(run_, counter(run_, Counter::middle_updated), middles)) return false;
      refresh(step);
      if (block_ == 0) report(step);
      if (stops_after(run_, step)) break;
    }
    device::cp_async_wait<0>();
    __syncthreads();
    block_ = device::opaque(block_);  // or places would be kept in registers since load()
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

  [[nodiscard]] __device__ __forceinline__ float* hidden_bias() const {
    return shared_at<float>(shared_, l_.middle.bias);
  }

  // Element i of z for this thread: its row of the block, a warp's own, and its latent; row -1:
  // none.
  struct LatentPlace {
    int row;
    int j;
  };
  [[nodiscard]] __device__ __forceinline__ LatentPlace latent_place(int i) const {
    static_assert(rows == Layout::warps);
    const int j = static_cast<int>(threadIdx.x) % 32 + i * 32;
    return {warp() < count() && j < latent() ? warp() : -1, j};
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

  __device__ __forceinline__ void load() {
    const int thread = static_cast<int>(threadIdx.x);
    const auto keep = [](float x) { return stored<Format>(x); };
    clear_weight<Format>(heads(), l_.heads_ld * l_.middle.heads_ld);
    clear_weight<Format>(hidden(), l_.decoder_ld * l_.middle.hidden_ld);
    __syncthreads();
    copy(heads(), l_.middle.heads_ld, run_.heads.weight, l_.sizes.encoder, 2 * latent(),
         l_.sizes.encoder, keep);
    copy(hidden(), l_.middle.hidden_ld, run_.hidden.weight, latent(), l_.sizes.decoder, latent(),
         keep);
    heads_moments_.load(run_.heads, [this](int s, int e) { return heads_place(s, e); });
    hidden_moments_.load(run_.hidden, [this](int s, int e) { return hidden_place(s, e); });
    if (holds_heads_bias()) heads_bias_.load(run_.heads, thread);
    if (holds_hidden_bias()) hidden_bias_.load(run_.hidden, unit0() + thread);
    load_biases();
  }

  // As they are for the next step.
  __device__ __forceinline__ void load_biases() {
#pragma unroll
    for (int i = 0; i < Layout::latent_slots; ++i) {
      const LatentPlace at = latent_place(i);
      mean_bias_[i] = at.row < 0 ? 0.0f : run_.heads.bias[at.j];
      logvar_bias_[i] = at.row < 0 ? 0.0f : run_.heads.bias[latent() + at.j];
    }
    for (int unit = static_cast<int>(threadIdx.x); unit < l_.sizes.decoder; unit += Layout::threads)
      hidden_bias()[unit] = run_.hidden.bias[unit];
  }

  // What this block updates; its shared copy is the newest.
  __device__ __forceinline__ void store() const {
    const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int slot = 0; slot < Layout::heads_slots; ++slot)
#pragma unroll
      for (int element = 0; element < 4; ++element)
        if (const std::int64_t at = heads_place(slot, element); at >= 0)
          run_.heads.weight[at] = original<Format>(
              heads()[at / l_.sizes.encoder * l_.middle.heads_ld + at % l_.sizes.encoder]);
#pragma unroll
    for (int slot = 0; slot < Layout::hidden_slots; ++slot)
#pragma unroll
      for (int element = 0; element < 4; ++element)
        if (const std::int64_t at = hidden_place(slot, element); at >= 0)
          run_.hidden.weight[at] =
              original<Format>(hidden()[at / latent() * l_.middle.hidden_ld + at % latent()]);
    heads_moments_.store(run_.heads, [this](int s, int e) { return heads_place(s, e); });
    hidden_moments_.store(run_.hidden, [this](int s, int e) { return hidden_place(s, e); });
    if (holds_heads_bias()) heads_bias_.store(run_.heads, thread);
    if (holds_hidden_bias()) hidden_bias_.store(run_.hidden, unit0() + thread);
  }

  // A step's noise.
  __device__ __forceinline__ void draw(int step) {
    Draws draws = run_.draws;
    draws.step = step;
    const RandomKey key = random_key(draws);
#pragma unroll
    for (int i = 0; i < Layout::latent_slots; ++i) {
      const LatentPlace at = latent_place(i);
      next_eps_[i] = at.row < 0 ? 0.0f
                                : draw_normal(key, first_draw(draws, row0() + at.row) +
                                                       static_cast<std::uint64_t>(at.j));
    }
  }

  // What the rest of the step and the next one want.
  __device__ __forceinline__ void prepare(int step) {
    if (threadIdx.x == Layout::threads - 1) *adam_ = adam_step(adam_of_step(run_, step));
    if (step + 1 < run_.steps) draw(step + 1);
  }

  // Four rows of the block and four columns at a time: f(row, column, where they stand in a matrix
  // [B, ld]); a row beyond the batch is its last one again.
  template <class F>
  __device__ __forceinline__ void each_four(int ld, F f) const {
    for (int i = static_cast<int>(threadIdx.x); i < ld / 2; i += Layout::threads) {
      const int row = i % 2 * 4;
      const int column = i / 2 * 4;
      if (row >= count()) continue;
      int at[4];
#pragma unroll
      for (int r = 0; r < 4; ++r) at[r] = (row0() + min(row + r, count() - 1)) * ld + column;
      f(row, column, at);
    }
  }
  // Four rows and columns: to the block's tile, and turned to where all see them, with zeros beyond
  // the batch.
  __device__ __forceinline__ void keep_four(const float (&x)[16], int row, int column,
                                            float* all) const {
    const int ld = l_.middle.tile_ld;
    float kept[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) kept[i] = stored<Format>(x[i]);
#pragma unroll
    for (int r = 0; r < 4; ++r)
      *reinterpret_cast<float4*>(tile() + (row + r) * ld + column) =
          make_float4(kept[4 * r], kept[4 * r + 1], kept[4 * r + 2], kept[4 * r + 3]);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      *reinterpret_cast<float4*>(all + static_cast<std::int64_t>(column + j) * l_.rows + row0() +
                                 row) = make_float4(kept[j], row + 1 < count() ? kept[4 + j] : 0.0f,
                                                    row + 2 < count() ? kept[8 + j] : 0.0f,
                                                    row + 3 < count() ? kept[12 + j] : 0.0f);
  }

  // C [width, 8] = A [width, terms] B [8, terms]^T, with the terms cut so that all warps work; the
  // parts go to parts() as [split][8][ld]. load_a(rows16, row, k): four terms of A's rows
  // `row` and row + 1. Returns the number of parts.
  template <class A>
  __device__ __forceinline__ int split_product(int width, int terms, int ld, A load_a,
                                               const float* b, int b_ld) {
    const int shift = Layout::split_shift(width);
    const int chunk =
        ((terms / product_terms + (1 << shift) - 1) >> shift) * product_terms;  // of the terms
    const int warps = Layout::warps >> shift;                                   // for each chunk
    const TilePlace at;
    const int split = warp() >> (3 - shift);
    const int k0 = split * chunk;
#pragma unroll 1
    for (int m0 = (warp() & (warps - 1)) * 16; m0 < width; m0 += warps * 16) {
      float sum[1][4] = {};
      warp_product<Format>(
          sum, max(0, min(chunk, terms - k0)),
          [=](int k, float4(&rows16)[2]) { load_a(rows16, m0 + 2 * at.group, k0 + k); },
          [=](int k, float4(&columns)[1]) {
            columns[0] = four_terms(b + at.group * b_ld + k0 + k);
          });
#pragma unroll
      for (int element = 0; element < 4; ++element)
        parts()[(split * rows + at.column(element)) * ld + m0 + 2 * at.group + element / 2] =
            sum[0][element];
    }
    __syncthreads();
    return 1 << shift;
  }
  __device__ __forceinline__ float split_sum(int splits, int ld, int row, int column) const {
    const float* const from = parts() + row * ld + column;
    const int hop = rows * ld;
    float part[Layout::warps];
#pragma unroll
    for (int split = 0; split < Layout::warps; ++split)
      part[split] = split < splits ? from[split * hop] : 0.0f;
    float sum = 0.0f;
#pragma unroll
    for (int split = 0; split < Layout::warps; ++split) sum += part[split];
    return sum;
  }

  // P2.
  __device__ __forceinline__ void forward(int step) {
    const int encoder = l_.sizes.encoder;
    const int decoder = l_.sizes.decoder;
    const int tile_ld = l_.middle.tile_ld;
    each_four(l_.encoder_ld, [&](int row, int column, const int(&at)[4]) {
      float bias[4];
#pragma unroll
      for (int j = 0; j < 4; ++j)
        bias[j] = column + j < encoder ? run_.encode.bias[column + j] : 0.0f;
      float4 sum[4];
      add_parts<3>(sum, run_.encode_parts, at, batch() * l_.encoder_ld, l_.encode.pieces);
      float h[16];
#pragma unroll
      for (int i = 0; i < 16; ++i) h[i] = element_of(sum[i / 4], i % 4) + bias[i % 4];
      activate_each(run_.encoder, h);
      if (column + 4 > encoder)
#pragma unroll
        for (int i = 0; i < 16; ++i) h[i] = column + i % 4 < encoder ? h[i] : 0.0f;
      keep_four(h, row, column, run_.h1);
    });
    device::cp_async_wait<1>();  // the heads' weight
    __syncthreads();

    const int heads_ld = l_.middle.dheads_ld;
    const int splits = split_product(
        2 * latent(), l_.encoder_ld, heads_ld,
        [=, this](float4(&rows16)[2], int row, int k) {
          const float* const from = heads() + row * l_.middle.heads_ld + k;
          rows16[0] = four_terms(from);
          rows16[1] = four_terms(from + l_.middle.heads_ld);
        },
        tile(), tile_ld);
    float kl = 0.0f;
#pragma unroll
    for (int i = 0; i < Layout::latent_slots; ++i) {
      const LatentPlace at = latent_place(i);
      if (at.row < 0) continue;
      eps_[i] = next_eps_[i];
      mean_[i] = split_sum(splits, heads_ld, at.row, at.j) + mean_bias_[i];
      logvar_[i] =
          bound_logvar(split_sum(splits, heads_ld, at.row, latent() + at.j) + logvar_bias_[i]);
      const float drawn = stored<Format>(reparameterise(mean_[i], logvar_[i], eps_[i]));
      z()[at.row * l_.middle.z_ld + at.j] = drawn;
      run_.z[static_cast<std::int64_t>(at.j) * l_.rows + row0() + at.row] = drawn;
      kl += gaussian_kl_term(mean_[i], logvar_[i]);
    }
    device::cp_async_wait<0>();  // the decoder's
    __syncthreads();             // z is there
    kl = warp_sum(kl);
    if (threadIdx.x % 32 == 0 && warp() < count())
      run_.kl[step % 2 * batch() + row0() + warp()] = kl;

    // h2, 16 of its columns at a time.
    const TilePlace at;
    float* const h2 = run_.h2 + static_cast<std::int64_t>(row0()) * l_.decoder_ld;
#pragma unroll 1
    for (int first = warp() * 16; first < l_.decoder_ld; first += Layout::warps * 16) {
      float sum[1][4] = {};
      warp_product<Format, false, false, true>(
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
      for (int element = 0; element < 4; ++element)
        sum[0][element] += hidden_bias()[first + at.row(element)];
      activate_each(run_.decoder, sum[0]);
#pragma unroll
      for (int element = 0; element < 4; ++element) {
        const int row = at.column(element);
        const int unit = first + at.row(element);
        if (row < count())
          h2[row * l_.decoder_ld + unit] = stored<Format>(unit < decoder ? sum[0][element] : 0.0f);
      }
    }
  }

  // P5.
  __device__ __forceinline__ void backward(int step) {
    const int tile_ld = l_.middle.tile_ld;
    each_four(l_.decoder_ld, [&](int row, int column, const int(&at)[4]) {
      float4 kept[4];
#pragma unroll
      for (int r = 0; r < 4; ++r) kept[r] = four_terms(run_.h2 + at[r]);
      float4 sum[4];
      add_parts<3>(sum, run_.back_parts, at, batch() * l_.decoder_ld, l_.back.pieces);
      float d[16];
      float h[16];
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        d[i] = element_of(sum[i / 4], i % 4);
        h[i] = original<Format>(element_of(kept[i / 4], i % 4));
      }
      activate_grad_each(run_.decoder, d, h);
      keep_four(d, row, column, run_.dh2);
    });
    // h1 of the first tiles below, from afar.
    constexpr int ahead = 4;
    const TilePlace at;
    const auto h1_place = [&](int unit) {
      return static_cast<std::int64_t>(unit) * l_.rows + row0() + at.column(0);
    };
    float2 h1[ahead][2];
    const auto ask = [&](float2(&to)[2], int first) {
      const int unit0 = min(first, l_.encoder_ld - 16);
#pragma unroll
      for (int half = 0; half < 2; ++half)
        to[half] =
            *reinterpret_cast<const float2*>(run_.h1 + h1_place(unit0 + 2 * at.group + half));
    };
#pragma unroll
    for (int i = 0; i < ahead; ++i) ask(h1[i], (warp() + i * Layout::warps) * 16);
    __syncthreads();

    const int z_ld = l_.middle.z_ld;
    const int splits = split_product(
        latent(), l_.decoder_ld, z_ld,
        [=, this](float4(&rows16)[2], int row, int k) {
          two_rows(rows16, hidden() + k * l_.middle.hidden_ld + row, l_.middle.hidden_ld);
        },
        tile(), tile_ld);
    const float dkl = run_.dkl.at(run_.hyper + 2 * step);
#pragma unroll
    for (int i = 0; i < Layout::latent_slots; ++i) {
      const LatentPlace place = latent_place(i);
      if (place.row < 0) continue;
      const float dz = split_sum(splits, z_ld, place.row, place.j);
      const HeadsGrad grad = heads_grad(dz, dkl, mean_[i], logvar_[i], eps_[i]);
      const float both[2] = {stored<Format>(grad.dmean), stored<Format>(grad.draw)};
#pragma unroll
      for (int head = 0; head < 2; ++head) {
        const int j = head * latent() + place.j;
        dheads()[place.row * l_.middle.dheads_ld + j] = both[head];
        run_.dheads[static_cast<std::int64_t>(j) * l_.rows + row0() + place.row] = both[head];
      }
    }
    __syncthreads();

    int asked = 0;
#pragma unroll 1
    for (int first = warp() * 16; first < l_.encoder_ld; first += Layout::warps * 16) {
      float sum[1][4] = {};
      warp_product<Format>(
          sum, l_.heads_ld,
          [=, this](int k, float4(&rows16)[2]) {
            two_rows(rows16, heads() + k * l_.middle.heads_ld + first + 2 * at.group,
                     l_.middle.heads_ld);
          },
          [=, this](int k, float4(&columns)[1]) {
            columns[0] = four_terms(dheads() + at.group * l_.middle.dheads_ld + k);
          });
      const float h[4] = {original<Format>(h1[0][0].x), original<Format>(h1[0][0].y),
                          original<Format>(h1[0][1].x), original<Format>(h1[0][1].y)};
      activate_grad_each(run_.encoder, sum[0], h);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const bool unit = first + 2 * at.group + half < l_.sizes.encoder;
        const int column = at.column(0);
        *reinterpret_cast<float2*>(run_.dh1 + h1_place(first + 2 * at.group + half)) =
            make_float2(stored<Format>(unit && column < count() ? sum[0][2 * half] : 0.0f),
                        stored<Format>(unit && column + 1 < count() ? sum[0][2 * half + 1] : 0.0f));
      }
#pragma unroll
      for (int i = 0; i + 1 < ahead; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) h1[i][half] = h1[i + 1][half];
      if (++asked == ahead && first + Layout::warps * 16 < l_.encoder_ld) {
        asked = 0;
#pragma unroll
        for (int i = 0; i < ahead; ++i) ask(h1[i], first + (i + 1) * Layout::warps * 16);
      }
    }
  }

  // The loss of the step, and how far the run has come. All parts have been written: the gradients
  // that came back were made from them.
  __device__ __forceinline__ void report(int step) {
    constexpr int at_once = 16;
    const int terms = l_.decode.tiles * batch();
    float2 sums = {0.0f, 0.0f};
    for (int first = static_cast<int>(threadIdx.x); first < terms;
         first += at_once * Layout::threads) {
      float nll[at_once];
#pragma unroll
      for (int i = 0; i < at_once; ++i)
        nll[i] = first + i * Layout::threads < terms ? run_.nll_parts[first + i * Layout::threads]
                                                     : 0.0f;
#pragma unroll
      for (int i = 0; i < at_once; ++i) sums.x += nll[i];
    }
    for (int b = static_cast<int>(threadIdx.x); b < batch(); b += Layout::threads)
      sums.y += run_.kl[step % 2 * batch() + b];
    sums.x = block_sum(sums.x);
    __syncthreads();  // the parts give their place to the next ones
    sums.y = block_sum(sums.y);
    if (threadIdx.x != 0) return;
    const float mean = 1.0f / static_cast<float>(batch());
    const float reconstruction = run_.nll_constant + sums.x * mean;
    const float kl = sums.y * mean;
    run_.losses[step] = reconstruction + kl * run_.beta.at(run_.hyper + 2 * step);
    run_.losses[run_.steps + step] = reconstruction;
    run_.losses[2 * run_.steps + step] = kl;
    device::store_to_host(run_.progress, static_cast<unsigned>(step) + 1);
  }

  // One tile of a gradient, the sum over the batch of a's rows times b's.
  __device__ __forceinline__ void gradient(float (&sum)[1][4], const float* a,
                                           const float* b) const {
    const int ld = l_.middle.batch_ld;
    const int group = TilePlace().group;
    warp_product<Format>(
        sum, l_.rows,
        [=](int k, float4(&rows16)[2]) {
          rows16[0] = four_terms(a + group * ld + k);
          rows16[1] = four_terms(a + (group + 8) * ld + k);
        },
        [=](int k, float4(&columns)[1]) { columns[0] = four_terms(b + group * ld + k); });
  }

  // This block's tiles of both weights, before the operands of their gradients take their place.
  struct Weights {
    float2 heads[Layout::heads_slots][2];
    float2 hidden[Layout::hidden_slots][2];
  };
  __device__ __forceinline__ void take(Weights& own) const {
    const auto tile_of = [](float2(&to)[2], const float* weight, int ld, Tile tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half)
        to[half] =
            *reinterpret_cast<const float2*>(weight + (tile.row + TilePlace().row(2 * half)) * ld +
                                             tile.column + TilePlace().column(0));
    };
#pragma unroll
    for (int slot = 0; slot < Layout::heads_slots; ++slot)
      if (const Tile tile = heads_tile(slot); is_heads_tile(tile))
        tile_of(own.heads[slot], heads(), l_.middle.heads_ld, tile);
#pragma unroll
    for (int slot = 0; slot < Layout::hidden_slots; ++slot)
      if (const Tile tile = hidden_tile(slot); is_hidden_tile(tile))
        tile_of(own.hidden[slot], hidden(), l_.middle.hidden_ld, tile);
  }
  // Their update, from the gradient's operands. What lies beyond the sizes is zero and has no
  // gradient: it stays zero.
  template <int slots, class Own, class Is, class A, class B>
  __device__ __forceinline__ void update_tiles(const Adam& adam, float2 (&w)[slots][2],
                                               Moments<slots>& moments, float* to, int ld, Own own,
                                               Is is, A a, B b) const {
    const TilePlace at;
#pragma unroll
    for (int slot = 0; slot < slots; ++slot) {
      const Tile tile = own(slot);
      if (!is(tile)) continue;
      float sum[1][4] = {};
      gradient(sum, a(tile), b(tile));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float both[2] = {original<Format>(w[slot][half].x), original<Format>(w[slot][half].y)};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          adam_update<FastRoots>(adam, *adam_, sum[0][2 * half + i], both[i],
                                 moments.m[slot][2 * half + i], moments.v[slot][2 * half + i]);
          both[i] = stored<Format>(both[i]);
        }
        *reinterpret_cast<float2*>(to + (tile.row + at.row(2 * half)) * ld + tile.column +
                                   at.column(0)) = make_float2(both[0], both[1]);
      }
    }
  }

  // dW1 = d(heads)^T h1 and dW2 = d(h2)^T z for this block's share of both, and Adam. The operands
  // take the place of the weights, which are fetched anew thereafter.
  __device__ __forceinline__ void update(int step, Weights& own_weights) {
    if (!commits_) return;
    const Layout::Middle& m = l_.middle;
    const auto heads_own = [this](int slot) { return heads_tile(slot); };
    const auto hidden_own = [this](int slot) { return hidden_tile(slot); };
    const auto is_heads = [this](Tile tile) { return is_heads_tile(tile); };
    const auto is_hidden = [this](Tile tile) { return is_hidden_tile(tile); };
    const int ld = m.batch_ld;
    const std::int64_t from_ld = l_.rows;
    const int units = min(l_.hidden_rows, l_.decoder_ld - unit0());
    const auto stage = [&](int offset, const float* from, int count) {
      float* const to = shared_at<float>(shared_, offset);
      fetch(to, ld, from, l_.rows, count, l_.rows);
      return to;
    };
    const float* const all_dheads = stage(m.all_dheads, run_.dheads, l_.heads_ld);
    const float* const some_h1 = stage(m.some_h1, run_.h1 + column0() * from_ld,
                                       min(l_.heads_columns, l_.encoder_ld - column0()));
    const float* const some_dh2 = stage(m.some_dh2, run_.dh2 + unit0() * from_ld, units);
    const float* const all_z = stage(m.all_z, run_.z, l_.latent_ld);
    device::cp_async_commit();
    device::cp_async_wait<0>();
    __syncthreads();

    const Adam adam = adam_of_step(run_, step);
    const std::int64_t next = (step + 1) % 2;
    update_tiles(
        adam, own_weights.heads, heads_moments_,
        run_.heads_copy + next * l_.heads_ld * l_.encoder_ld, l_.encoder_ld, heads_own, is_heads,
        [=](Tile own) { return all_dheads + own.row * ld; },
        [=, this](Tile own) { return some_h1 + (own.column - column0()) * ld; });
    update_tiles(
        adam, own_weights.hidden, hidden_moments_,
        run_.hidden_copy + next * l_.decoder_ld * l_.latent_ld, l_.latent_ld, hidden_own, is_hidden,
        [=, this](Tile own) { return some_dh2 + (own.row - unit0()) * ld; },
        [=](Tile own) { return all_z + own.column * ld; });
    // The biases: sums of the heads', then of the decoder's.
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float* const sums = parts();
    float* const hidden_sums = sums + 2 * latent();
    if (block_ == 0)
      sum_rows<Format>(all_dheads, ld, 2 * latent(), batch(), [=](int row, float sum) {
        if (lane == 0) sums[row] = sum;
      });
    sum_rows<Format>(some_dh2, ld, units, batch(), [=](int row, float sum) {
      if (lane == 0) hidden_sums[row] = sum;
    });
    __syncthreads();
    const int thread = static_cast<int>(threadIdx.x);
    if (holds_heads_bias()) {
      adam_update<FastRoots>(adam, *adam_, sums[thread], heads_bias_.value, heads_bias_.m,
                             heads_bias_.v);
      run_.heads.bias[thread] = heads_bias_.value;
    }
    if (holds_hidden_bias()) {
      adam_update<FastRoots>(adam, *adam_, hidden_sums[thread], hidden_bias_.value, hidden_bias_.m,
                             hidden_bias_.v);
      run_.hidden.bias[unit0() + thread] = hidden_bias_.value;
    }
  }

  // Asks for the weights as all middles have left them; those of the heads come first. Columns
  // beyond the sizes are zero again, which `update` wrote over.
  __device__ __forceinline__ void refresh(int step) {
    if (!commits_) return;
    const std::int64_t next = (step + 1) % 2;
    fetch(heads(), l_.middle.heads_ld, run_.heads_copy + next * l_.heads_ld * l_.encoder_ld,
          l_.encoder_ld, l_.heads_ld, l_.encoder_ld);
    device::cp_async_commit();
    fetch(hidden(), l_.middle.hidden_ld, run_.hidden_copy + next * l_.decoder_ld * l_.latent_ld,
          l_.latent_ld, l_.decoder_ld, l_.latent_ld);
    device::cp_async_commit();
    load_biases();
  }

  const PersistentRun& run_;
  const Layout& l_;
  unsigned char* shared_;
  AdamStep* adam_;
  int block_;
  bool commits_;
  float next_eps_[Layout::latent_slots];
  float eps_[Layout::latent_slots];
  float mean_[Layout::latent_slots];
  float logvar_[Layout::latent_slots];
  float mean_bias_[Layout::latent_slots];
  float logvar_bias_[Layout::latent_slots];
  Moments<Layout::heads_slots> heads_moments_;
  Moments<Layout::hidden_slots> hidden_moments_;
  BiasElement heads_bias_;
  BiasElement hidden_bias_;
};

}  // namespace CUVAE_KERNELS
