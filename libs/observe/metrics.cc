#include "libs/observe/metrics.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"

namespace poststelle::observe {
namespace {

// Connects and hangs up.
void Knock(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.empty() ? nullptr : host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return;
  const int socket_fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket_fd >= 0) {
    (void)connect(socket_fd, found->ai_addr, found->ai_addrlen);
    close(socket_fd);
  }
  freeaddrinfo(found);
}

}  // namespace

Metrics::Metrics() : registry_(std::make_shared<prometheus::Registry>()) {}

// The HTTP server looks every two seconds whether it is to end; a caller that knocks makes it look now. Otherwise that
// would be most of the time that a service takes to exit.
Metrics::~Metrics() {
  if (exposer_ == nullptr) return;
  std::atomic<bool> closed = false;
  std::thread knocking([this, &closed] {
    while (!closed) {
      Knock(host_, port_);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  exposer_.reset();
  closed = true;
  knocking.join();
}

prometheus::Counter& Metrics::Counter(const std::string& name, const std::string& help, const Labels& labels) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(*registry_).Add(labels);
}

prometheus::Gauge& Metrics::Gauge(const std::string& name, const std::string& help, const Labels& labels) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(*registry_).Add(labels);
}

prometheus::Histogram& Metrics::Histogram(const std::string& name, const std::string& help,
                                          const std::vector<double>& buckets) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(*registry_).Add({}, buckets);
}

absl::StatusOr<std::string> Metrics::Expose(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("metrics address \"", address, "\": give it as host:port"));
  }
  try {
    exposer_ = std::make_unique<prometheus::Exposer>(address, 1);
  } catch (const std::exception& e) {
    return absl::UnavailableError(absl::StrCat("can't serve metrics on ", address, ": ", e.what()));
  }
  exposer_->RegisterCollectable(registry_);
  port_ = exposer_->GetListeningPorts().at(0);
  host_ = address.substr(0, colon);
  std::string out = absl::StrCat(host_, ":", port_);
  if (host_.starts_with('[') && host_.ends_with(']')) host_ = host_.substr(1, host_.size() - 2);
  return out;
}

}  // namespace poststelle::observe
