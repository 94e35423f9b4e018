// The fetcher's own figures on /metrics.
#pragma once

#include "libs/observe/metrics.h"

namespace poststelle::fetcher {

// Counters of one process. Thread-safe.
struct FetcherMetrics {
  explicit FetcherMetrics(observe::Metrics& metrics);
  prometheus::Counter& polls_ok;
  prometheus::Counter& polls_failed;
  prometheus::Counter& bodies_fetched;   // BODY.PEEK[] downloads
  prometheus::Counter& headers_fetched;  // header-only downloads
  prometheus::Counter& published;
  prometheus::Counter& recognised;  // by their anchor, without a download
  prometheus::Gauge& sessions;
};

}  // namespace poststelle::fetcher
