#pragma once
// Blocks that hold the wide weights: the first layer's and the last one's.

#include "kernels/persistent.cuh"

namespace CUVAE_KERNELS {

// Which parts of the wide weights a block owns. In shared memory: registers are for moments.
struct OwnerPlace {
  bool encodes, decodes, backs;
  int unit0, units, input_piece, input0, inputs;  // of the first layer's weight
  int out_tile, out_piece, out0, outs;            // of the last layer's
  int part0, parts, part_terms;                   // ...: hidden units; with their padding
  int share0, share_end;                        // ...: rows of the batch whose likelihood it takes
  int back0, back_piece, back_out0, back_outs;  // of the copy for the data gradient
};

__device__ __forceinline__ OwnerPlace owner_place(const Layout& l, int block) {
  OwnerPlace p;
  p.encodes = block < l.encode.blocks();
  p.decodes = block < l.decode.blocks();
  p.backs = block < l.back.blocks();
  p.unit0 = block / l.encode.pieces * Layout::encode_tile;
  p.input_piece = block % l.encode.pieces;
  p.input0 = p.input_piece * l.encode.piece;
  p.units = min(Layout::encode_tile, l.sizes.encoder - p.unit0);
  p.inputs = min(l.encode.piece, l.sizes.in - p.input0);
  p.out_tile = block / l.decode.pieces;
  p.out_piece = block % l.decode.pieces;
  p.out0 = p.out_tile * Layout::decode_tile;
  p.outs = min(Layout::decode_tile, l.sizes.in - p.out0);
  p.part0 = p.out_piece * l.decode.piece;
  p.parts = min(l.decode.piece, l.sizes.decoder - p.part0);
  p.part_terms = min(l.decode.piece, l.decoder_ld - p.part0);
  const int share = (l.sizes.batch + l.decode.pieces - 1) / l.decode.pieces;
  p.share0 = min(l.sizes.batch, p.out_piece * share);
  p.share_end = min(l.sizes.batch, p.share0 + share);
  p.back0 = block / l.back.pieces * Layout::back_tile;
  p.back_piece = block % l.back.pieces;
  p.back_out0 = p.back_piece * l.back.piece;
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
        sums_(small->sums),
        commits_(*run.adam.commit != 0) {}

  // False: some block waited in vain.
  __device__ __forceinline__ bool train() {
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
      const bool stops = stops_after(run_, step);  // asked for before it is wanted
      if (p_.encodes) update_encode(step);
      if (stops) break;
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
  [[nodiscard]] __device__ __forceinline__ float* grads() const {
    return shared_at<float>(shared_, l_.owner.grads);
  }
  [[nodiscard]] __device__ __forceinline__ std::int64_t* source(int step) const {
    return shared_at<std::int64_t>(shared_, l_.owner.source) + step % 2 * l_.rows;
  }

  // Elements of dW0 in a thread's registers. Four tiles of a warp have their columns in turn, so
  // that a lane's four lie side by side; the last tile is of what is left behind all warps' fours.
  static constexpr int fours = Layout::warps * 32;
  [[nodiscard]] __device__ __forceinline__ static int encode_column(int slot, int column,
                                                                    int of = warp()) {
    return slot < 4 ? of * 32 + column * 4 + slot : fours + of * 8 + column;
  }
  __device__ __forceinline__ std::int64_t encode_place(int slot, int element, int thread) const {
    const TilePlace at{thread % 32 / 4, thread % 4};
    const int row = at.row(element);
    const int column = encode_column(slot, at.column(element), thread / 32);
    if (!p_.encodes || row >= p_.units || column >= p_.inputs) return -1;
    return static_cast<std::int64_t>(p_.unit0 + row) * l_.sizes.in + p_.input0 + column;
  }
  // Of dW3: the tile's two halves of 16 outputs go to even and odd warps; columns likewise.
  __device__ __forceinline__ static int out_row(int element, const TilePlace& at, int of = warp()) {
    return of % 2 * 16 + at.row(element);
  }
  __device__ __forceinline__ static int out_column(int slot, int column, int of = warp()) {
    return of / 2 * 32 + column * 4 + slot;
  }
  __device__ __forceinline__ std::int64_t out_place(int slot, int element, int thread) const {
    const TilePlace at{thread % 32 / 4, thread % 4};
    const int row = out_row(element, at, thread / 32);
    const int column = out_column(slot, at.column(element), thread / 32);
    if (!p_.decodes || row >= p_.outs || column >= p_.parts) return -1;
    return static_cast<std::int64_t>(p_.out0 + row) * l_.sizes.decoder + p_.part0 + column;
  }

  // Two units for each warp.
  [[nodiscard]] __device__ __forceinline__ int bias_unit() const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return warp() + lane * Layout::warps;
  }
  [[nodiscard]] __device__ __forceinline__ bool holds_encode_bias() const {
    return p_.encodes && p_.input0 == 0 && bias_unit() < p_.units;
  }
  [[nodiscard]] __device__ __forceinline__ bool holds_out_bias() const {
    return p_.decodes && p_.part0 == 0 && static_cast<int>(threadIdx.x) < p_.outs;
  }

  __device__ __forceinline__ void load() {
    const int thread = static_cast<int>(threadIdx.x);
    const auto keep = [](float x) { return stored<Format>(x); };
    clear_weight<Format>(weight(), Layout::encode_tile * l_.owner.weight_ld);
    clear_weight<Format>(out_weight(), Layout::decode_tile * l_.owner.out_ld);
    __syncthreads();
    if (p_.encodes)
      copy(weight(), l_.owner.weight_ld,
           run_.encode.weight + static_cast<std::int64_t>(p_.unit0) * l_.sizes.in + p_.input0,
           l_.sizes.in, p_.units, p_.inputs, keep);
    if (p_.decodes)
      copy(out_weight(), l_.owner.out_ld,
           run_.out.weight + static_cast<std::int64_t>(p_.out0) * l_.sizes.decoder + p_.part0,
           l_.sizes.decoder, p_.outs, p_.parts, keep);
    if (p_.backs) {
      const float* const from =
          run_.out.weight + static_cast<std::int64_t>(p_.back_out0) * l_.sizes.decoder + p_.back0;
      const int units = min(Layout::back_tile, l_.sizes.decoder - p_.back0);
#pragma unroll 1
      for (int i = thread; i < p_.back_outs * Layout::back_tile; i += Layout::threads) {
        const int out = i / Layout::back_tile;
        const int unit = i % Layout::back_tile;
        if (unit < units)
          back_weight()[unit * l_.owner.back_ld + out] =
              keep(from[static_cast<std::int64_t>(out) * l_.sizes.decoder + unit]);
      }
    }
    encode_moments_.load(run_.encode,
                         [=, this](int s, int e) { return encode_place(s, e, thread); });
    out_moments_.load(run_.out, [=, this](int s, int e) { return out_place(s, e, thread); });
    if (holds_encode_bias()) encode_bias_.load(run_.encode, p_.unit0 + bias_unit());
    if (holds_out_bias()) out_bias_.load(run_.out, p_.out0 + thread);
  }

  // The tile for the data gradient as the owners have left it, turned: its terms are the outputs.
  __device__ __forceinline__ void fetch_back_weight(int step) {
    const int ld = l_.owner.back_ld;
    const float* const from =
        run_.out_copy +
        (static_cast<std::int64_t>(step % 2) * l_.out_ld + p_.back_out0) * l_.decoder_ld + p_.back0;
    constexpr int parts = Layout::back_tile / 4;
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < p_.back_outs * parts; i += Layout::threads) {
      const int out = i / parts;
      const int unit = i % parts * 4;
      const float4 four = four_terms(from + static_cast<std::int64_t>(out) * l_.decoder_ld + unit);
#pragma unroll
      for (int j = 0; j < 4; ++j) back_weight()[(unit + j) * ld + out] = element_of(four, j);
    }
  }

