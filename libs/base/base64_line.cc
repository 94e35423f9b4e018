#include "libs/base/base64_line.h"

#include <array>
#include <cstdint>
#include <string_view>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace poststelle {
namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr uint8_t kOther = 0x80;

constexpr std::array<uint8_t, 256> MakeTable() {
  std::array<uint8_t, 256> table{};
  table.fill(kOther);
  for (size_t i = 0; i < kAlphabet.size(); ++i) table[static_cast<uint8_t>(kAlphabet[i])] = static_cast<uint8_t>(i);
  return table;
}
constexpr std::array<uint8_t, 256> kTable = MakeTable();

bool DecodeScalar(const char* in, size_t size, char* out) {
  uint8_t bad = 0;
  for (size_t i = 0; i < size; i += 4, in += 4, out += 3) {
    const uint8_t a = kTable[static_cast<uint8_t>(in[0])], b = kTable[static_cast<uint8_t>(in[1])];
    const uint8_t c = kTable[static_cast<uint8_t>(in[2])], d = kTable[static_cast<uint8_t>(in[3])];
    bad |= a | b | c | d;
    out[0] = static_cast<char>(a << 2 | b >> 4);
    out[1] = static_cast<char>(b << 4 | c >> 2);
    out[2] = static_cast<char>(c << 6 | d);
  }
  return (bad & kOther) == 0;
}

#if defined(__x86_64__)
// 32 letters into 24 bytes (and 8 more that mean nothing); the method of Muła and Lemire, "Faster Base64 Encoding and
// Decoding Using AVX2 Instructions" (2018). False if a byte is no letter.
__attribute__((target("avx2"))) inline bool Decode32(const char* in, char* out) {
  const __m256i lut_lo =
      _mm256_setr_epi8(0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x13, 0x1A, 0x1B, 0x1B, 0x1B, 0x1A,
                       0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x13, 0x1A, 0x1B, 0x1B, 0x1B, 0x1A);
  const __m256i lut_hi =
      _mm256_setr_epi8(0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10,
                       0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10);
  const __m256i lut_roll = _mm256_setr_epi8(0, 16, 19, 4, -65, -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 19, 4, -65,
                                            -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m256i mask = _mm256_set1_epi8(0x2f);
  __m256i text = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in));
  const __m256i high = _mm256_and_si256(_mm256_srli_epi32(text, 4), mask);
  const __m256i low = _mm256_and_si256(text, mask);
  const __m256i slash = _mm256_cmpeq_epi8(text, mask);
  if (!_mm256_testz_si256(_mm256_shuffle_epi8(lut_lo, low), _mm256_shuffle_epi8(lut_hi, high))) return false;
  text = _mm256_add_epi8(text, _mm256_shuffle_epi8(lut_roll, _mm256_add_epi8(slash, high)));
  const __m256i pairs = _mm256_maddubs_epi16(text, _mm256_set1_epi32(0x01400140));
  __m256i bytes = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x00011000));
  bytes = _mm256_shuffle_epi8(bytes, _mm256_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1, 2, 1, 0,
                                                      6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1));
  bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 1, 2, 4, 5, 6, -1, -1));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), bytes);
  return true;
}

__attribute__((target("avx2"))) bool DecodeAvx2(const char* in, size_t size, char* out) {
  size_t at = 0;
  for (; at + 32 <= size; at += 32) {
    if (!Decode32(in + at, out + at / 4 * 3)) return false;
  }
  // What is left over once more with letters before it.
  return at == size || Decode32(in + size - 32, out + (size - 32) / 4 * 3);
}
#endif

}  // namespace

bool DecodeBase64Line(const char* in, size_t size, char* out) {
#if defined(__x86_64__)
  static const bool fast = __builtin_cpu_supports("avx2");
  if (fast) return DecodeAvx2(in, size, out);
#endif
  return DecodeScalar(in, size, out);
}

void EncodeBase64Line(const char* in, size_t size, char* out) {
  for (size_t i = 0; i < size; i += 3, in += 3, out += 4) {
    const uint32_t group = uint32_t{static_cast<uint8_t>(in[0])} << 16 | uint32_t{static_cast<uint8_t>(in[1])} << 8 |
                           uint32_t{static_cast<uint8_t>(in[2])};
    out[0] = kAlphabet[group >> 18];
    out[1] = kAlphabet[group >> 12 & 63];
    out[2] = kAlphabet[group >> 6 & 63];
    out[3] = kAlphabet[group & 63];
  }
}

}  // namespace poststelle
