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

template <class Format>
class Owner {
 public:
  // `place` and `adam` are shared; place holds this block's.
  __device__ __forceinline__ Owner(const PersistentRun& run, unsigned char* shared,
                                   const OwnerPlace* place, AdamStep* adam)
      : run_(run), l_(run.layout), shared_(shared), p_(*place), adam_(adam) {}

  __device__ void train() {
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
      if (!between_steps(step)) return;
      if (!await(run_, counter(run_, Counter::decoded), round * static_cast<unsigned>(l_.middles)))
        return;
      if (p_.decodes && !decode(step)) return;
      if (!await(run_, counter(run_, Counter::graded),
                 round * static_cast<unsigned>(l_.decode.blocks())))
        return;
      if (p_.backs) {
        back();
        arrive(counter(run_, Counter::returned));
      }
      if (p_.decodes) {
        update_out(step);
        arrive(counter(run_, Counter::updated));
      }
      if (!await(run_, counter(run_, Counter::finished), round * static_cast<unsigned>(l_.middles)))
        return;
      if (p_.encodes) update_encode(step);
      if (stops_after(run_, step)) break;
    }
    __syncthreads();
    store();
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

  // Elements of dW0 in a thread's registers: tiles of 8 inputs, warp after warp.
  __device__ __forceinline__ std::int64_t encode_place(int slot, int element) const {
    const TilePlace at;
    const int row = at.row(element);
    const int column = (warp() + slot * Layout::warps) * 8 + at.column(element);
    if (!p_.encodes || row >= p_.units || column >= p_.inputs) return -1;
    return static_cast<std::int64_t>(p_.unit0 + row) * l_.sizes.in + p_.input0 + column;
  }
  // Of dW3: the tile's two halves of 16 outputs go to even and odd warps.
  __device__ __forceinline__ int out_row(int element) const {
    return warp() % 2 * 16 + TilePlace().row(element);
  }
  __device__ __forceinline__ int out_column(int slot, int element) const {
    return (warp() / 2 + slot * (Layout::warps / 2)) * 8 + TilePlace().column(element);
  }
  __device__ __forceinline__ std::int64_t out_place(int slot, int element) const {
    const int row = out_row(element);
    const int column = out_column(slot, element);
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
      copy(back_weight(), l_.owner.back_ld,
           run_.out.weight + static_cast<std::int64_t>(p_.back_out0) * l_.sizes.decoder + p_.back0,
           l_.sizes.decoder, p_.back_outs, min(Layout::back_tile, l_.sizes.decoder - p_.back0));
    encode_moments_.load(run_.encode, [this](int s, int e) { return encode_place(s, e); });
    out_moments_.load(run_.out, [this](int s, int e) { return out_place(s, e); });
    if (holds_encode_bias()) encode_bias_.load(run_.encode, p_.unit0 + thread);
    if (holds_out_bias()) out_bias_.load(run_.out, p_.out0 + thread);
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

  // P1. The parts of 16 hidden units.
  __device__ void encode(int step) {
    const std::uint8_t* const bytes = x(step);
    const int ld = l_.owner.weight_ld;
    float* parts = run_.encode_parts +
                   static_cast<std::int64_t>(p_.input0 / l_.encode.piece) * batch() * l_.encoder_ld;
    for (int b0 = warp() * 16; b0 < batch(); b0 += Layout::warps * 16) {
      float sum[2][4] = {};
      warp_product<Format>(
          sum, l_.encode.piece,
          [=, this](int row, int k) { return scaled(bytes[(b0 + row) * l_.owner.x_ld + k]); },
          [=, this](int j, int row, int k) { return weight()[(8 * j + row) * ld + k]; });
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
      device::store_release(counter(run_, Counter::limit), static_cast<unsigned>(step) + 2);
    if (p_.backs && step > 0) {
      if (!await(run_, counter(run_, Counter::updated),
                 static_cast<unsigned>(step) * static_cast<unsigned>(l_.decode.blocks())))
        return false;
      const float* from =
          run_.out_copy +
          (static_cast<std::int64_t>(step % 2) * l_.out_ld + p_.back_out0) * l_.decoder_ld +
          p_.back0;
      fetch(back_weight(), l_.owner.back_ld, from, l_.decoder_ld, p_.back_outs, Layout::back_tile);
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
    for (int b0 = warp() * 16; b0 < batch(); b0 += Layout::warps * 16) {
      float sum[4][4] = {};
      warp_product<Format>(
          sum, l_.decode.piece, [=, this](int row, int k) { return hidden()[(b0 + row) * ld + k]; },
          [=, this](int j, int row, int k) { return out_weight()[(8 * j + row) * ld + k]; });
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
    const int slab_floats = l_.owner.slab_bytes / static_cast<int>(sizeof(float));
    const int ld = l_.owner.slab_ld;
    const int terms = (p_.back_outs + product_terms - 1) / product_terms * product_terms;
    const int count = (terms + Layout::slab - 1) / Layout::slab;
    const auto ask = [&](int slab) {
      if (slab < count)
        fetch(slabs() + slab % 2 * slab_floats, ld,
              run_.dlogits + p_.back_out0 + slab * Layout::slab, l_.out_ld, batch(),
              min(Layout::slab, terms - slab * Layout::slab));
      device::cp_async_commit();
    };
    float* parts = run_.back_parts + static_cast<std::int64_t>(p_.back_out0 / l_.back.piece) *
                                         batch() * l_.decoder_ld;
    constexpr int passes = 1;  // of 128 rows, whose sums are kept while the slabs go by
    for (int pass0 = 0; pass0 < batch(); pass0 += passes * Layout::warps * 16) {
      float sum[passes][2][4] = {};
      ask(0);
      for (int slab = 0; slab < count; ++slab) {
        ask(slab + 1);
        device::cp_async_wait<1>();
        __syncthreads();
        const float* d = slabs() + slab % 2 * slab_floats;
        const int k0 = slab * Layout::slab;
#pragma unroll
        for (int pass = 0; pass < passes; ++pass) {
          const int b0 = pass0 + (pass * Layout::warps + warp()) * 16;
          if (b0 < batch())
            warp_product<Format>(
                sum[pass], min(Layout::slab, terms - k0),
                [=](int row, int k) { return d[(b0 + row) * ld + k]; },
                [=, this](int j, int row, int k) {
                  return back_weight()[(k0 + k) * l_.owner.back_ld + 8 * j + row];
                });
        }
        __syncthreads();  // the slab gives its place to the next but one
      }
#pragma unroll
      for (int pass = 0; pass < passes; ++pass)
        put(sum[pass], parts, l_.decoder_ld, pass0 + (pass * Layout::warps + warp()) * 16,
            p_.back0);
    }
    device::cp_async_wait<0>();
  }

  // The sum of a column over the batch.
  __device__ __forceinline__ float column_sum(const float* matrix, int ld, int column) const {
    float sum = 0.0f;
    for (int b = 0; b < batch(); ++b) sum += matrix[b * ld + column];
    return sum;
  }

  // dW3 = d(logits)^T h2, Adam, and the copy for the other blocks.
  __device__ void update_out(int step) {
    const int ld = l_.owner.slab_ld;
    const int hidden_ld = l_.owner.out_ld;
    fetch(slabs(), ld, run_.dlogits + p_.out0, l_.out_ld, batch(), Layout::decode_tile);
    device::cp_async_commit();
    device::cp_async_wait<0>();
    __syncthreads();
    const bool commits = *run_.adam.commit != 0;
    float sum[Layout::decode_slots][4] = {};
    const int m0 = warp() % 2 * 16;
    warp_product<Format>(
        sum, l_.rows, [=, this](int row, int k) { return slabs()[k * ld + m0 + row]; },
        [=, this](int slot, int row, int k) {
          const int column = (warp() / 2 + slot * (Layout::warps / 2)) * 8 + row;
          return column < l_.decode.piece ? hidden()[k * hidden_ld + column] : 0.0f;
        });
    float* to = run_.out_copy +
                (static_cast<std::int64_t>((step + 1) % 2) * l_.out_ld + p_.out0) * l_.decoder_ld +
                p_.part0;
    const Adam adam = adam_of_step(run_, step);
#pragma unroll
    for (int slot = 0; slot < Layout::decode_slots; ++slot)
#pragma unroll
      for (int element = 0; element < 4; ++element) {
        if (out_place(slot, element) < 0) continue;
        const int row = out_row(element);
        const int column = out_column(slot, element);
        float& w = out_weight()[row * hidden_ld + column];
        if (commits)
          adam_update(adam, *adam_, sum[slot][element], w, out_moments_.m[slot][element],
                      out_moments_.v[slot][element]);
        to[static_cast<std::int64_t>(row) * l_.decoder_ld + column] = w;
      }
    if (holds_out_bias() && commits) {
      const int thread = static_cast<int>(threadIdx.x);
      adam_update(adam, *adam_, column_sum(slabs(), ld, thread), out_bias_.value, out_bias_.m,
                  out_bias_.v);
      run_.out.bias[p_.out0 + thread] = out_bias_.value;
    }
  }

  // P6. dW0 = d(h1)^T x, and Adam.
  __device__ void update_encode(int step) {
    const int ld = l_.owner.slab_ld;  // rows beyond the batch stay zero
    fetch(slabs(), ld, run_.dh1 + p_.unit0, l_.encoder_ld, batch(), Layout::encode_tile);
    device::cp_async_commit();
    device::cp_async_wait<0>();
    __syncthreads();
    if (*run_.adam.commit == 0) return;
    const std::uint8_t* const bytes = x(step);
    const int x_ld = l_.owner.x_ld;
    const Adam adam = adam_of_step(run_, step);
    float sum[Layout::encode_slots][4] = {};
    warp_product<Format>(
        sum, l_.rows, [=, this](int row, int k) { return slabs()[k * ld + row]; },
        [=, this](int slot, int row, int k) {
          const int column = (warp() + slot * Layout::warps) * 8 + row;
          return column < l_.encode.piece ? scaled(bytes[k * x_ld + column]) : 0.0f;
        });
#pragma unroll
    for (int slot = 0; slot < Layout::encode_slots; ++slot)
#pragma unroll
      for (int element = 0; element < 4; ++element) {
        if (encode_place(slot, element) < 0) continue;
        const int row = TilePlace().row(element);
        const int column = (warp() + slot * Layout::warps) * 8 + TilePlace().column(element);
        adam_update(adam, *adam_, sum[slot][element], weight()[row * l_.owner.weight_ld + column],
                    encode_moments_.m[slot][element], encode_moments_.v[slot][element]);
      }
    if (holds_encode_bias()) {
      const int thread = static_cast<int>(threadIdx.x);
      adam_update(adam, *adam_, column_sum(slabs(), ld, thread), encode_bias_.value, encode_bias_.m,
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
  Moments<Layout::encode_slots> encode_moments_;
  Moments<Layout::decode_slots> out_moments_;
  BiasElement encode_bias_;
  BiasElement out_bias_;
};

}  // namespace CUVAE_KERNELS
