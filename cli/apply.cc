// apply, diff and export: mailboxes and catalogues as YAML.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cli/context.h"
#include "cli/files.h"
#include "cli/output.h"
#include "cli/resources.h"
#include "cli/yaml.h"

namespace poststelle::cli {
namespace {

using config::v1::Mailbox;

// In the order in which one may refer to the other.
int PhaseOf(const Document& document) {
  if (document.kind != "Mailbox") return 0;
  const auto& mailbox = dynamic_cast<const Mailbox&>(*document.message);
  return mailbox.direction() == Mailbox::DIRECTION_OUTBOUND ? 1 : 2;
}

absl::StatusOr<std::vector<Document>> ReadFiles(const std::vector<std::string>& files) {
  std::vector<Document> out;
  for (const std::string& file : files) {
    absl::StatusOr<std::string> text = ReadInput(file);
    if (!text.ok()) return text.status();
    absl::StatusOr<std::vector<Document>> documents = ReadDocuments(*text, file == "-" ? "standard input" : file);
    if (!documents.ok()) return documents.status();
    for (Document& document : *documents) out.push_back(std::move(document));
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const Document& a, const Document& b) { return PhaseOf(a) < PhaseOf(b); });
  return out;
}

// The value that `reference` names; kNotFound if there is none.
absl::StatusOr<std::string> Resolve(const SecretReference& reference) {
  if (!reference.path.empty()) {
    absl::StatusOr<std::string> text = ReadInput(reference.path);
    if (!text.ok()) return absl::NotFoundError(absl::StrCat(reference.where, ": ", text.status().message()));
    return FirstLine(*std::move(text));
  }
  const char* value = std::getenv(reference.variable.c_str());
  if (value == nullptr || *value == '\0') {
    return absl::NotFoundError(
        absl::StrCat(reference.where, ": the environment has no variable ", reference.variable, " for the password"));
  }
  return std::string(value);
}

std::string VariableFor(const Mailbox& mailbox) {
  std::string out = "POSTSTELLE_PASSWORD_";
  for (char c : mailbox.name().substr(mailbox.name().find('/') + 1)) {
    out +=
        absl::ascii_isalnum(static_cast<unsigned char>(c)) ? absl::ascii_toupper(static_cast<unsigned char>(c)) : '_';
  }
  return out;
}

std::string Text(const std::string& kind, const google::protobuf::Message& message) {
  const auto* mailbox = dynamic_cast<const Mailbox*>(&message);
  return WriteDocument(kind, message, mailbox == nullptr ? "" : VariableFor(*mailbox));
}

// Lines of both texts, those that only one has marked by - and +.
std::string LineDiff(const std::string& before, const std::string& after) {
  const std::vector<std::string> a = absl::StrSplit(before, '\n', absl::SkipEmpty());
  const std::vector<std::string> b = absl::StrSplit(after, '\n', absl::SkipEmpty());
  // Length of the longest common sequence of lines from (i, j) on.
  std::vector<std::vector<size_t>> common(a.size() + 1, std::vector<size_t>(b.size() + 1, 0));
  for (size_t i = a.size(); i-- > 0;) {
    for (size_t j = b.size(); j-- > 0;) {
      common[i][j] = a[i] == b[j] ? common[i + 1][j + 1] + 1 : std::max(common[i + 1][j], common[i][j + 1]);
    }
  }
  std::string out;
  size_t i = 0, j = 0;
  while (i < a.size() || j < b.size()) {
    if (i < a.size() && j < b.size() && a[i] == b[j]) {
      absl::StrAppend(&out, "  ", a[i++], "\n");
      ++j;
    } else if (j == b.size() || (i < a.size() && common[i + 1][j] >= common[i][j + 1])) {
      absl::StrAppend(&out, "- ", a[i++], "\n");
    } else {
      absl::StrAppend(&out, "+ ", b[j++], "\n");
    }
  }
  return out;
}

// One run of apply or diff.
class Applying {
 public:
  Applying(const Context& context, bool only_show) : only_show_(only_show), resources_(context) {}

  int Run(const std::vector<std::string>& files) {
    absl::StatusOr<std::vector<Document>> documents = ReadFiles(files);
    if (!documents.ok()) return Usage(documents.status());
    if (const grpc::Status read = resources_.Load(); !read.ok()) return Report(read);
    for (Document& document : *documents) {
      if (const int code = ApplyOne(document); code != 0) return code;
    }
    // Counterparts that were not there yet when the first of the two was made.
    for (const auto& [name, counterpart] : later_) {
      Mailbox mailbox = *resources_.FindAs<Mailbox>(name);
      mailbox.set_counterpart(counterpart);
      if (const grpc::Status put = resources_.Put(mailbox, false); !put.ok()) return Report(put);
    }
    if (!only_show_) {
      std::cerr << created_ << " created, " << changed_ << " changed, " << unchanged_ << " unchanged\n";
      return 0;
    }
    return created_ + changed_ == 0 ? 0 : 7;
  }

 private:
  static int Usage(const absl::Status& status) {
    std::cerr << "error: " << Escape(std::string(status.message())) << "\n";
    return 2;
  }

