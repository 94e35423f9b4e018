// One subscriber's stream: takes the subscription, sends what is committed, moves the cursor at each acknowledgement.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "libs/rpc/bidi.h"
#include "poststelle/fetcher/v1/ticket_feed_service.pb.h"
#include "services/fetcher/ticket_feed.h"

namespace poststelle::fetcher {

using SubscribeStream = rpc::Bidi<v1::SubscribeRequest, v1::SubscribeResponse>;

// Runs until the client leaves, another subscriber takes over, or the service drains. Sending stops at
// `max_unacknowledged` events on their way, so that a slow consumer holds up itself only.
async::Task<grpc::Status> ServeSubscriber(std::shared_ptr<SubscribeStream> stream, asio::any_io_executor executor,
                                          TicketFeed& feed, const std::atomic<bool>& draining);

}  // namespace poststelle::fetcher
