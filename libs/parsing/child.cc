#include "libs/parsing/child.h"

#include <dlfcn.h>
#include <glib.h>
#include <iconv.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "libs/mail/charset.h"
#include "libs/mail/mime.h"
#include "libs/parsing/frame.h"
#include "libs/parsing/sandbox.h"

// GMime asks iconv for any charset that a mail names, and iconv would open a file for it: in this program only those
// are found that were loaded before the sandbox closed.
extern "C" __attribute__((visibility("default"))) iconv_t iconv_open(const char* to, const char* from) {
  using Open = iconv_t (*)(const char*, const char*);
  static const auto real = reinterpret_cast<Open>(dlsym(RTLD_NEXT, "iconv_open"));
  const std::string target = poststelle::mail::CharsetName(to);
  const std::string source = poststelle::mail::CharsetName(from);
  if (real == nullptr || target.empty() || source.empty()) {
    errno = EINVAL;
    return reinterpret_cast<iconv_t>(-1);
  }
  return real(target.c_str(), source.c_str());
}

#ifdef POSTSTELLE_SANITIZED
// Both would start processes, which the sandbox forbids; the report itself comes before.
extern "C" const char* __asan_default_options() { return "symbolize=0:detect_leaks=0"; }
extern "C" const char* __ubsan_default_options() { return "symbolize=0"; }
#endif

namespace poststelle::parsing {
namespace {

// Free memory that the heap keeps.
constexpr int kKeptMemory = 8 << 20;
// The parent is woken once for so many bytes of answers.
constexpr size_t kGatheredAnswers = 64 << 10;

bool ReadAll(char* to, size_t size) {
  while (size > 0) {
    const ssize_t got = read(STDIN_FILENO, to, size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    to += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

bool WriteAll(const std::string& bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    const ssize_t sent = write(STDOUT_FILENO, bytes.data() + at, bytes.size() - at);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    at += static_cast<size_t>(sent);
  }
  return true;
}

GLogWriterOutput DropLog(GLogLevelFlags, const GLogField*, gsize, gpointer) { return G_LOG_WRITER_HANDLED; }

// Whatever opens files or asks the system at its first use: charsets, OpenSSL's digests, time zones.
void WarmUp() {
  // The buffers of one mail serve the next: given back to the system, each page of them would be faulted in anew.
  mallopt(M_MMAP_THRESHOLD, kKeptMemory);
  mallopt(M_TRIM_THRESHOLD, kKeptMemory);
  g_log_set_writer_func(DropLog, nullptr, nullptr);  // its default asks the system what standard error is
  mail::InitMime();
  mail::PreloadCharsets();
  mail::ParseMail(
      "From: =?iso-8859-1?q?=FC?= <a@x>\nDate: Tue, 24 Nov 2026 10:00:00 +0100\nContent-Type: multipart/mixed; "
      "boundary=b\n\n--b\nContent-Type: text/plain; charset=iso-8859-2\n\n\xb1\n--b\nContent-Type: "
      "application/pdf\nContent-Transfer-Encoding: base64\n\nYWJj\n--b\nContent-Type: message/rfc822\n\nSubject: "
      "x\n\ny\n--b--\n")
      .SerializeAsString();
}

// nullptr if the parent shares none.
const char* MapShared() {
  void* const memory = mmap(nullptr, kSharedBytes, PROT_READ, MAP_SHARED, kSharedDescriptor, 0);
  if (memory == MAP_FAILED) return nullptr;
  close(kSharedDescriptor);
  return static_cast<const char*>(memory);
}

uint64_t Number(int argc, char** argv, int at, uint64_t fallback) {
  return at < argc ? std::strtoull(argv[at], nullptr, 10) : fallback;
}

}  // namespace

int ServeAsChild(int argc, char** argv, const std::function<std::string(std::string_view)>& answer) {
  SandboxOptions options;
  options.memory = Number(argc, argv, 1, options.memory);
  const auto seconds = static_cast<unsigned>(Number(argc, argv, 2, 60));
  WarmUp();
  const char* const shared = MapShared();
  if (const std::string problem = EnterSandbox(options); !problem.empty()) {
    WriteAll(kNoHello + problem);
    return 3;
  }
  if (!WriteAll(std::string(1, kHello))) return 0;
  std::string answers;
  while (true) {
    char header[kRequestBytes];
    if (!ReadAll(header, sizeof header)) return 0;  // the parent is done with us, or gone
    alarm(seconds);                                 // even if nobody is left who would end us
    const Request request = DecodeRequest(header);
    std::string piped;
    std::string_view raw;
    if (shared != nullptr && request.size <= kSharedBytes && request.offset <= kSharedBytes - request.size) {
      raw = std::string_view(shared + request.offset, request.size);
    } else {
      piped.resize(request.size);
      if (!ReadAll(piped.data(), piped.size())) return 0;
      raw = piped;
    }
    const std::string result = answer(raw);
    answers += FrameHeader(static_cast<uint32_t>(result.size()));
    answers += result;
    if (request.more && answers.size() < kGatheredAnswers) continue;
    if (!WriteAll(answers)) return 0;
    answers.clear();
    if (!request.more) alarm(0);
  }
}

}  // namespace poststelle::parsing
