#pragma once
// Blocks that hold the wide weights: the first layer's and the last one's.

#include "kernels/persistent.cuh"

namespace CUVAE_KERNELS {

// Which parts of the wide weights a block owns. In shared memory: registers are for moments.
struct OwnerPlace {
  bool encodes, decodes, backs;
  int unit0, units, input0, inputs;     // of the first layer's weight
  int out_tile, out_piece, out0, outs;  // of the last layer's
  int part0, parts;                     // ...: hidden units
  int back0, back_out0, back_outs;      // of the copy for the data gradient
};

__device__ __forceinline__ OwnerPlace owner_place(const Layout& l, int block) {
  OwnerPlace p;
  p.encodes = block < l.encode.blocks();
  p.decodes = block < l.decode.blocks();
  p.backs = block < l.back.blocks();
  p.unit0 = block / l.encode.pieces * Layout::encode_tile;
  p.input0 = block % l.encode.pieces * l.encode.piece;
  p.units = min(Layout::encode_tile, l.sizes.encoder - p.unit0);
  p.inputs = min(l.encode.piece, l.sizes.in - p.input0);
  p.out_tile = block / l.decode.pieces;
  p.out_piece = block % l.decode.pieces;
  p.out0 = p.out_tile * Layout::decode_tile;
  p.outs = min(Layout::decode_tile, l.sizes.in - p.out0);
  p.part0 = p.out_piece * l.decode.piece;
  p.parts = min(l.decode.piece, l.sizes.decoder - p.part0);
  p.back0 = block / l.back.pieces * Layout::back_tile;
  p.back_out0 = block % l.back.pieces * l.back.piece;
  p.back_outs = min(l.back.piece, l.sizes.in - p.back_out0);
  return p;
}

// What a block has in static shared memory.
struct OwnerShared {
  OwnerPlace place;
  AdamStep adam;
  float sums[16];
};

template <class Format>
class Owner {
 public:
  // small->place has been set.
  __device__ __forceinline__ Owner(const PersistentRun& run, unsigned char* shared,
                                   OwnerShared* small)
      : run_(run),
        l_(run.layout),
        shared_(shared),
        p_(small->place),
        adam_(&small->adam),
        sums_(small->sums) {}

  // False: some block waited in vain.
  __device__ bool train() {
    load();
    ask_for_rows(0);
    device::cp_async_wait<0>();
    __syncthreads();
    for (int step = 0; step < run_.steps; ++step) {
      const auto round = static_cast<unsigned>(step) + 1;
      if (p_.encodes) {
        encode(step);
        arrive(counter(run_, Counter::encoded));
      }
      if (!between_steps(step)) return false;
      if (!await(run_, counter(run_, Counter::decoded), round * static_cast<unsigned>(l_.middles)))
        return false;
      if (p_.decodes && !decode(step)) return false;
      if (!await(run_, counter(run_, Counter::graded),
                 round * static_cast<unsigned>(l_.decode.blocks())))
        return false;
      if (p_.backs) {
        back();
        arrive(counter(run_, Counter::returned));
      }
      if (p_.decodes) {
        update_out(step);
        arrive(counter(run_, Counter::updated));
      }
      if (!await(run_, counter(run_, Counter::finished), round * static_cast<unsigned>(l_.middles)))
        return false;
      if (p_.encodes) update_encode(step);
      if (stops_after(run_, step)) break;
    }
    store();
    return true;
  }

 private:
  [[nodiscard]] __device__ __forceinline__ int batch() const { return l_.sizes.batch; }
  [[nodiscard]] __device__ __forceinline__ static int warp() {
    return static_cast<int>(threadIdx.x) / 32;
  }
  // What the block holds (PersistentLayout::Owner).
  [[nodiscard]] __device__ __forceinline__ float* weight() const {
    return shared_at<float>(shared_, l_.owner.weight);
  }
  [[nodiscard]] __device__ __forceinline__ float* out_weight() const {
    return shared_at<float>(shared_, l_.owner.out_weight);
  }
  [[nodiscard]] __device__ __forceinline__ float* back_weight() const {
    return shared_at<float>(shared_, l_.owner.back_weight);
  }
  [[nodiscard]] __device__ __forceinline__ std::uint8_t* x(int step) const {
    return shared_at<std::uint8_t>(shared_, l_.owner.x + step % 2 * l_.owner.x_bytes);
  }
  [[nodiscard]] __device__ __forceinline__ float* hidden() const {
    return shared_at<float>(shared_, l_.owner.hidden);
  }
  [[nodiscard]] __device__ __forceinline__ float* slabs() const {
    return shared_at<float>(shared_, l_.owner.slabs);
  }
  [[nodiscard]] __device__ __forceinline__ std::int64_t* source(int step) const {
    return shared_at<std::int64_t>(shared_, l_.owner.source) + step % 2 * l_.rows;
  }

