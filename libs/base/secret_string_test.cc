// What can't be compiled with a SecretString, and what becomes of a process that holds some.
#include "libs/base/secret_string.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>
#include <type_traits>
#include <version>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "libs/base/process.h"
#ifdef __cpp_lib_format
#include <format>
#endif

namespace poststelle {
namespace {

template <typename T>
concept Streamable = requires(std::ostream& out, const T& value) { out << value; };
template <typename T>
concept Readable = requires(std::istream& in, T& value) { in >> value; };
template <typename T>
concept HasStringify = requires(std::string& sink, const T& value) { AbslStringify(sink, value); };
template <typename T>
concept StrCatable = requires(const T& value) { absl::StrCat("x", value); };
template <typename T>
concept StrAppendable = requires(std::string& out, const T& value) { absl::StrAppend(&out, value); };
template <typename T>
concept StrFormattable = requires(const T& value, absl::str_format_internal::FormatConversionSpecImpl spec,
                                  absl::str_format_internal::FormatSinkImpl* sink) {
  absl::str_format_internal::FormatConvertImpl(value, spec, sink);
};
template <typename T>
concept Appendable = requires(std::string& out, const T& value) { out += value; };
template <typename T>
concept Addable = requires(const std::string& out, const T& value) { out + value; };
template <typename T>
concept Comparable = requires(const T& a, const T& b) { a == b; };
template <typename T>
concept Hashable = requires(const T& value) { std::hash<T>()(value); };
template <typename T>
concept ToString = requires(const T& value) { to_string(value); };
template <typename T>
concept Iterable = requires(const T& value) { value.begin(); };
template <typename T>
concept HasCharacters = requires(const T& value) { value.data(); };

// Each of them holds for a plain string: that is what makes its absence below mean something.
static_assert(Streamable<std::string> && Readable<std::string> && StrCatable<std::string> &&
              StrAppendable<std::string> && StrFormattable<std::string> && Appendable<std::string> &&
              Addable<std::string> && Comparable<std::string> && Hashable<std::string> && Iterable<std::string> &&
              HasCharacters<std::string>);
static_assert(std::is_constructible_v<nlohmann::json, std::string> && std::is_constructible_v<absl::Cord, std::string>);

static_assert(!Streamable<SecretString>, "operator<< would log it");
static_assert(!Readable<SecretString>);
static_assert(!HasStringify<SecretString>, "AbslStringify would let StrCat, StrFormat and LOG take it");
static_assert(!StrCatable<SecretString> && !StrAppendable<SecretString> && !StrFormattable<SecretString>);
static_assert(!Appendable<SecretString> && !Addable<SecretString> && !ToString<SecretString>);
static_assert(!std::is_convertible_v<SecretString, std::string>);
static_assert(!std::is_convertible_v<SecretString, std::string_view>);
static_assert(!std::is_convertible_v<SecretString, absl::string_view>);
static_assert(!std::is_convertible_v<SecretString, const char*> && !std::is_convertible_v<SecretString, bool>);
static_assert(!std::is_constructible_v<std::string, SecretString>);
static_assert(!std::is_constructible_v<std::string_view, SecretString>);
static_assert(!std::is_constructible_v<absl::AlphaNum, SecretString>);
static_assert(!std::is_constructible_v<absl::Cord, SecretString>);
static_assert(!std::is_constructible_v<nlohmann::json, SecretString>, "a field of a log line would take it");
// Comparing byte by byte tells how many of them are right; hashing it invites a map that keeps it.
static_assert(!Comparable<SecretString> && !Hashable<SecretString>);
static_assert(!Iterable<SecretString> && !HasCharacters<SecretString>);
// Nothing becomes one unseen, either.
static_assert(!std::is_convertible_v<std::string, SecretString> && !std::is_convertible_v<const char*, SecretString>);
#ifdef __cpp_lib_format
static_assert(!std::is_default_constructible_v<std::formatter<SecretString, char>>);
#endif

TEST(SecretString, CopiesAndMovesKeepTheBytes) {
  SecretString one("hunter2");
  SecretString two = one;
  EXPECT_EQ(one.Reveal(), two.Reveal());
  const SecretString three = std::move(two);
  EXPECT_EQ(three.Reveal(), "hunter2");
  one = three;
  EXPECT_FALSE(one.empty());
  EXPECT_TRUE(SecretString().empty());
}

TEST(ForbidDumps, LeavesAProcessWithoutCoresThatNobodyMayAttachTo) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ForbidDumps();
    rlimit limit{};
    getrlimit(RLIMIT_CORE, &limit);
    const bool no_core = limit.rlim_cur == 0 && limit.rlim_max == 0;
#ifdef POSTSTELLE_SANITIZED
    _exit(no_core ? 0 : 1);
#else
    _exit(no_core && prctl(PR_GET_DUMPABLE) == 0 ? 0 : 1);
#endif
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace poststelle
