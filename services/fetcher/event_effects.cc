#include "services/fetcher/event_effects.h"

#include "poststelle/fetcher/v1/ticket.pb.h"

namespace poststelle::fetcher {

EventEffects EffectsOf(const config::v1::ImportOptions& options, const v1::Message& message) {
  v1::TicketEvent opened;
  opened.set_status(options.new_ticket_status());
  *opened.mutable_labels() = options.ticket_labels();
  opened.set_reply_via(options.reply_via());
  v1::TicketEvent reply;
  const bool by_a_person = message.origin() == v1::Message::ORIGIN_UNSPECIFIED;
  if (by_a_person && !message.historical()) reply.set_status(options.reply_ticket_status());
  reply.set_reply_via(options.reply_via());
  EventEffects effects;
  effects.if_opened = opened.SerializeAsString();
  effects.if_reply = reply.SerializeAsString();
  return effects;
}

}  // namespace poststelle::fetcher