  // Elements of dW0 in a thread's registers. Four tiles of a warp have their columns in turn, so
  // that a lane's four lie side by side; the last tile is of what is left behind all warps' fours.
  static constexpr int fours = Layout::warps * 32;
  [[nodiscard]] __device__ __forceinline__ static int encode_column(int slot, int column) {
    return slot < 4 ? warp() * 32 + column * 4 + slot : fours + warp() * 8 + column;
  }
  __device__ __forceinline__ std::int64_t encode_place(int slot, int element) const {
    const TilePlace at;
    const int row = at.row(element);
    const int column = encode_column(slot, at.column(element));
    if (!p_.encodes || row >= p_.units || column >= p_.inputs) return -1;
    return static_cast<std::int64_t>(p_.unit0 + row) * l_.sizes.in + p_.input0 + column;
  }
  // Of dW3: the tile's two halves of 16 outputs go to even and odd warps; columns likewise.
  __device__ __forceinline__ static int out_row(int element) {
    return warp() % 2 * 16 + TilePlace().row(element);
  }
  __device__ __forceinline__ static int out_column(int slot, int column) {
    return warp() / 2 * 32 + column * 4 + slot;
  }
  __device__ __forceinline__ std::int64_t out_place(int slot, int element) const {
    const int row = out_row(element);
    const int column = out_column(slot, TilePlace().column(element));
    if (!p_.decodes || row >= p_.outs || column >= p_.parts) return -1;
    return static_cast<std::int64_t>(p_.out0 + row) * l_.sizes.decoder + p_.part0 + column;
  }

  [[nodiscard]] __device__ __forceinline__ bool holds_encode_bias() const {
    return p_.encodes && p_.input0 == 0 && static_cast<int>(threadIdx.x) < p_.units;
  }
  [[nodiscard]] __device__ __forceinline__ bool holds_out_bias() const {
    return p_.decodes && p_.part0 == 0 && static_cast<int>(threadIdx.x) < p_.outs;
  }

  __device__ void load() {
    const int thread = static_cast<int>(threadIdx.x);
    if (p_.encodes)
      copy(weight(), l_.owner.weight_ld,
           run_.encode.weight + static_cast<std::int64_t>(p_.unit0) * l_.sizes.in + p_.input0,
           l_.sizes.in, p_.units, p_.inputs);
    if (p_.decodes)
      copy(out_weight(), l_.owner.out_ld,
           run_.out.weight + static_cast<std::int64_t>(p_.out0) * l_.sizes.decoder + p_.part0,
           l_.sizes.decoder, p_.outs, p_.parts);
    if (p_.backs)
      copy_back_weight(
          run_.out.weight + static_cast<std::int64_t>(p_.back_out0) * l_.sizes.decoder + p_.back0,
          l_.sizes.decoder, min(Layout::back_tile, l_.sizes.decoder - p_.back0));
    encode_moments_.load(run_.encode, [this](int s, int e) { return encode_place(s, e); });
    out_moments_.load(run_.out, [this](int s, int e) { return out_place(s, e); });
    if (holds_encode_bias()) encode_bias_.load(run_.encode, p_.unit0 + thread);
    if (holds_out_bias()) out_bias_.load(run_.out, p_.out0 + thread);
  }

  // The tile for the data gradient, with the outputs, which are its terms, side by side.
  __device__ void copy_back_weight(const float* from, std::int64_t from_ld, int units) {
    const int ld = l_.owner.back_ld;
    for (int i = static_cast<int>(threadIdx.x); i < p_.back_outs * Layout::back_tile;
         i += Layout::threads) {
      const int out = i / Layout::back_tile;
      const int unit = i % Layout::back_tile;
      if (unit < units) back_weight()[unit * ld + out] = from[out * from_ld + unit];
    }
  }

