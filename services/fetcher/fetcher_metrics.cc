#include "services/fetcher/fetcher_metrics.h"

namespace poststelle::fetcher {

FetcherMetrics::FetcherMetrics(observe::Metrics& m)
    : polls_ok(m.Counter("poststelle_fetcher_polls_total", "Polls by outcome", {{"outcome", "ok"}})),
      polls_failed(m.Counter("poststelle_fetcher_polls_total", "Polls by outcome", {{"outcome", "failed"}})),
      bodies_fetched(m.Counter("poststelle_fetcher_bodies_fetched_total", "Whole messages downloaded")),
      headers_fetched(
          m.Counter("poststelle_fetcher_headers_fetched_total", "Messages of which only headers were downloaded")),
      published(m.Counter("poststelle_fetcher_messages_published_total", "Messages published, duplicates included")),
      recognised(m.Counter("poststelle_fetcher_messages_recognised_total", "Messages recognised by their anchor")),
      sessions(m.Gauge("poststelle_fetcher_sessions", "Polls that are running")) {}

}  // namespace poststelle::fetcher
