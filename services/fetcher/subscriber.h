// One subscriber's stream: joins the subscription, sends what is committed, passes acknowledgements on.
#pragma once

#include <atomic>
#include <memory>

#include "libs/rpc/bidi.h"
#include "poststelle/fetcher/v1/ticket_feed_service.pb.h"
#include "services/fetcher/feed_hub.h"
#include "services/fetcher/ticket_feed.h"

namespace poststelle::fetcher {

using SubscribeStream = rpc::Bidi<v1::SubscribeRequest, v1::SubscribeResponse>;

// Runs until the client leaves or the service drains. Sending stops at `max_unacknowledged` events on their way, so
// that a slow consumer holds up its own partitions only. Requests are read by a second task in `scope`, which ends when
// the call does.
async::Task<grpc::Status> ServeSubscriber(std::shared_ptr<SubscribeStream> stream, async::TaskScope& scope,
                                          TicketFeed& feed, FeedHub& hub, const std::atomic<bool>& draining);

}  // namespace poststelle::fetcher