  __device__ void store() const {
    const int thread = static_cast<int>(threadIdx.x);
    if (p_.encodes)
      copy(run_.encode.weight + static_cast<std::int64_t>(p_.unit0) * l_.sizes.in + p_.input0,
           l_.sizes.in, weight(), l_.owner.weight_ld, p_.units, p_.inputs);
    if (p_.decodes)
      copy(run_.out.weight + static_cast<std::int64_t>(p_.out0) * l_.sizes.decoder + p_.part0,
           l_.sizes.decoder, out_weight(), l_.owner.out_ld, p_.outs, p_.parts);
    encode_moments_.store(run_.encode, [this](int s, int e) { return encode_place(s, e); });
    out_moments_.store(run_.out, [this](int s, int e) { return out_place(s, e); });
    if (holds_encode_bias()) encode_bias_.store(run_.encode, p_.unit0 + thread);
    if (holds_out_bias()) out_bias_.store(run_.out, p_.out0 + thread);
  }

  // Asks for this block's columns of the rows of a batch, and notes which rows they are.
  __device__ void ask_for_rows(int step) {
    std::int64_t* const rows = source(step);
    for (int b = static_cast<int>(threadIdx.x); b < batch(); b += Layout::threads) {
      std::int64_t row = run_.batch.pick(step, b).row;
      if (row < 0 || row >= run_.window_rows) {
        device::raise(run_.fault.word,
                      cuda::FaultWord::code(run_.fault.node, cuda::FaultKind::row));
        row = 0;
      }
      rows[b] = row;
    }
    __syncthreads();
    if (p_.encodes) {
      std::uint8_t* const bytes = x(step);
      const int ld = l_.owner.x_ld;
      if (run_.whole_rows) {  // in and input0 are multiples of 16
        const int chunks = p_.inputs / 16;
        for (int i = static_cast<int>(threadIdx.x); i < batch() * chunks; i += Layout::threads)
          device::cp_async16(
              bytes + i / chunks * ld + i % chunks * 16,
              run_.window + rows[i / chunks] * l_.sizes.in + p_.input0 + i % chunks * 16);
      } else {
        for (int i = static_cast<int>(threadIdx.x); i < batch() * p_.inputs; i += Layout::threads)
          bytes[i / p_.inputs * ld + i % p_.inputs] =
              run_.window[rows[i / p_.inputs] * l_.sizes.in + p_.input0 + i % p_.inputs];
      }
    }
    device::cp_async_commit();
  }

  [[nodiscard]] __device__ __forceinline__ float scaled(std::uint8_t byte) const {
    return (static_cast<float>(byte) - run_.shift) * run_.scale;
  }
  // Products take the bytes themselves, which all formats hold exactly; sums are given the scale,
  // and what the shift adds to them: sum (byte - shift) w = sum byte w - shift sum w.
  __device__ __forceinline__ static float4 four_bytes(std::uint32_t word) {
    return make_float4(device::float_of_byte(word, 0), device::float_of_byte(word, 1),
                       device::float_of_byte(word, 2), device::float_of_byte(word, 3));
  }
  // Sums of 16 rows as the product sees them, for the shift.
  __device__ __forceinline__ void sum_rows(const float* matrix, int ld, int count) {
    if (run_.shift == 0.0f) return;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int row = warp(); row < 16; row += Layout::warps) {
      float sum = 0.0f;
      for (int i = lane; i < count; i += 32) sum += rounded<Format>(matrix[row * ld + i]);
      sum = warp_sum(sum);
      if (lane == 0) sums_[row] = sum;
    }
    __syncthreads();
  }
  [[nodiscard]] __device__ __forceinline__ float unshifted(float sum, int row) const {
    return (run_.shift == 0.0f ? sum : sum - run_.shift * sums_[row]) * run_.scale;
  }

