// Trying mailboxes: `mailbox test` and `mailbox preview`.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <optional>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/context.h"
#include "cli/mailbox_options.h"
#include "cli/output.h"
#include "libs/rpc/status.h"

namespace poststelle::cli {
namespace {

using config::v1::Connection;
using config::v1::LocalizedText;
using config::v1::Mailbox;
using config::v1::MailboxService;
using config::v1::TestStep;

// A step failed: the answer to the question is no.
constexpr int kTestFailed = 7;

struct TestOptions {
  MailboxOptions mailbox;
  std::string what;
  std::string to;
  std::string language = "en";
  bool unsaved = false;
};

const std::string& In(const std::string& language, const LocalizedText& text) {
  return language == "de" ? text.de() : text.en();
}

// What is tried: a saved mailbox, or the options, over a saved one if one is named.
template <typename Request>
std::optional<int> FillTarget(const Context& context, const TestOptions& o, Request& request) {
  Mailbox saved;
  if (!o.what.empty()) {
    if (const grpc::Status found = FindMailbox(context, o.what, saved); !found.ok()) return Report(found);
  }
  if (!o.unsaved) {
    if (o.what.empty()) {
      std::cerr << "error: name a mailbox, or give settings with --unsaved\n";
      return 2;
    }
    request.set_name(saved.name());
    return std::nullopt;
  }
  Mailbox& m = *request.mutable_mailbox();
  m = saved;
  if (saved.name().empty()) {
    m.set_direction(o.mailbox.outbound ? Mailbox::DIRECTION_OUTBOUND : Mailbox::DIRECTION_INBOUND);
    m.mutable_connection()->set_protocol(o.mailbox.outbound ? Connection::PROTOCOL_SMTP : Connection::PROTOCOL_IMAP);
  } else if (!o.mailbox.encryption.empty() && o.mailbox.port == 0) {
    m.mutable_connection()->set_port(0);  // the usual one of the other encryption
  }
  m.mutable_password_authentication();
  std::vector<std::string> paths;
  if (!Fill(o.mailbox, m, paths)) return 2;
  if (m.display_name().empty()) m.set_display_name("unsaved");
  return std::nullopt;
}

std::string Took(const google::protobuf::Duration& duration) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(2)
      << static_cast<double>(duration.seconds()) + static_cast<double>(duration.nanos()) / 1e9 << " s";
  return out.str();
}

std::string Row(const std::string& step, const std::string& outcome, const std::string& took,
                const std::string& detail) {
  std::ostringstream out;
  out << std::left << std::setw(12) << step << std::setw(9) << outcome << std::setw(9) << took << Escape(detail)
      << "\n";
  return out.str();
}

void Print(const TestStep& step, const std::string& language) {
  std::string name = Short(TestStep::Kind_Name(step.kind()), "KIND_");
  std::replace(name.begin(), name.end(), '_', '-');
  std::cout << Row(name, Short(TestStep::Outcome_Name(step.outcome()), "OUTCOME_"), Took(step.duration()),
                   step.detail());
  const auto more = [](const std::string& label, const std::string& text) {
    if (!text.empty()) std::cout << "            " << label << Escape(text) << "\n";
  };
  const bool german = language == "de";
  if (!step.reason().empty()) more("", step.reason() + ": " + In(language, step.explanation()));
  if (step.has_certificate()) {
    const auto& c = step.certificate();
    more(german ? "Zertifikat: " : "certificate: ",
         absl::StrCat(c.subject(), german ? ", ausgestellt von " : ", issued by ", c.issuer(),
                      german ? ", für " : ", for ", absl::StrJoin(c.dns_names(), ", "),
                      german ? ", gültig " : ", valid ", Time(c.not_before()), " - ", Time(c.not_after())));
    more("SHA-256: ", c.key_sha256());
  }
  more(german ? "Der Server sagt: " : "the server says: ", step.server_words());
  more(german ? "Was tun: " : "what to do: ", In(language, step.remedy()));
  std::cout << std::flush;
}

int Test(const Context& context, const TestOptions& o) {
  config::v1::TestMailboxRequest request;
  if (std::optional<int> exit_code = FillTarget(context, o, request)) return *exit_code;
  request.set_test_recipient(o.to);
  grpc::ClientContext call;  // no deadline: the service bounds each step
  auto reader = MailboxService::NewStub(context.config())->TestMailbox(&call, request);
  config::v1::TestMailboxResponse response;
  bool failed = false;
  bool first = true;
  while (reader->Read(&response)) {
    const TestStep& step = response.step();
    failed = failed || step.outcome() == TestStep::OUTCOME_FAILED;
    if (context.json()) {
      std::cout << Json(step, false) << std::endl;
    } else if (step.outcome() != TestStep::OUTCOME_RUNNING) {
      if (std::exchange(first, false)) std::cout << Row("STEP", "OUTCOME", "TOOK", "DETAIL");
      Print(step, o.language);
    }
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return Report(status);
  return failed ? kTestFailed : 0;
}

int Preview(const Context& context, const TestOptions& o) {
  config::v1::PreviewMailboxRequest request;
  if (std::optional<int> exit_code = FillTarget(context, o, request)) return *exit_code;
  config::v1::PreviewMailboxResponse response;
  grpc::ClientContext call;  // no deadline: a huge folder takes its time
  const grpc::Status status = MailboxService::NewStub(context.config())->PreviewMailbox(&call, request, &response);
  if (!status.ok()) {
    const int exit_code = Report(status);
    return rpc::ReasonOf(status) == "TEST_FAILED" ? kTestFailed : exit_code;
  }
  if (context.json()) {
    std::cout << Json(response) << "\n";
    return 0;
  }
  std::vector<std::vector<std::string>> rows{
      {"FOLDER", "MESSAGES", "WOULD IMPORT", "BYTES", "OLDEST", "NEWEST", "PASSED OVER"}};
  for (const auto& f : response.folders()) {
    std::vector<std::string> passed;
    for (const auto& p : f.passed_over())
      passed.push_back(absl::StrCat(p.messages(), " ", absl::AsciiStrToLower(p.reason())));
    rows.push_back({f.folder(), std::to_string(f.messages()), std::to_string(f.would_import()),
                    std::to_string(f.bytes()), Time(f.oldest()), Time(f.newest()),
                    passed.empty() ? "-" : absl::StrJoin(passed, ", ")});
  }
  std::cout << Table(rows);
  return 0;
}

void AddTarget(CLI::App* command, TestOptions& o) {
  command->add_option("MAILBOX", o.what, "A saved mailbox");
  command->add_flag("--unsaved", o.unsaved, "Try the settings given here (over those of MAILBOX) and save nothing");
  AddOptions(command, o.mailbox);
  command->add_flag("--outbound,!--inbound", o.mailbox.outbound, "Direction of settings without MAILBOX");
}

}  // namespace

void AddMailboxTestCommands(CLI::App& noun, Context& context) {
  auto test_options = std::make_shared<TestOptions>();
  CLI::App* test = Command(noun, context, "test", "Try a mailbox's settings step by step (exit code 7: a step failed)",
                           [&context, test_options] { return Test(context, *test_options); });
  AddTarget(test, *test_options);
  test->add_option("--to", test_options->to, "Outbound: send a test message to this address");
  test->add_option("--lang", test_options->language, "Language of the explanations, de or en")
      ->check(CLI::IsMember({"de", "en"}));
  auto preview_options = std::make_shared<TestOptions>();
  CLI::App* preview = Command(noun, context, "preview", "What enabling a mailbox would import; changes nothing",
                              [&context, preview_options] { return Preview(context, *preview_options); });
  AddTarget(preview, *preview_options);
}

}  // namespace poststelle::cli
