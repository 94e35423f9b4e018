// Prometheus metrics of one process.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace poststelle::observe {

// Owns the registry and, once exposed, the HTTP server behind /metrics. Built in main, passed by reference.
// Thread-safe.
class Metrics {
 public:
  using Labels = std::map<std::string, std::string>;
  Metrics();
  ~Metrics();
  // The counter or gauge of this name and these labels; made at the first call. Lives as long as this object.
  prometheus::Counter& Counter(const std::string& name, const std::string& help, const Labels& labels = {});
  prometheus::Gauge& Gauge(const std::string& name, const std::string& help, const Labels& labels = {});
  // `buckets`: ascending upper bounds.
  prometheus::Histogram& Histogram(const std::string& name, const std::string& help,
                                   const std::vector<double>& buckets);
  // Serves http://address/metrics. `address` is host:port; port 0 takes a free one. Returns the address it serves on.
  absl::StatusOr<std::string> Expose(const std::string& address);

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  std::unique_ptr<prometheus::Exposer> exposer_;
  std::string host_;  // where it listens
  int port_ = 0;
};

}  // namespace poststelle::observe
