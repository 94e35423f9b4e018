#include <iostream>

#include "cli/context.h"
#include "cli/event_line.h"
#include "cli/output.h"
#include "poststelle/fetcher/v1/ticket_feed_service.grpc.pb.h"

namespace poststelle::cli {
namespace {

using fetcher::v1::TicketFeedService;

int List(const Context& context, const std::string& mailbox) {
  fetcher::v1::ListTicketsRequest request;
  if (!mailbox.empty()) {
    config::v1::Mailbox found;
    if (const grpc::Status status = FindMailbox(context, mailbox, found); !status.ok()) return Report(status);
    request.set_mailbox(found.name());
  }
  fetcher::v1::ListTicketsResponse page;
  const grpc::Status status = TicketFeedService::NewStub(context.fetcher())->ListTickets(Call().get(), request, &page);
  if (!status.ok()) return Report(status);
  if (context.json()) {
    std::cout << Json(page) << "\n";
    return 0;
  }
  std::vector<std::vector<std::string>> rows{{"TICKET", "MAILBOX", "OPENED", "MESSAGES", "SUBJECT"}};
  for (const auto& t : page.tickets()) {
    rows.push_back({t.name(), t.mailbox(), Time(t.create_time()), std::to_string(t.message_count()), t.subject()});
  }
  std::cout << Table(rows);
  if (!page.next_page_token().empty()) std::cerr << "There are more; these are the newest.\n";
  return 0;
}

int Get(const Context& context, const std::string& name) {
  fetcher::v1::GetTicketRequest request;
  request.set_name(name.starts_with("tickets/") ? name : "tickets/" + name);
  fetcher::v1::GetTicketResponse response;
  const grpc::Status status =
      TicketFeedService::NewStub(context.fetcher())->GetTicket(Call().get(), request, &response);
  if (!status.ok()) return Report(status);
  const auto& t = response.ticket();
  if (context.json()) {
    std::cout << Json(t) << "\n";
    return 0;
  }
  std::vector<std::vector<std::string>> rows{
      {"ticket", t.name()}, {"mailbox", t.mailbox()}, {"subject", t.subject()}, {"opened", Time(t.create_time())}};
  for (const auto& m : t.messages()) rows.push_back({"message", m});
  for (const auto& p : t.participants()) rows.push_back({"participant", p});
  std::cout << Table(rows);
  return 0;
}

// Prints each event and acknowledges it after it was printed: what a crash swallowed comes again.
int Watch(const Context& context, const std::string& subscription, bool from_beginning, int count) {
  auto stub = TicketFeedService::NewStub(context.fetcher());
  grpc::ClientContext call;
  auto stream = stub->Subscribe(&call);
  fetcher::v1::SubscribeRequest request;
  auto* start = request.mutable_start();
  start->set_subscription(subscription);
  start->set_from(from_beginning ? fetcher::v1::SubscribeRequest::Start::FROM_BEGINNING
                                 : fetcher::v1::SubscribeRequest::Start::FROM_NOW);
  stream->Write(request);
  fetcher::v1::SubscribeResponse response;
  int seen = 0;
  while (stream->Read(&response)) {
    if (response.has_standby()) std::cerr << "All partitions have a subscriber already; waiting.\n";
    if (!response.has_delivery()) continue;
    const auto& event = response.delivery().event();
    if (context.json()) {
      std::cout << Json(event, false) << std::endl;
    } else {
      std::cout << EventLine(event) << std::endl;
    }
    fetcher::v1::SubscribeRequest ack;
    *ack.mutable_acknowledge()->mutable_position() = event.position();
    ack.mutable_acknowledge()->set_generation(response.delivery().generation());
    stream->Write(ack);
    if (count > 0 && ++seen == count) stream->WritesDone();
    if (count > 0 && seen == count) break;
  }
  while (stream->Read(&response)) {
  }
  return Report(stream->Finish());
}

}  // namespace

void AddTicketCommands(CLI::App& app, Context& context) {
  CLI::App* noun = app.add_subcommand("ticket", "Tickets")->require_subcommand(1);
  auto mailbox = std::make_shared<std::string>();
  auto name = std::make_shared<std::string>();
  auto subscription = std::make_shared<std::string>("command-line");
  auto from_beginning = std::make_shared<bool>(false);
  auto count = std::make_shared<int>(0);
  Command(*noun, context, "list", "Newest tickets", [&context, mailbox] {
    return List(context, *mailbox);
  })->add_option("--mailbox", *mailbox, "Only of this mailbox");
  Command(*noun, context, "get", "One ticket", [&context, name] { return Get(context, *name); })
      ->add_option("TICKET", *name)
      ->required();
  CLI::App* watch = Command(*noun, context, "watch", "Print events as they come",
                            [=, &context] { return Watch(context, *subscription, *from_beginning, *count); });
  watch->add_option("--subscription", *subscription, "Name whose position is kept");
  watch->add_flag("--from-beginning", *from_beginning, "A new subscription begins with the oldest event");
  watch->add_option("--count", *count, "End after this many events");
}

}  // namespace poststelle::cli
