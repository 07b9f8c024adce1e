// Loops of the convolutions, included by loops_impl.h inside its namespace: products whose operands
// lie in a slab of the source (cpu/conv.cpp), and what fills slabs and empties results. Tiles of
// accumulators fill the registers of each instruction set. Without FMA (x86-64-v2, and in double)
// a product is rounded before it is added.

namespace {

#define CUVAE_UNROLL _Pragma("GCC unroll 16")

template <class T>
struct Vector;

template <>
struct Vector<double> {
  using Type = __m128d;
  static constexpr int width = 2, registers = 16;
  CUVAE_INLINE static Type zero() { return _mm_setzero_pd(); }
  CUVAE_INLINE static Type load(const double* from) { return _mm_loadu_pd(from); }
  CUVAE_INLINE static Type all(const double* from) { return _mm_set1_pd(*from); }
  CUVAE_INLINE static Type fma(Type a, Type b, Type c) { return _mm_add_pd(_mm_mul_pd(a, b), c); }
  CUVAE_INLINE static Type add(Type a, Type b) { return _mm_add_pd(a, b); }
  CUVAE_INLINE static void store(double* to, Type a) { _mm_storeu_pd(to, a); }
};

template <>
struct Vector<float> {
#if defined(__AVX512F__)
  using Type = __m512;
  static constexpr int width = 16, registers = 32;
  CUVAE_INLINE static Type zero() {
    return _mm512_setzero_ps();
  }
  CUVAE_INLINE static Type load(const float* from) {
    return _mm512_loadu_ps(from);
  }
  CUVAE_INLINE static Type all(const float* from) {
    return _mm512_set1_ps(*from);
  }
  CUVAE_INLINE static Type fma(Type a, Type b, Type c) {
    return _mm512_fmadd_ps(a, b, c);
  }
  CUVAE_INLINE static Type add(Type a, Type b) {
    return _mm512_add_ps(a, b);
  }
  CUVAE_INLINE static void store(float* to, Type a) {
    _mm512_storeu_ps(to, a);
  }
#elif defined(__AVX2__) && defined(__FMA__)
  using Type = __m256;
  static constexpr int width = 8, registers = 16;
  CUVAE_INLINE static Type zero() {
    return _mm256_setzero_ps();
  }
  CUVAE_INLINE static Type load(const float* from) {
    return _mm256_loadu_ps(from);
  }
  CUVAE_INLINE static Type all(const float* from) {
    return _mm256_broadcast_ss(from);
  }
  CUVAE_INLINE static Type fma(Type a, Type b, Type c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  CUVAE_INLINE static Type add(Type a, Type b) {
    return _mm256_add_ps(a, b);
  }
  CUVAE_INLINE static void store(float* to, Type a) {
    _mm256_storeu_ps(to, a);
  }
#else
  using Type = __m128;
  static constexpr int width = 4, registers = 16;
  CUVAE_INLINE static Type zero() {
    return _mm_setzero_ps();
  }
  CUVAE_INLINE static Type load(const float* from) {
    return _mm_loadu_ps(from);
  }
  CUVAE_INLINE static Type all(const float* from) {
    return _mm_set1_ps(*from);
  }
  CUVAE_INLINE static Type fma(Type a, Type b, Type c) {
    return _mm_add_ps(_mm_mul_ps(a, b), c);
  }
  CUVAE_INLINE static Type add(Type a, Type b) {
    return _mm_add_ps(a, b);
  }
  CUVAE_INLINE static void store(float* to, Type a) {
    _mm_storeu_ps(to, a);
  }
#endif
};

// Of `rows` rows of accumulators, beside a vector of each column and one of the weights.
constexpr int vectors_beside(int rows, int registers) {
  const int fitting = (registers - 1) / (rows + 1);
  return fitting < 8 ? fitting : 8;
}

template <class T, int rows, int vectors>
CUVAE_INLINE void window_tile(std::int64_t terms, const T* weights, const std::int64_t* offsets,
                              const T* source, T* out, std::int64_t stride) {
  using V = Vector<T>;
  typename V::Type sum[rows][vectors];
  CUVAE_UNROLL for (int r = 0; r < rows; ++r) CUVAE_UNROLL for (int v = 0; v < vectors; ++v)
      sum[r][v] = V::zero();
  // The source and the results may be in memory that is far: the next tile's are asked for now.
  constexpr bool ahead = rows >= 4 && vectors > 1;
  if constexpr (ahead)
    CUVAE_UNROLL for (int r = 0; r < rows; ++r)
        CUVAE_UNROLL for (int v = vectors; v < 2 * vectors; ++v)
            __builtin_prefetch(out + r * stride + v * V::width, 1);
  for (std::int64_t k = 0; k < terms; ++k) {
    const T* from = source + offsets[k];
    if constexpr (ahead)
      CUVAE_UNROLL for (int v = vectors; v < 2 * vectors; ++v)
          __builtin_prefetch(from + v * V::width);
    typename V::Type column[vectors];
    CUVAE_UNROLL for (int v = 0; v < vectors; ++v) column[v] = V::load(from + v * V::width);
    CUVAE_UNROLL for (int r = 0; r < rows; ++r) {
      const auto weight = V::all(weights + k * conv_rows + r);
      CUVAE_UNROLL for (int v = 0; v < vectors; ++v) sum[r][v] =
          V::fma(weight, column[v], sum[r][v]);
    }
  }
  CUVAE_UNROLL for (int r = 0; r < rows; ++r) CUVAE_UNROLL for (int v = 0; v < vectors; ++v)
      V::store(out + r * stride + v * V::width, sum[r][v]);
}

template <class T, int rows>
void window_rows(std::int64_t n, std::int64_t terms, const T* weights, const std::int64_t* offsets,
                 const T* source, T* out, std::int64_t stride) {
  constexpr int width = Vector<T>::width;
  constexpr int most = vectors_beside(rows, Vector<T>::registers);
  constexpr int half = (most + 1) / 2;
  std::int64_t p = 0;
  for (; n - p > (most - 1) * width; p += most * width)
    window_tile<T, rows, most>(terms, weights, offsets, source + p, out + p, stride);
  if (n - p > (half - 1) * width) {
    window_tile<T, rows, half>(terms, weights, offsets, source + p, out + p, stride);
    p += half * width;
  }
  for (; p < n; p += width)
    window_tile<T, rows, 1>(terms, weights, offsets, source + p, out + p, stride);
}

template <class T>
void window_products(int rows, std::int64_t n, std::int64_t terms, const T* weights,
                     const std::int64_t* offsets, const T* source, T* out, std::int64_t stride) {
  constexpr int most = Vector<T>::registers == 32 ? 8 : 4;
  const auto call = [&](auto function) {
    function(n, terms, weights, offsets, source, out, stride);
  };
  for (; rows > 0; rows -= most, weights += most, out += most * stride) {
    if constexpr (most == 8) {
      switch (rows) {
        case 5: call(window_rows<T, 5>); continue;
        case 6: call(window_rows<T, 6>); continue;
        case 7: call(window_rows<T, 7>); continue;
        case 8: call(window_rows<T, 8>); continue;
        default: break;
      }
    }
    switch (rows) {
      case 1: call(window_rows<T, 1>); break;
      case 2: call(window_rows<T, 2>); break;
      case 3: call(window_rows<T, 3>); break;
      default: call(window_rows<T, 4>); break;
    }
  }
}

template <class T>
void position_products(std::int64_t n, const std::int64_t* at, std::int64_t terms,
                       const std::int64_t* offsets, const T* source, const T* columns, T* out,
                       std::int64_t stride) {
  using V = Vector<T>;
  constexpr int rows = V::registers == 32 ? 12 : 6;
  for (std::int64_t first = 0; first < conv_columns; first += 2 * V::width)
    for (std::int64_t k = 0; k < terms; k += rows) {
      typename V::Type sum[rows][2];
      const T* from[rows];
      CUVAE_UNROLL for (int r = 0; r < rows; ++r) {
        sum[r][0] = sum[r][1] = V::zero();
        from[r] = source + offsets[k + r];
      }
      const T* column = columns + first;
      for (std::int64_t p = 0; p < n; ++p, column += conv_columns) {
        const std::int64_t i = at[p];
        const auto low = V::load(column);
        const auto high = V::load(column + V::width);
        CUVAE_UNROLL for (int r = 0; r < rows; ++r) {
          const auto x = V::all(from[r] + i);
          sum[r][0] = V::fma(x, low, sum[r][0]);
          sum[r][1] = V::fma(x, high, sum[r][1]);
        }
      }
      CUVAE_UNROLL for (int r = 0; r < rows; ++r) {
        T* to = out + (k + r) * stride + first;
        V::store(to, V::add(V::load(to), sum[r][0]));
        V::store(to + V::width, V::add(V::load(to + V::width), sum[r][1]));
      }
    }
}

template <class T>
void row_products(std::int64_t n, std::int64_t rows, const T* a, std::int64_t a_stride,
                  std::int64_t terms, const T* b, std::int64_t b_stride, T* out,
                  std::int64_t stride) {
  using V = Vector<T>;
  constexpr int height = V::registers == 32 ? 4 : 3;
  constexpr int breadth = V::registers == 32 ? 5 : 3;
  const std::int64_t whole = n / V::width * V::width;
  for (std::int64_t r0 = 0; r0 < rows; r0 += height)
    for (std::int64_t t0 = 0; t0 < terms; t0 += breadth) {
      // Beyond the edge: the last one again, whose sums nobody reads.
      const T* x[height];
      const T* y[breadth];
      CUVAE_UNROLL for (int r = 0; r < height; ++r) x[r] =
          a + (r0 + r < rows ? r0 + r : rows - 1) * a_stride;
      CUVAE_UNROLL for (int t = 0; t < breadth; ++t) y[t] =
          b + (t0 + t < terms ? t0 + t : terms - 1) * b_stride;
      typename V::Type sum[height][breadth];
      CUVAE_UNROLL for (int r = 0; r < height; ++r) CUVAE_UNROLL for (int t = 0; t < breadth; ++t)
          sum[r][t] = V::load(out + ((r0 + r) * stride + t0 + t) * conv_lanes);
      const auto step = [&](const auto& first, const auto& second) __attribute__((always_inline)) {
        typename V::Type left[height];
        CUVAE_UNROLL for (int r = 0; r < height; ++r) left[r] = first(r);
        CUVAE_UNROLL for (int t = 0; t < breadth; ++t) {
          const auto right = second(t);
          CUVAE_UNROLL for (int r = 0; r < height; ++r) sum[r][t] =
              V::fma(left[r], right, sum[r][t]);
        }
      };
      for (std::int64_t p = 0; p < whole; p += V::width) {
        CUVAE_UNROLL for (int r = 0; r < height; ++r)
            __builtin_prefetch(x[r] + height * a_stride + p);
        step(
            [&](int r) __attribute__((always_inline)) { return V::load(x[r] + p); },
            [&](int t) __attribute__((always_inline)) { return V::load(y[t] + p); });
      }
      if (whole < n) {
        const auto rest = [&](const T* from) __attribute__((always_inline)) {
          T lanes[V::width] = {};
          for (std::int64_t p = whole; p < n; ++p) lanes[p - whole] = from[p];
          return V::load(lanes);
        };
        step(
            [&](int r) __attribute__((always_inline)) { return rest(x[r]); },
            [&](int t) __attribute__((always_inline)) { return rest(y[t]); });
      }
      CUVAE_UNROLL for (int r = 0; r < height; ++r) CUVAE_UNROLL for (int t = 0; t < breadth; ++t)
          V::store(out + ((r0 + r) * stride + t0 + t) * conv_lanes, sum[r][t]);
    }
}

// One row of GatheredRows; rows beyond the edge are zeros.
template <class T>
CUVAE_INLINE void gather_row(const GatheredRows<T>& g, const T* from, T* to) {
  if (from == nullptr) {
    CUVAE_FOR(i, g.width) to[i] = 0;
    return;
  }
  from += g.column;
  CUVAE_FOR(i, g.left) to[i] = 0;
  if (g.every_column == 1) {
    CUVAE_FOR(i, g.count) to[g.left + i] = from[i];
  } else if (g.every_column == 2) {
    CUVAE_FOR(i, g.count) to[g.left + i] = from[2 * i];
  } else {
    CUVAE_FOR(i, g.count) to[g.left + i] = from[g.every_column * i];
  }
  CUVAE_FOR(i, g.width - g.left - g.count) to[g.left + g.count + i] = 0;
}

template <class T>
CUVAE_INLINE const T* row_of(const GatheredRows<T>& g, std::int64_t r) {
  const std::int64_t row = g.first + r * g.every_row;
  return row < 0 || row >= g.source_rows ? nullptr : g.source + row * g.source_width;
}

#if defined(__AVX512F__)
// The lowest n bits.
CUVAE_INLINE std::uint32_t low_bits(std::int64_t n) {
  if (n <= 0) return 0;
  return n >= 32 ? ~std::uint32_t{0} : (std::uint32_t{1} << n) - 1;
}

// Rows are often shorter than a vector: masks instead of loops over what is left over. A vector may
// be stored beyond its row as long as the next row is still to come.
CUVAE_INLINE void gather_masked(const GatheredRows<float>& g) {
  constexpr int most = 16, ahead = 1024;
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const std::int64_t vectors = (g.width + 15) / 16;
  for (std::int64_t first = 0; first < vectors; first += most) {
    const int count = static_cast<int>(vectors - first < most ? vectors - first : most);
    std::uint32_t masks[most];
    for (int v = 0; v < count; ++v) {
      const std::int64_t x = 16 * (first + v);
      const std::int64_t end = g.left + g.count - x;
      const std::uint32_t seen = low_bits(end < 16 ? end : 16) & ~low_bits(g.left - x);
      masks[v] = seen;
      if (g.every_column == 1) continue;
      masks[v] = 0;  // bit i at 2 i
      for (int i = 0; i < 16; ++i) masks[v] |= (seen >> i & 1U) << (2 * i);
    }
    for (std::int64_t r = 0; r < g.rows; ++r) {
      const float* from = row_of(g, r);
      float* to = g.to + r * g.width;
      for (int v = 0; v < count; ++v) {
        const std::int64_t x = 16 * (first + v);
        const std::int64_t at = g.column + (x - g.left) * g.every_column;
        const auto low = static_cast<__mmask16>(masks[v]);
        const auto high = static_cast<__mmask16>(masks[v] >> 16);
        // The source may be in memory that is far, and no page's end keeps this from going on.
        if (from != nullptr) __builtin_prefetch(from + at + ahead);
        if (from != nullptr && g.every_column == 2) __builtin_prefetch(from + at + ahead + 16);
        __m512 row = _mm512_setzero_ps();
        if (from != nullptr && g.every_column == 1)
          row = _mm512_maskz_loadu_ps(low, from + at);
        else if (from != nullptr)
          row = _mm512_permutex2var_ps(_mm512_maskz_loadu_ps(low, from + at), even,
                                       _mm512_maskz_loadu_ps(high, from + at + 16));
        if (g.width - x >= 16 || (r + 1 < g.rows && vectors <= most && g.width >= 16))
          _mm512_storeu_ps(to + x, row);
        else
          _mm512_mask_storeu_ps(to + x, static_cast<__mmask16>(low_bits(g.width - x)), row);
      }
    }
  }
}
#endif

template <class T>
void gather_rows(const GatheredRows<T>& g) {
#if defined(__AVX512F__)
  if constexpr (Vector<T>::width == 16) {
    if (g.every_column <= 2) {
      gather_masked(g);
      return;
    }
  }
#endif
  T* to = g.to;
  for (std::int64_t r = 0; r < g.rows; ++r, to += g.width) gather_row(g, row_of(g, r), to);
}

template <class T>
void place_rows(const PlacedRows<T>& g) {
  for (std::int64_t c = 0; c < g.channels; ++c) {
    const T add = g.bias != nullptr ? g.bias[c] : T{};
    for (std::int64_t r = 0; r < g.rows; ++r) {
      const T* from = g.from + c * g.from_channel + r * g.from_row;
      T* to = g.to + c * g.to_channel + r * g.to_row;
      if (g.second != nullptr) {
        const T* second = g.second + c * g.from_channel + r * g.from_row;
        CUVAE_FOR(i, g.second_width) {
          to[2 * i] = from[i] + add;
          to[2 * i + 1] = second[i] + add;
        }
        for (std::int64_t i = g.second_width; i < g.width; ++i) to[2 * i] = from[i] + add;
      } else if (g.every_column == 1) {
        CUVAE_FOR(i, g.width) to[i] = from[i] + add;
      } else {
        CUVAE_FOR(i, g.width) to[i * g.every_column] = from[i] + add;
      }
    }
  }
}

CUVAE_INLINE void transpose_four(const float* from, std::int64_t stride, float* to,
                                 std::int64_t to_stride) {
  __m128 a = _mm_loadu_ps(from);
  __m128 b = _mm_loadu_ps(from + stride);
  __m128 c = _mm_loadu_ps(from + 2 * stride);
  __m128 d = _mm_loadu_ps(from + 3 * stride);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a);
  _mm_storeu_ps(to + to_stride, b);
  _mm_storeu_ps(to + 2 * to_stride, c);
  _mm_storeu_ps(to + 3 * to_stride, d);
}
CUVAE_INLINE void transpose_four(const double* from, std::int64_t stride, double* to,
                                 std::int64_t to_stride) {
  for (int i = 0; i < 4; ++i)
    for (int r = 0; r < 4; ++r) to[i * to_stride + r] = from[r * stride + i];
}

template <class T>
void transpose_rows(std::int64_t rows, std::int64_t n, const T* from, std::int64_t stride, T* to,
                    std::int64_t to_stride) {
  const std::int64_t fours = rows / 4 * 4;
  std::int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    if (i % 16 == 0)
      for (std::int64_t r = 0; r < fours; ++r) __builtin_prefetch(from + r * stride + i + 64);
    for (std::int64_t r = 0; r < fours; r += 4)
      transpose_four(from + r * stride + i, stride, to + i * to_stride + r, to_stride);
  }
  for (; i < n; ++i)
    for (std::int64_t r = 0; r < fours; ++r) to[i * to_stride + r] = from[r * stride + i];
  if (fours == to_stride) return;
  for (i = 0; i < n; ++i) {
    for (std::int64_t r = fours; r < rows; ++r) to[i * to_stride + r] = from[r * stride + i];
    for (std::int64_t r = rows; r < to_stride; ++r) to[i * to_stride + r] = 0;
  }
}

}  // namespace
