#!/usr/bin/env python3
"""The shuffle of include/cuvae/rng.h, written a second time in plain Python: prints the golden
vectors of tests/base/shuffle_test.cpp. Run: python3 tests/golden/shuffle.py"""

WORD = 0xFFFFFFFF


def philox4x32(counter, key):
    c0, c1, c2, c3 = counter
    k0, k1 = key & WORD, key >> 32
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & WORD, (a >> 32) ^ c3 ^ k1, a & WORD
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return c0, c1, c2, c3


def shuffle(seed, epoch, n, position):
    bits = 2
    while 2**bits < n:
        bits += 2
    half, mask = bits // 2, 2 ** (bits // 2) - 1
    value = position
    while True:
        left, right = value >> half, value & mask
        for r in range(8):
            subsequence = (1 << 56) | (r << 40) | right  # purpose shuffle, stream = round
            counter = (epoch & WORD, epoch >> 32, subsequence & WORD, subsequence >> 32)
            left, right = right, left ^ (philox4x32(counter, seed)[0] & mask)
        value = left << half | right
        if value < n:
            return value


def main():
    for seed, epoch in ((0, 0), (0x123456789ABCDEF0, 0x100000003)):
        for n in (1, 2, 3, 97, 60000):
            order = [shuffle(seed, epoch, n, p) for p in range(n)]
            assert sorted(order) == list(range(n))
            checksum = sum((p + 1) * index for p, index in enumerate(order))
            first = ", ".join(str(index) for index in order[:16])
            print(f"{{{seed:#x}, {epoch:#x}, {n}, {{{first}}}, {checksum}}},")


if __name__ == "__main__":
    main()
