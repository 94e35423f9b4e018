#include <filesystem>
#include <fstream>
#include <iostream>

#include "cli/context.h"
#include "cli/event_line.h"
#include "cli/output.h"
#include "libs/parsing/jsonl.h"
#include "libs/parsing/parser_pool.h"
#include "poststelle/fetcher/v1/message_service.grpc.pb.h"

namespace poststelle::cli {
namespace {

int Raw(const Context& context, const std::string& name) {
  fetcher::v1::DownloadRawRequest request;
  request.set_name(name.starts_with("messages/") ? name : "messages/" + name);
  auto call = Call();
  auto reader = fetcher::v1::MessageService::NewStub(context.fetcher())->DownloadRaw(call.get(), request);
  fetcher::v1::DownloadRawResponse piece;
  while (reader->Read(&piece)) std::cout.write(piece.data().data(), static_cast<std::streamsize>(piece.data().size()));
  std::cout.flush();
  return Report(reader->Finish());
}

int Get(const Context& context, const std::string& name) {
  fetcher::v1::GetMessageRequest request;
  request.set_name(name.starts_with("messages/") ? name : "messages/" + name);
  fetcher::v1::GetMessageResponse response;
  const grpc::Status status =
      fetcher::v1::MessageService::NewStub(context.fetcher())->GetMessage(Call().get(), request, &response);
  if (!status.ok()) return Report(status);
  if (context.json()) {
    std::cout << Json(response) << "\n";
    return 0;
  }
  const auto& m = response.message();
  const auto& outcome = response.outcome();
  std::vector<std::vector<std::string>> rows{
      {"message", m.name()},         {"mailbox", m.mailbox()},
      {"ticket", outcome.ticket()},  {"from", m.from().display_name() + " <" + m.from().address() + ">"},
      {"subject", m.subject()},      {"received", Time(m.receive_time())},
      {"message id", m.message_id()}};
  if (const std::string origin = OriginWords(m); !origin.empty()) {
    rows.push_back({"origin", origin + " (" + m.origin_evidence() + ")"});
  }
  for (const auto& r : m.delivery_reports()) {
    rows.push_back({"delivery", r.recipient() + " " + r.action() + " " + r.status() + " " + r.diagnostic()});
  }
  if (m.delivery_reports_size() > 0) rows.push_back({"about", m.delivery_reports(0).original_message_id()});
  for (const auto& a : m.attachments()) rows.push_back({"attachment", a.filename() + " (" + a.content_type() + ")"});
  if (m.historical()) rows.push_back({"historical", "yes"});
  if (!m.note().empty()) rows.push_back({"note", m.note()});
  std::cout << Table(rows);
  return 0;
}

struct ParseJob {
  bool jsonl = false;
  std::string root;
  std::vector<std::string> files;
};

std::string IdOf(const std::string& file, const std::string& root) {
  std::string id = file;
  if (!root.empty()) {
    const auto relative =
        std::filesystem::weakly_canonical(file).lexically_relative(std::filesystem::weakly_canonical(root));
    if (!relative.empty() && !relative.string().starts_with("..")) id = relative.string();
  }
  if (id.ends_with(".eml")) id.resize(id.size() - 4);
  return id;
}

void PrintMail(const std::string& id, const mail::ParsedMail& m) {
  std::vector<std::vector<std::string>> rows{
      {"file", id},
      {"from", m.from_size() > 0 ? m.from(0).name() + " <" + m.from(0).address() + ">" : ""},
      {"subject", m.subject()},
      {"message id", m.message_id()}};
  for (const auto& a : m.attachments()) rows.push_back({"attachment", a.filename() + " (" + a.content_type() + ")"});
  if (m.origin() != mail::ORIGIN_UNSPECIFIED) {
    rows.push_back({"origin", Short(mail::Origin_Name(m.origin()), "ORIGIN_") + " (" + m.origin_evidence() + ")"});
  }
  for (const auto& r : m.delivery_reports()) {
    rows.push_back({"delivery", r.recipient() + " " + r.action() + " " + r.status() + " " + r.diagnostic()});
  }
  if (m.undecodable()) rows.push_back({"undecodable", m.undecodable_reason()});
  std::cout << Table(rows) << "\n";
}

async::Task<void> ParseAll(parsing::ParserPool& pool, const ParseJob& job, int& exit_code) {
  for (const std::string& file : job.files) {
    const std::string id = IdOf(file, job.root);
    std::ifstream in(file, std::ios::binary);
    if (!in || std::filesystem::is_directory(file)) {
      std::cout << (job.jsonl ? parsing::ErrorLine(id, "can't be read") : Escape(id) + ": can't be read") << "\n";
      exit_code = 1;
      continue;
    }
    const std::string raw((std::istreambuf_iterator<char>(in)), {});
    const absl::StatusOr<mail::ParsedMail> parsed = co_await pool.Parse(raw);
    if (!parsed.ok()) {
      const std::string reason(parsed.status().message());
      std::cout << (job.jsonl ? parsing::ErrorLine(id, reason) : Escape(id) + ": " + Escape(reason)) << "\n";
      exit_code = 1;
    } else if (job.jsonl) {
      std::cout << parsing::ToJsonLine(id, *parsed) << "\n";
    } else {
      PrintMail(id, *parsed);
    }
  }
}

int Parse(const ParseJob& job) {
  async::Runtime runtime(2);
  parsing::ParserPool pool(runtime.executor(), parsing::ParserPool::Options());
  int exit_code = 0;
  async::RunBlocking(runtime.executor(), ParseAll(pool, job, exit_code));
  pool.Stop();
  return exit_code;
}

}  // namespace

void AddMessageCommands(CLI::App& app, Context& context) {
  CLI::App* noun = app.add_subcommand("message", "Messages")->require_subcommand(1);
  auto name = std::make_shared<std::string>();
  auto job = std::make_shared<ParseJob>();
  Command(*noun, context, "get", "One message, without its text", [&context, name] { return Get(context, *name); })
      ->add_option("MESSAGE", *name)
      ->required();
  Command(*noun, context, "raw", "The mail byte for byte", [&context, name] { return Raw(context, *name); })
      ->add_option("MESSAGE", *name)
      ->required();
  CLI::App* parse =
      Command(*noun, context, "parse", "Decode mails from files, as the fetcher does", [job] { return Parse(*job); });
  parse->add_flag("--jsonl", job->jsonl, "One JSON object a line");
  parse->add_option("--root", job->root, "Folder below which a file's path is its id");
  parse->add_option("FILE", job->files)->required();
}

}  // namespace poststelle::cli