  // P1. The parts of 16 hidden units.
  __device__ void encode(int step) {
    sum_rows(weight(), l_.owner.weight_ld, p_.inputs);
    const TilePlace at;
    const int ld = l_.owner.weight_ld;
    const int x_ld = l_.owner.x_ld;
    const float* const w0 = weight() + at.group * ld;
    const float* const w1 = w0 + 8 * ld;
    float* parts = run_.encode_parts +
                   static_cast<std::int64_t>(p_.input0 / l_.encode.piece) * batch() * l_.encoder_ld;
    for (int b0 = warp() * 16; b0 < batch(); b0 += Layout::warps * 16) {
      const std::uint8_t* const x0 = x(step) + (b0 + at.group) * x_ld;
      const std::uint8_t* const x1 = x0 + 8 * x_ld;
      float sum[2][4] = {};
      warp_product<Format, true>(
          sum, l_.encode.piece,
          [=](int k, float4(&rows)[2]) {
            rows[0] = four_bytes(*reinterpret_cast<const std::uint32_t*>(x0 + k));
            rows[1] = four_bytes(*reinterpret_cast<const std::uint32_t*>(x1 + k));
          },
          [=](int k, float4(&columns)[2]) {
            columns[0] = four_terms(w0 + k);
            columns[1] = four_terms(w1 + k);
          });
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int element = 0; element < 4; ++element)
          sum[j][element] = unshifted(sum[j][element], 8 * j + at.column(element));
      put(sum, parts, l_.encoder_ld, b0, p_.unit0);
    }
  }

  // Writes tiles of 8 columns side by side.
  template <int tiles>
  __device__ __forceinline__ void put(const float (&sum)[tiles][4], float* to, int ld, int row0,
                                      int column0) const {
    const TilePlace at;
#pragma unroll
    for (int j = 0; j < tiles; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = row0 + at.row(2 * half);
        if (row >= batch()) continue;
        *reinterpret_cast<float2*>(to + static_cast<std::int64_t>(row) * ld + column0 + 8 * j +
                                   at.column(0)) =
            make_float2(sum[j][2 * half], sum[j][2 * half + 1]);
      }
  }

  // While the middles are at work: what the next step wants, and the host's wish to stop.
  __device__ bool between_steps(int step) {
    if (threadIdx.x == Layout::threads - 1) *adam_ = adam_step(adam_of_step(run_, step));
    if (blockIdx.x == 0 && threadIdx.x == 32 && step % 8 == 0 &&
        device::load_from_host(run_.stop) != 0)
      device::store_relaxed(counter(run_, Counter::limit), static_cast<unsigned>(step) + 2);
    if (p_.backs && step > 0) {
      if (!await(run_, counter(run_, Counter::updated),
                 static_cast<unsigned>(step) * static_cast<unsigned>(l_.decode.blocks())))
        return false;
      copy_back_weight(
          run_.out_copy +
              (static_cast<std::int64_t>(step % 2) * l_.out_ld + p_.back_out0) * l_.decoder_ld +
              p_.back0,
          l_.decoder_ld, Layout::back_tile);
    }
    if (step + 1 < run_.steps) ask_for_rows(step + 1);
    return true;
  }

  // P3. Logits from the parts of all pieces of the hidden layer, and what follows for this block's
  // share of the batch.
  __device__ bool decode(int step) {
    const int ld = l_.owner.out_ld;
    fetch(hidden(), ld, run_.h2 + p_.part0, l_.decoder_ld, batch(),
          min(l_.decode.piece, l_.decoder_ld - p_.part0));
    device::cp_async_commit();
    device::cp_async_wait<0>();
    __syncthreads();
    const std::int64_t plane = static_cast<std::int64_t>(batch()) * l_.out_ld;
    const int group = TilePlace().group;
    const float* const w = out_weight() + group * ld;
    for (int b0 = warp() * 16; b0 < batch(); b0 += Layout::warps * 16) {
      const float* const h0 = hidden() + (b0 + group) * ld;
      const float* const h1 = h0 + 8 * ld;
      float sum[4][4] = {};
      warp_product<Format>(
          sum, l_.decode.piece,
          [=](int k, float4(&rows)[2]) {
            rows[0] = four_terms(h0 + k);
            rows[1] = four_terms(h1 + k);
          },
          [=](int k, float4(&columns)[4]) {
#pragma unroll
            for (int j = 0; j < 4; ++j) columns[j] = four_terms(w + 8 * j * ld + k);
          });
      put(sum, run_.logit_parts + p_.out_piece * plane, l_.out_ld, b0, p_.out0);
    }
    unsigned* exchanged = counter(run_, Counter::logits, p_.out_tile);
    arrive(exchanged);
    // The targets are far away: they are asked for before the wait.
    const int share = (batch() + l_.decode.pieces - 1) / l_.decode.pieces;
    const int begin = p_.out_piece * share;
    const int end = min(batch(), begin + share);
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int out = p_.out0 + lane;
    const std::int64_t* const rows = source(step);
    constexpr int ahead = 4;
    float target[ahead];
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const int b = begin + warp() + i * Layout::warps;
      target[i] =
          b < end && lane < p_.outs ? scaled(run_.window[rows[b] * l_.sizes.in + out]) : 0.0f;
    }
    if (!await(run_, exchanged,
               (static_cast<unsigned>(step) + 1) * static_cast<unsigned>(l_.decode.pieces)))
      return false;
    const float bias = lane < p_.outs ? run_.out.bias[out] : 0.0f;
    const float dnll = run_.dnll.at(run_.hyper + 2 * step);
    for (int b = begin + warp(), i = 0; b < end; b += Layout::warps, ++i) {
      const std::int64_t at = static_cast<std::int64_t>(b) * l_.out_ld + out;
      float logit = 0.0f;
      for (int piece = 0; piece < l_.decode.pieces; ++piece)
        logit += run_.logit_parts[piece * plane + at];
      logit += bias;
      NllTerm term = {0.0f, 0.0f};
      if (lane < p_.outs) {
        const float x =
            i < ahead ? ahead_of(target, i) : scaled(run_.window[rows[b] * l_.sizes.in + out]);
        term =
            run_.bernoulli ? bernoulli_term(logit, x) : gaussian_term(logit, x, run_.inverse_sigma);
      }
      run_.dlogits[at] = dnll * term.grad;
      const float sum = warp_sum(term.nll);
      if (lane == 0) run_.nll_parts[static_cast<std::int64_t>(p_.out_tile) * batch() + b] = sum;
    }
    arrive(counter(run_, Counter::graded));
    return true;
  }

  // target[i] without an indexed register array.
  template <int ahead>
  __device__ __forceinline__ static float ahead_of(const float (&target)[ahead], int i) {
    float value = target[0];
#pragma unroll
    for (int j = 1; j < ahead; ++j) value = i == j ? target[j] : value;
    return value;
  }

  // P4. The gradient of 16 hidden units of the decoder, over this block's piece of the outputs.
  __device__ void back() {
    constexpr int ahead = Layout::stages - 1;
    const int slab_floats = l_.owner.slab_bytes / static_cast<int>(sizeof(float));
    const int count = (p_.back_outs + Layout::slab - 1) / Layout::slab;
    const int group = TilePlace().group;
    // Four threads a row; their places in memory only move from slab to slab.
    static_assert(Layout::slab == 16);
    constexpr int rows_at_once = Layout::threads / 4;
    const int row = static_cast<int>(threadIdx.x) / 4;
    const int four = static_cast<int>(threadIdx.x) % 4 * 4;
    const float* const from =
        run_.dlogits + static_cast<std::int64_t>(row) * l_.out_ld + p_.back_out0 + four;
    float* const to = slabs() + row * Layout::slab + four;
    const int hop = rows_at_once * l_.out_ld;
    const auto ask = [&](int slab) {
      if (slab < count) {
        const float* source = from + slab * Layout::slab;
        float* place = to + slab % Layout::stages * slab_floats;
#pragma unroll 1
        for (int b = row; b < batch(); b += rows_at_once) {
          device::cp_async16(place, source);
          source += hop;
          place += rows_at_once * Layout::slab;
        }
      }
      device::cp_async_commit();
    };
    float* parts = run_.back_parts + static_cast<std::int64_t>(p_.back_out0 / l_.back.piece) *
                                         batch() * l_.decoder_ld;
    for (int pass0 = 0; pass0 < batch(); pass0 += Layout::warps * 16) {
      const int b0 = pass0 + warp() * 16;
      float sum[2][4] = {};
      if (pass0 > 0) __syncthreads();  // the slabs give their place
      for (int slab = 0; slab < ahead; ++slab) ask(slab);
      for (int slab = 0; slab < count; ++slab) {
        device::cp_async_wait<ahead - 1>();
        __syncthreads();  // the slab is there for all, and the one before is no longer read
        ask(slab + ahead);
        if (b0 >= batch()) continue;
        const float* d = slabs() + slab % Layout::stages * slab_floats;
        const float* w = back_weight() + slab * Layout::slab;
        const int ld = l_.owner.back_ld;
        warp_product<Format>(
            sum, Layout::slab,
            [=](int k, float4(&rows)[2]) {
#pragma unroll
              for (int half = 0; half < 2; ++half)
                rows[half] = four_terms(d + (b0 + group + 8 * half) * Layout::slab + k);
            },
            [=](int k, float4(&columns)[2]) {
#pragma unroll
              for (int j = 0; j < 2; ++j) columns[j] = four_terms(w + (8 * j + group) * ld + k);
            });
      }
      put(sum, parts, l_.decoder_ld, b0, p_.back0);
    }
  }

  // Zeroes the rows beyond the batch of a matrix that others have used the place of.
  __device__ __forceinline__ void clear_rows(float* matrix, int ld) const {
    for (int i = batch() * ld + static_cast<int>(threadIdx.x); i < l_.rows * ld;
         i += Layout::threads)
      matrix[i] = 0.0f;
  }

  // The sum over the batch of what stands `ld` apart.
  __device__ __forceinline__ float batch_sum(const float* first, int ld) const {
    float sum = 0.0f;
    for (int b = 0; b < batch(); ++b) sum += first[b * ld];
    return sum;
  }

  // dW3 = d(logits)^T h2, Adam, and the copy for the other blocks.
  __device__ void update_out(int step) {
    const int ld = l_.owner.dlogits_ld;
    const int hidden_ld = l_.owner.out_ld;
    const float* const d = slabs();
    clear_rows(slabs(), ld);
    fetch(slabs(), ld, run_.dlogits + p_.out0, l_.out_ld, batch(), Layout::decode_tile);
    device::cp_async_commit();
    device::cp_async_wait<0>();
    __syncthreads();
    const bool commits = *run_.adam.commit != 0;
    // The tiles of a warp have their columns in turn, four side by side for each lane.
    float sum[Layout::decode_slots][4] = {};
    const int m0 = warp() % 2 * 16 + TilePlace().group;
    const int column0 = out_column(0, TilePlace().group);
    const float* const h = hidden() + column0;
    const bool within = column0 < l_.decode.piece;
    warp_product<Format>(
        sum, l_.rows,
        [=](int k, float4(&rows)[2]) {
#pragma unroll
          for (int half = 0; half < 2; ++half)
            rows[half] = four_terms(d + k * ld + m0 + 8 * half, ld);
        },
        [=](int k, float4(&columns)[Layout::decode_slots]) {
          static_assert(Layout::decode_slots == 4);
          const float4 none = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
          const float4 t0 = within ? four_terms(h + k * hidden_ld) : none;
          const float4 t1 = within ? four_terms(h + (k + 1) * hidden_ld) : none;
          const float4 t2 = within ? four_terms(h + (k + 2) * hidden_ld) : none;
          const float4 t3 = within ? four_terms(h + (k + 3) * hidden_ld) : none;
#pragma unroll
          for (int j = 0; j < 4; ++j)
            columns[j] = make_float4(element_of(t0, j), element_of(t1, j), element_of(t2, j),
                                     element_of(t3, j));
        });
    float* to = run_.out_copy +
                (static_cast<std::int64_t>((step + 1) % 2) * l_.out_ld + p_.out0) * l_.decoder_ld +
                p_.part0;
    const Adam adam = adam_of_step(run_, step);
    const TilePlace at;
#pragma unroll
    for (int element = 0; element < 4; ++element) {
      const int row = out_row(element);
      if (row >= p_.outs) continue;
#pragma unroll
      for (int slot = 0; slot < Layout::decode_slots; ++slot) {
        const int column = out_column(slot, at.column(element));
        if (column >= p_.parts) continue;
        float& w = out_weight()[row * hidden_ld + column];
        if (commits)
          adam_update<FastRoots>(adam, *adam_, sum[slot][element], w, out_moments_.m[slot][element],
                                 out_moments_.v[slot][element]);
        to[static_cast<std::int64_t>(row) * l_.decoder_ld + column] = w;
      }
    }
    if (holds_out_bias() && commits) {
      const int thread = static_cast<int>(threadIdx.x);
      adam_update(adam, *adam_, batch_sum(d + thread, ld), out_bias_.value, out_bias_.m,
                  out_bias_.v);
      run_.out.bias[p_.out0 + thread] = out_bias_.value;
    }
  }

  // P6. dW0 = d(h1)^T x, and Adam.
  __device__ void update_encode(int step) {
    // The next step's rows, if nothing else has waited for copies since they were asked for.
    if (!p_.decodes && !p_.backs) device::cp_async_wait<0>();
    // With the batch, whose rows are the terms, side by side.
    const int ld = l_.owner.dh1_ld;
    float* const d = slabs();
    for (int i = static_cast<int>(threadIdx.x); i < l_.rows * (Layout::encode_tile / 4);
         i += Layout::threads) {
      const int b = i / (Layout::encode_tile / 4);
      const int unit = i % (Layout::encode_tile / 4) * 4;
      const float4 four = b < batch()
                              ? four_terms(run_.dh1 + static_cast<std::int64_t>(b) * l_.encoder_ld +
                                           p_.unit0 + unit)
                              : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
      for (int j = 0; j < 4; ++j) d[(unit + j) * ld + b] = element_of(four, j);
    }
    __syncthreads();
    if (*run_.adam.commit == 0) return;
    sum_rows(d, ld, batch());
    const std::uint8_t* const bytes = x(step);
    const int x_ld = l_.owner.x_ld;
    const int group = TilePlace().group;
    const int column0 = encode_column(0, group);
    const int column4 = encode_column(4, group);
    const bool within = column0 < l_.encode.piece;
    const bool fifth = fours + warp() * 8 < l_.encode.piece;  // a warp has it or has it not
    const auto load_d = [=](int k, float4(&rows)[2]) {
#pragma unroll
      for (int half = 0; half < 2; ++half) rows[half] = four_terms(d + (group + 8 * half) * ld + k);
    };
    float sum[Layout::encode_slots][4] = {};
    static_assert(Layout::encode_slots == 5);
    float fours_sum[4][4] = {};
    warp_product<Format, false, true>(fours_sum, l_.rows, load_d, [=](int k, float4(&columns)[4]) {
      const std::uint8_t* const from = bytes + k * x_ld + column0;
      const auto word = [&](int i) {
        return within ? *reinterpret_cast<const std::uint32_t*>(from + i * x_ld) : 0u;
      };
      const std::uint32_t words[4] = {word(0), word(1), word(2), word(3)};
#pragma unroll
      for (int j = 0; j < 4; ++j)
        columns[j] =
            make_float4(device::float_of_byte(words[0], j), device::float_of_byte(words[1], j),
                        device::float_of_byte(words[2], j), device::float_of_byte(words[3], j));
    });
#pragma unroll
    for (int slot = 0; slot < 4; ++slot)
#pragma unroll
      for (int element = 0; element < 4; ++element) sum[slot][element] = fours_sum[slot][element];
    if (fifth) {
      float last[1][4] = {};
      warp_product<Format, false, true>(last, l_.rows, load_d, [=](int k, float4(&columns)[1]) {
        const std::uint8_t* const from = bytes + k * x_ld + column4;
        columns[0] =
            make_float4(static_cast<float>(from[0]), static_cast<float>(from[x_ld]),
                        static_cast<float>(from[2 * x_ld]), static_cast<float>(from[3 * x_ld]));
      });
#pragma unroll
      for (int element = 0; element < 4; ++element) sum[4][element] = last[0][element];
    }
    const Adam adam = adam_of_step(run_, step);
    const TilePlace at;
    float* const w = weight() + at.group * l_.owner.weight_ld;
#pragma unroll
    for (int slot = 0; slot < Layout::encode_slots; ++slot) {
      if (slot == 4 && !fifth) continue;
#pragma unroll
      for (int element = 0; element < 4; ++element) {
        const int column = encode_column(slot, at.column(element));
        if (at.row(element) >= p_.units || column >= p_.inputs) continue;
        adam_update<FastRoots>(adam, *adam_, unshifted(sum[slot][element], at.row(element)),
                               w[element / 2 * 8 * l_.owner.weight_ld + column],
                               encode_moments_.m[slot][element], encode_moments_.v[slot][element]);
      }
    }
    if (holds_encode_bias()) {
      const int thread = static_cast<int>(threadIdx.x);
      adam_update(adam, *adam_, batch_sum(d + thread * ld, 1), encode_bias_.value, encode_bias_.m,
                  encode_bias_.v);
      run_.encode.bias[p_.unit0 + thread] = encode_bias_.value;
    }
    __syncthreads();  // the weights are whole again
  }

  const PersistentRun& run_;
  const Layout& l_;
  unsigned char* shared_;
  const OwnerPlace& p_;
  AdamStep* adam_;
  float* sums_;
  Moments<Layout::encode_slots> encode_moments_;
  Moments<Layout::decode_slots> out_moments_;
  BiasElement encode_bias_;
  BiasElement out_bias_;
};

}  // namespace CUVAE_KERNELS
