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
  prometheus::Counter& fenced;      // polls given up because another worker took the mailbox
  prometheus::Counter& crowded;     // polls put off because host or account had no connection left
  prometheus::Gauge& sessions;
  prometheus::Gauge& held;          // mailboxes whose preferred worker this process is
  prometheus::Gauge& workers;       // live workers that share the mailboxes
  prometheus::Histogram& lateness;  // seconds between due and claimed
};

}  // namespace poststelle::fetcher