  int ApplyOne(Document& document) {
    const std::string name = NameOf(*document.message);
    if (name.empty()) return Usage(absl::InvalidArgumentError(document.where + ": the key name is missing"));
    const std::unique_ptr<google::protobuf::Message> before = resources_.Find(name);
    std::string counterpart;
    if (auto* mailbox = dynamic_cast<Mailbox*>(document.message.get())) {
      if (const absl::Status set = SetPassword(document, before.get(), *mailbox); !set.ok()) return Usage(set);
      if (!mailbox->counterpart().empty() && resources_.Find(mailbox->counterpart()) == nullptr) {
        counterpart = mailbox->counterpart();
        mailbox->clear_counterpart();
      }
    }
    Mailbox told;  // with what is to be made in the same run
    auto* shown = dynamic_cast<Mailbox*>(document.message.get());
    if (only_show_ && shown != nullptr) told = WithoutComing(*shown);
    const grpc::Status put = resources_.Put(*document.message, only_show_);
    if (!put.ok()) {
      std::cerr << document.where << ": " << name << "\n";
      return Report(put);
    }
    if (!counterpart.empty() && !only_show_) later_.emplace_back(name, counterpart);
    if (only_show_ && shown != nullptr) {
      shown->set_counterpart(counterpart.empty() ? shown->counterpart() : counterpart);
      if (shown->has_import_options()) TakeReferences(told.import_options(), *shown->mutable_import_options());
    }
    Tell(document, before.get());
    return 0;
  }

  // Clears what `mailbox` refers to and an earlier document of this run would make; returns it as it was.
  Mailbox WithoutComing(Mailbox& mailbox) const {
    const Mailbox before = mailbox;
    if (!mailbox.has_import_options()) return before;
    config::v1::ImportOptions& options = *mailbox.mutable_import_options();
    auto coming = [this](const std::string& name) { return !name.empty() && coming_.contains(name); };
    if (coming(options.reply_via())) options.clear_reply_via();
    if (coming(options.new_ticket_status())) options.clear_new_ticket_status();
    if (coming(options.reply_ticket_status())) options.clear_reply_ticket_status();
    options.clear_ticket_labels();
    for (const std::string& label : before.import_options().ticket_labels()) {
      if (!coming(label)) options.add_ticket_labels(label);
    }
    return before;
  }
  static void TakeReferences(const config::v1::ImportOptions& from, config::v1::ImportOptions& to) {
    to.set_reply_via(from.reply_via());
    to.set_new_ticket_status(from.new_ticket_status());
    to.set_reply_ticket_status(from.reply_ticket_status());
    *to.mutable_ticket_labels() = from.ticket_labels();
  }

  static absl::Status SetPassword(const Document& document, const google::protobuf::Message* before, Mailbox& mailbox) {
    if (document.secrets.empty()) return absl::OkStatus();
    absl::StatusOr<std::string> password = Resolve(document.secrets.front());
    const auto* stored = dynamic_cast<const Mailbox*>(before);
    const bool kept = stored != nullptr && stored->password_authentication().password_set();
    if (!password.ok() && kept) return absl::OkStatus();  // the stored one stays
    if (!password.ok()) return password.status();
    mailbox.mutable_password_authentication()->set_password(*std::move(password));
    return absl::OkStatus();
  }

  void Tell(const Document& document, const google::protobuf::Message* before) {
    const google::protobuf::Message& after = *document.message;
    const std::string name = NameOf(after);
    if (before == nullptr) {
      if (only_show_) coming_.insert(name);
      ++created_;
      std::cout << (only_show_ ? LineDiff("", Text(document.kind, after)) : "created " + name + "\n");
      return;
    }
    if (EtagOf(*before) == EtagOf(after)) {
      ++unchanged_;
      if (!only_show_) std::cout << "unchanged " << name << "\n";
      return;
    }
    ++changed_;
    if (!only_show_) {
      std::cout << "changed " << name << "\n";
      return;
    }
    const std::string old_text = Text(document.kind, *before), new_text = Text(document.kind, after);
    if (old_text == new_text) {
      std::cout << "  " << name << "\n+ another password\n";
    } else {
      std::cout << LineDiff(old_text, new_text);
    }
  }

  const bool only_show_;
  Resources resources_;
  std::vector<std::pair<std::string, std::string>> later_;
  std::set<std::string> coming_;  // names that a run of apply would have made by now
  int created_ = 0, changed_ = 0, unchanged_ = 0;
};

int Export(const Context& context) {
  Resources resources(context);
  if (const grpc::Status read = resources.Load(); !read.ok()) return Report(read);
  for (const auto& [kind, message] : resources.All()) std::cout << Text(kind, *message);
  return 0;
}

}  // namespace

void AddApplyCommands(CLI::App& app, Context& context) {
  auto files = std::make_shared<std::vector<std::string>>();
  CLI::App* apply = Command(app, context, "apply", "Make mailboxes and catalogues what YAML files say; others stay",
                            [&context, files] { return Applying(context, false).Run(*files); });
  apply->add_option("-f,--file", *files, "YAML file, or - for standard input")->required();
  CLI::App* diff = Command(app, context, "diff", "Show what apply would change; exit code 7 if it would",
                           [&context, files] { return Applying(context, true).Run(*files); });
  diff->add_option("-f,--file", *files, "YAML file, or - for standard input")->required();
  Command(app, context, "export", "All mailboxes and catalogues as YAML, passwords as references",
          [&context] { return Export(context); });
}

}  // namespace poststelle::cli