  __device__ __forceinline__ void store() const {
    const int thread = static_cast<int>(threadIdx.x);
    const auto give = [](float kept) { return original<Format>(kept); };
    if (p_.encodes)
      copy(run_.encode.weight + static_cast<std::int64_t>(p_.unit0) * l_.sizes.in + p_.input0,
           l_.sizes.in, weight(), l_.owner.weight_ld, p_.units, p_.inputs, give);
    if (p_.decodes)
      copy(run_.out.weight + static_cast<std::int64_t>(p_.out0) * l_.sizes.decoder + p_.part0,
           l_.sizes.decoder, out_weight(), l_.owner.out_ld, p_.outs, p_.parts, give);
    // Places anew, or they would be kept in registers since load().
    const int anew = device::opaque(thread);
    encode_moments_.store(run_.encode,
                          [=, this](int s, int e) { return encode_place(s, e, anew); });
    out_moments_.store(run_.out, [=, this](int s, int e) { return out_place(s, e, anew); });
    if (holds_encode_bias()) encode_bias_.store(run_.encode, p_.unit0 + bias_unit());
    if (holds_out_bias()) out_bias_.store(run_.out, p_.out0 + thread);
  }

  // Asks for this block's columns of the rows of a batch, and notes which rows they are.
  __device__ __forceinline__ void ask_for_rows(int step) {
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
        const Spread spread(chunks);
        for (int chunk = spread.piece(); chunk < chunks; chunk += spread.pieces_at_once()) {
          std::uint8_t* const to = bytes + chunk * 16;
          const std::uint8_t* const from = run_.window + p_.input0 + chunk * 16;
#pragma unroll 4
          for (int b = spread.row(); b < batch(); b += spread.rows_at_once())
            device::cp_async16(to + b * ld, from + rows[b] * l_.sizes.in);
        }
      } else {
#pragma unroll 1
        for (int i = static_cast<int>(threadIdx.x); i < batch() * p_.inputs; i += Layout::threads)
          bytes[i / p_.inputs * ld + i % p_.inputs] =
              run_.window[rows[i / p_.inputs] * l_.sizes.in + p_.input0 + i % p_.inputs];
      }
    }
    device::cp_async_commit();
  }

  // Products take the bytes themselves, which all formats hold exactly; sums are given the scale,
  // and what the shift adds to them: sum (byte - shift) w = sum byte w - shift sum w.
  __device__ __forceinline__ static float4 four_bytes(std::uint32_t word) {
    return make_float4(device::float_of_byte(word, 0), device::float_of_byte(word, 1),
                       device::float_of_byte(word, 2), device::float_of_byte(word, 3));
  }
  // Sums of 16 rows as the product sees them, for the shift.
  __device__ __forceinline__ void sum_terms(const float* matrix, int ld, int count) {
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
  // Sums with bytes, of rows that `row(j, element)` names, as sums with what the bytes mean.
  template <int tiles, class Row>
  __device__ __forceinline__ void unshift(float (&sum)[tiles][4], Row row) const {
    if (run_.shift != 0.0f)
#pragma unroll
      for (int j = 0; j < tiles; ++j)
#pragma unroll
        for (int element = 0; element < 4; ++element)
          sum[j][element] -= run_.shift * sums_[row(j, element)];
#pragma unroll
    for (int j = 0; j < tiles; ++j)
#pragma unroll
      for (int element = 0; element < 4; ++element) sum[j][element] *= run_.scale;
  }

  // P1. The parts of 16 hidden units.
  __device__ __forceinline__ void encode(int step) {
    sum_terms(weight(), l_.owner.weight_ld, p_.inputs);
    const TilePlace at;
    const int ld = l_.owner.weight_ld;
    const int x_ld = l_.owner.x_ld;
    const float* const w0 = weight() + at.group * ld;
    const float* const w1 = w0 + 8 * ld;
    float* const parts = run_.encode_parts + p_.input_piece * batch() * l_.encoder_ld;
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
      unshift(sum, [&](int j, int element) { return 8 * j + at.column(element); });
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
  __device__ __forceinline__ bool between_steps(int step) {
    if (threadIdx.x == Layout::threads - 1) *adam_ = adam_step(adam_of_step(run_, step));
    if (blockIdx.x == 0 && threadIdx.x == 32 && step % 8 == 0 &&
        device::load_from_host(run_.stop) != 0)
      device::store_relaxed(counter(run_, Counter::limit), static_cast<unsigned>(step) + 2);
    if (p_.backs && step > 0) {
      if (!await(run_, counter(run_, Counter::updated),
                 static_cast<unsigned>(step) * static_cast<unsigned>(l_.decode.blocks())))
        return false;
      fetch_back_weight(step);
    }
    if (step + 1 < run_.steps) ask_for_rows(step + 1);
    return true;
  }

  // P3. Logits from the parts of all pieces of the hidden layer, and what follows for this block's
  // share of the batch.
  __device__ __forceinline__ bool decode(int step) {
    const int ld = l_.owner.out_ld;
    const int group = TilePlace().group;
    const float* const w = out_weight() + group * ld;
    for (int b0 = warp() * 16; b0 < batch(); b0 += Layout::warps * 16) {
      float sum[4][4] = {};
      far_product<Format, far_depth>(sum, p_.part_terms,
                                     batch_row(run_.h2 + p_.part0, l_.decoder_ld, b0 + group),
                                     batch_row(run_.h2 + p_.part0, l_.decoder_ld, b0 + group + 8),
                                     [=](int k, float4(&columns)[4]) {
#pragma unroll
                                       for (int j = 0; j < 4; ++j)
                                         columns[j] = four_terms(w + 8 * j * ld + k);
                                     });
      put(sum, run_.logit_parts + p_.out_piece * batch() * l_.out_ld, l_.out_ld, b0, p_.out0);
    }
    unsigned* exchanged = counter(run_, Counter::logits, p_.out_tile);
    arrive(exchanged);
    // What is far away, before the wait: h2 for dW3, and the targets of eight threads a row.
    fetch(hidden(), ld, run_.h2 + p_.part0, l_.decoder_ld, batch(), p_.part_terms);
    device::cp_async_commit();
    constexpr int rows_at_once = Layout::threads / 8;
    static_assert(Layout::decode_tile == 32);
    const int column = static_cast<int>(threadIdx.x) % 8 * 4;
    const int first = p_.share0 + static_cast<int>(threadIdx.x) / 8;
    std::uint32_t target = targets(step, first, column);
    const float dnll = run_.dnll.at(run_.hyper + 2 * step);
    if (!await(run_, exchanged,
               (static_cast<unsigned>(step) + 1) * static_cast<unsigned>(l_.decode.pieces)))
      return false;
    float bias[4];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      bias[j] = column + j < p_.outs ? run_.out.bias[p_.out0 + column + j] : 0.0f;
    for (int b = first; b - first < p_.share_end - p_.share0; b += rows_at_once) {
      if (b > first) target = targets(step, b, column);
      const bool mine = b < p_.share_end;
      const int at[1] = {(mine ? b : first) * l_.out_ld + p_.out0 + column};
      float nll = 0.0f;
      if (mine) {
        float4 sum[1];
        add_parts<4>(sum, run_.logit_parts, at, batch() * l_.out_ld, l_.decode.pieces);
        float grad[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float logit = element_of(sum[0], j) + bias[j];
          const float x = (device::float_of_byte(target, j) - run_.shift) * run_.scale;
          const NllTerm term = run_.bernoulli ? bernoulli_term<FastFunctions>(logit, x)
                                              : gaussian_term(logit, x, run_.inverse_sigma);
          const bool exists = column + j < p_.outs;
          grad[j] = stored<Format>(exists ? dnll * term.grad : 0.0f);
          nll += exists ? term.nll : 0.0f;
        }
        *reinterpret_cast<float4*>(run_.dlogits + at[0]) =
            make_float4(grad[0], grad[1], grad[2], grad[3]);
      }
#pragma unroll
      for (int offset = 4; offset > 0; offset /= 2) nll += __shfl_xor_sync(~0u, nll, offset);
      if (mine && column == 0)
        run_.nll_parts[static_cast<std::int64_t>(p_.out_tile) * batch() + b] = nll;
    }
    // h2 is here before the middles may learn that they can write the next one.
    device::cp_async_wait<0>();
    arrive(counter(run_, Counter::graded));
    return true;
  }

  // How many slabs of a far operand are on their way at once.
  static constexpr int far_depth = 2;

  // Row b of a matrix of the batch; beyond it any, for sums that nobody reads.
  [[nodiscard]] __device__ __forceinline__ const float* batch_row(const float* matrix, int ld,
                                                                  int b) const {
    return matrix + static_cast<std::int64_t>(min(b, batch() - 1)) * ld;
  }

  // The bytes of four outputs, from `column` of the tile on, in row b of the batch.
  [[nodiscard]] __device__ __forceinline__ std::uint32_t targets(int step, int b,
                                                                 int column) const {
    if (b >= p_.share_end) return 0;
    const std::uint8_t* const from = run_.window + source(step)[b] * l_.sizes.in + p_.out0 + column;
    std::uint32_t word = 0;
    if (run_.whole_rows) {  // four outputs exist or none
      if (column < p_.outs) word = *reinterpret_cast<const std::uint32_t*>(from);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (column + j < p_.outs) word |= static_cast<std::uint32_t>(from[j]) << 8 * j;
    }
    return word;
  }

  // P4. The gradient of 16 hidden units of the decoder, over this block's piece of the outputs.
  __device__ __forceinline__ void back() {
    const int group = TilePlace().group;
    const int ld = l_.owner.back_ld;
    const int terms = (p_.back_outs + product_terms - 1) / product_terms * product_terms;
    const float* const w = back_weight() + group * ld;
    const float* const d = run_.dlogits + p_.back_out0;
    float* const parts = run_.back_parts + p_.back_piece * batch() * l_.decoder_ld;
    for (int b0 = warp() * 16; b0 < batch(); b0 += Layout::warps * 16) {
      float sum[2][4] = {};
      far_product<Format, far_depth>(sum, terms, batch_row(d, l_.out_ld, b0 + group),
                                     batch_row(d, l_.out_ld, b0 + group + 8),
                                     [=](int k, float4(&columns)[2]) {
                                       columns[0] = four_terms(w + k);
                                       columns[1] = four_terms(w + 8 * ld + k);
                                     });
      put(sum, parts, l_.decoder_ld, b0, p_.back0);
    }
  }

  // Zeroes the rows beyond the batch of a matrix that others have used the place of.
  __device__ __forceinline__ void clear_rows(float* matrix, int ld) const {
    for (int i = batch() * ld + static_cast<int>(threadIdx.x); i < l_.rows * ld;
         i += Layout::threads)
      matrix[i] = 0.0f;
  }

  // Adam for four weights side by side, as they are kept.
  template <int slots>
  __device__ __forceinline__ void update_four(const Adam& adam, float* at, const float (&sum)[4][4],
                                              int element, Moments<slots>& moments) {
    const float4 kept = *reinterpret_cast<const float4*>(at);
    float w[4] = {kept.x, kept.y, kept.z, kept.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      w[j] = original<Format>(w[j]);
      adam_update<FastRoots>(adam, *adam_, sum[j][element], w[j], moments.m[j][element],
                             moments.v[j][element]);
      w[j] = stored<Format>(w[j]);
    }
    *reinterpret_cast<float4*>(at) = make_float4(w[0], w[1], w[2], w[3]);
  }

  // dW3 = d(logits)^T h2, Adam, and the copy for the other blocks. What lies beyond the sizes is
  // zero and has no gradient: it stays zero.
  __device__ __forceinline__ void update_out(int step) {
    const int ld = l_.owner.dlogits_ld;
    const int hidden_ld = l_.owner.out_ld;
    const float* const d = grads();
    clear_rows(grads(), ld);
    fetch(grads(), ld, run_.dlogits + p_.out0, l_.out_ld, batch(), Layout::decode_tile);
    device::cp_async_commit();
    device::cp_async_wait<0>();
    __syncthreads();
    // The tiles of a warp have their columns in turn, four side by side for each lane.
    const TilePlace at;
    float sum[Layout::decode_slots][4] = {};
    static_assert(Layout::decode_slots == 4);
    if (out_column(0, 0) < p_.part_terms) {
      const int m0 = warp() % 2 * 16 + at.group;
      const float* const h = hidden() + min(out_column(0, at.group), p_.part_terms - 4);
      warp_product<Format>(
          sum, l_.rows,
          [=](int k, float4(&rows)[2]) {
#pragma unroll
            for (int half = 0; half < 2; ++half)
              rows[half] = four_terms(d + k * ld + m0 + 8 * half, ld);
          },
          [=](int k, float4(&columns)[Layout::decode_slots]) {
            const float* const from = h + k * hidden_ld;
            const float4 t0 = four_terms(from);
            const float4 t1 = four_terms(from + hidden_ld);
            const float4 t2 = four_terms(from + 2 * hidden_ld);
            const float4 t3 = four_terms(from + 3 * hidden_ld);
#pragma unroll
            for (int j = 0; j < 4; ++j)
              columns[j] = make_float4(element_of(t0, j), element_of(t1, j), element_of(t2, j),
                                       element_of(t3, j));
          });
    }
    float* const to =
        run_.out_copy +
        (static_cast<std::int64_t>((step + 1) % 2) * l_.out_ld + p_.out0) * l_.decoder_ld +
        p_.part0;
    const Adam adam = adam_of_step(run_, step);
#pragma unroll
    for (int element = 0; element < 4; ++element) {
      const int row = out_row(element, at);
      const int column = out_column(0, at.column(element));
      if (column >= p_.part_terms) continue;
      float* const w = out_weight() + row * hidden_ld + column;
      if (commits_) update_four(adam, w, sum, element, out_moments_);
      *reinterpret_cast<float4*>(to + static_cast<std::int64_t>(row) * l_.decoder_ld + column) =
          *reinterpret_cast<const float4*>(w);
    }
    if (holds_out_bias() && commits_) {
      const int thread = static_cast<int>(threadIdx.x);
      float bias_sum = 0.0f;
      for (int b = 0; b < batch(); ++b) bias_sum += original<Format>(d[b * ld + thread]);
      adam_update<FastRoots>(adam, *adam_, bias_sum, out_bias_.value, out_bias_.m, out_bias_.v);
      run_.out.bias[p_.out0 + thread] = out_bias_.value;
    }
  }

  // P6. dW0 = d(h1)^T x, and Adam.
  __device__ __forceinline__ void update_encode(int step) {
    const int ld = l_.owner.dh1_ld;
    float* const d = grads();
    fetch(d, ld, run_.dh1 + static_cast<std::int64_t>(p_.unit0) * l_.rows, l_.rows,
          Layout::encode_tile, l_.rows);
    device::cp_async_commit();
    device::cp_async_wait<0>();  // and the next step's rows, asked for long ago
    __syncthreads();
    if (!commits_) return;
    sum_terms(d, ld, batch());
    const std::uint8_t* const bytes = x(step);
    const int x_ld = l_.owner.x_ld;
    const int group = TilePlace().group;
    const bool fifth = fours + warp() * 8 < l_.encode.piece;  // a warp has it or has it not
    const auto load_d = [=](int k, float4(&rows)[2]) {
#pragma unroll
      for (int half = 0; half < 2; ++half) rows[half] = four_terms(d + (group + 8 * half) * ld + k);
    };
    static_assert(Layout::encode_slots == 5);
    float sum[4][4] = {};
    float last[1][4] = {};
    if (encode_column(0, 0) < l_.encode.piece) {
      const std::uint8_t* const x0 = bytes + min(encode_column(0, group), l_.encode.piece - 4);
      warp_product<Format, false, true>(sum, l_.rows, load_d, [=](int k, float4(&columns)[4]) {
        const std::uint8_t* const from = x0 + k * x_ld;
        const auto word = [&](int i) {
          return *reinterpret_cast<const std::uint32_t*>(from + i * x_ld);
        };
        const std::uint32_t words[4] = {word(0), word(1), word(2), word(3)};
#pragma unroll
        for (int j = 0; j < 4; ++j)
          columns[j] =
              make_float4(device::float_of_byte(words[0], j), device::float_of_byte(words[1], j),
                          device::float_of_byte(words[2], j), device::float_of_byte(words[3], j));
      });
    }
    if (fifth)
      warp_product<Format, false, true>(last, l_.rows, load_d, [=](int k, float4(&columns)[1]) {
        const std::uint8_t* const from = bytes + k * x_ld + encode_column(4, group);
        columns[0] =
            make_float4(static_cast<float>(from[0]), static_cast<float>(from[x_ld]),
                        static_cast<float>(from[2 * x_ld]), static_cast<float>(from[3 * x_ld]));
      });
    const Adam adam = adam_of_step(run_, step);
    const TilePlace at;
    const auto row_of = [&](int, int element) { return at.row(element); };
    unshift(sum, row_of);
#pragma unroll
    for (int element = 0; element < 4; ++element) {
      const int row = at.row(element);
      const int column = encode_column(0, at.column(element));
      if (column < l_.encode.piece)
        update_four(adam, weight() + row * l_.owner.weight_ld + column, sum, element,
                    encode_moments_);
    }
    if (fifth) {
      unshift(last, row_of);
#pragma unroll
      for (int element = 0; element < 4; ++element) {
        float& kept =
            weight()[at.row(element) * l_.owner.weight_ld + encode_column(4, at.column(element))];
        float w = original<Format>(kept);
        adam_update<FastRoots>(adam, *adam_, last[0][element], w, encode_moments_.m[4][element],
                               encode_moments_.v[4][element]);
        kept = stored<Format>(w);
      }
    }
    if (p_.input0 == 0) {
      float bias_sum = 0.0f;
      sum_rows<Format>(d, ld, Layout::encode_tile, batch(), [&](int row, float total) {
        if (row == bias_unit()) bias_sum = total;
      });
      if (holds_encode_bias()) {
        adam_update<FastRoots>(adam, *adam_, bias_sum, encode_bias_.value, encode_bias_.m,
                               encode_bias_.v);
        run_.encode.bias[p_.unit0 + bias_unit()] = encode_bias_.value;
      }
    }
    __syncthreads();  // the weights are whole again
  }

  const PersistentRun& run_;
  const Layout& l_;
  unsigned char* shared_;
  const OwnerPlace& p_;
  AdamStep* adam_;
  float* sums_;
  bool commits_;
  Moments<Layout::encode_slots> encode_moments_;
  Moments<Layout::decode_slots> out_moments_;
  BiasElement encode_bias_;
  BiasElement out_bias_;
};

}  // namespace CUVAE_KERNELS
