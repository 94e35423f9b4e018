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
      fenced(
          m.Counter("poststelle_fetcher_polls_fenced_total", "Polls given up because another worker took the mailbox")),
      crowded(m.Counter("poststelle_fetcher_polls_crowded_total",
                        "Polls put off because host or account had no connection left")),
      sessions(m.Gauge("poststelle_fetcher_sessions", "Polls that are running")),
      held(m.Gauge("poststelle_fetcher_mailboxes_held", "Mailboxes whose preferred worker this process is")),
      workers(m.Gauge("poststelle_fetcher_workers", "Live workers that share the mailboxes")),
      lateness(m.Histogram("poststelle_fetcher_claim_lateness_seconds", "Time between due and claimed",
                           {0.01, 0.03, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300})) {}

}  // namespace poststelle::fetcher
