#pragma once
// How the persistent path spreads a training step of a dense VAE over the multiprocessors of a
// GPU. Plain data, for the host and for kernels/persistent*.cuh; made from the model's sizes and
// the device's properties alone.
//
// The model: x [B, in] -> h1 [B, encoder] -> heads [B, 2 latent] -> z [B, latent] -> h2 [B,
// decoder]
// -> logits [B, in]. Two kinds of blocks, one block a multiprocessor:
//  - owners hold the wide weights. An owner has up to three parts: a tile of the first layer's
//    weight with its moments; a tile of the last layer's weight with its moments; and a copy of
//    another tile of the last layer's weight, cut for the data gradient.
//  - middles hold the narrow weights between them, whole, and take 8 rows of the batch each.
// A product whose terms are cut into pieces leaves a part for each piece; who reads them adds them.

#include <cstdint>
#include <optional>
#include <string>

#include "base/host_device.h"
#include "cuda/runtime.h"

namespace cuvae::cuda {

// A matrix cut into tiles of one dimension times pieces of the other.
struct PersistentCut {
  int tile = 0;
  int tiles = 0;
  int piece = 0;  // a multiple of 16
  int pieces = 0;
  [[nodiscard]] constexpr CUVAE_HOST_DEVICE int blocks() const { return tiles * pieces; }
};

struct PersistentSizes {
  int batch = 0;
  int in = 0;
  int encoder = 0;
  int latent = 0;
  int decoder = 0;
};

struct PersistentLayout {
  static constexpr int threads = 256;
  static constexpr int warps = threads / 32;
  static constexpr int encode_tile = 16;  // hidden units of the encoder
  static constexpr int decode_tile = 32;  // outputs
  static constexpr int back_tile = 16;    // hidden units of the decoder
  static constexpr int middle_rows = 8;   // of the batch
  // Register tiles (16 x 8) of moments for each warp, which bound what a block can own.
  static constexpr int encode_slots = 5;
  static constexpr int decode_slots = 4;
  static constexpr int heads_slots = 4;
  static constexpr int hidden_slots = 4;
  static constexpr int latent_slots = 4;  // elements of z for each thread of a middle

  PersistentSizes sizes;
  PersistentCut encode;  // first layer: hidden units x inputs
  PersistentCut decode;  // last layer: outputs x hidden units
  PersistentCut back;    // last layer again: hidden units x outputs
  int owners = 0;
  int middles = 0;
  int heads_columns = 0;  // of the heads' weight that one middle updates: a multiple of 8
  int hidden_rows = 0;    // of the decoder's first weight that one middle updates: of 16

  // Rows of exchanged matrices, padded: floats from one to the next.
  int rows = 0;  // of the batch, a multiple of 16
  int encoder_ld = 0, decoder_ld = 0, latent_ld = 0, heads_ld = 0, out_ld = 0;

  // Shared memory, in bytes from its beginning; strides in elements.
  struct Owner {
    int weight = 0, weight_ld = 0;     // [16][ld] floats
    int out_weight = 0, out_ld = 0;    // [32][ld] floats
    int back_weight = 0, back_ld = 0;  // [16][ld] floats
    int x = 0, x_ld = 0, x_bytes = 0;  // 2 x [rows][ld] bytes
    int hidden = 0;                    // h2 [rows][out_ld]
    int grads = 0;                     // d(logits) [rows][dlogits_ld], later
    int dlogits_ld = 0, dh1_ld = 0;    // ... d(h1) [16][dh1_ld]
    int source = 0;                    // 2 x [rows] rows of the window, 64 bits each
    int bytes = 0;
  } owner;
  struct Middle {
    int heads = 0, heads_ld = 0;    // [heads rows][ld] floats
    int hidden = 0, hidden_ld = 0;  // [decoder_ld][ld] floats
    int tile = 0, tile_ld = 0;      // h1, later dh2: [8][ld]
    int parts = 0;                  // of products cut along their terms: [splits][8][width]
    int dheads = 0, dheads_ld = 0;  // [8][ld]
    int z = 0, z_ld = 0;            // [8][ld], in the same place
    int bias = 0;                   // of the decoder's first layer: [decoder_ld]
    // In the weights' place while their update is made, [..][batch_ld] each: all d(heads), the
    // block's columns of h1, its columns of d(h2), all z.
    int all_dheads = 0, some_h1 = 0, some_dh2 = 0, all_z = 0;
    int batch_ld = 0;
    int bytes = 0;
  } middle;
  int shared_bytes = 0;

  // Static shared memory of the kernel, at most.
  static constexpr int static_bytes = 512;
  // Into how many parts the middles cut the terms of a product of `width` rows, so that warps
  // without a tile of their own help: a power of two, given by its logarithm.
  static_assert(warps == 8);
  [[nodiscard]] static constexpr CUVAE_HOST_DEVICE int split_shift(int width) {
    return width > 64 ? 0 : width > 32 ? 1 : width > 16 ? 2 : 3;
  }
  [[nodiscard]] static constexpr CUVAE_HOST_DEVICE int splits(int width) {
    return 1 << split_shift(width);
  }

  [[nodiscard]] std::string str() const;  // a line of the cuts
};

// The layout, or why there is none ("256 KB of shared memory a block, the GPU has 99 KB").
struct PersistentFit {
  std::optional<PersistentLayout> layout;
  std::string reason;
};
[[nodiscard]] PersistentFit persistent_layout(const PersistentSizes& sizes, const Properties& gpu);

}  // namespace cuvae::cuda
