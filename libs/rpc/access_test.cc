#include "libs/rpc/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/sha.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/escaping.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "libs/base/ids.h"
#include "libs/rpc/status.h"
#include "libs/rpc/unary.h"
#include "poststelle/config/v1/credential_service.grpc.pb.h"
#include "poststelle/config/v1/mailbox_service.pb.h"

namespace poststelle::rpc {
namespace {

using auth::v1::Role;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;

constexpr char kViewer[] = "token-of-the-viewer-of-36-characters";
constexpr char kService[] = "token-of-the-service-of-37-characters";

std::string Sha256(const std::string& text) {
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return absl::BytesToHexString(digest);
}

const CallerIdentity* Find(const Identities& identities, const std::string& token) {
  return identities.Find(Identities::DigestOf(token));
}

TEST(Identities, AreFoundByTheirTokensInClearAndHashed) {
  const auto parsed = Identities::Parse("file", "# people\r\n\r\nanna\tadmin  sha256:" + Sha256("anna's secret") +
                                                    "\r\n  helpdesk consumer " + kViewer + "  ");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_NE(Find(*parsed, "anna's secret"), nullptr);
  EXPECT_EQ(Find(*parsed, "anna's secret")->name, "anna");
  EXPECT_EQ(Find(*parsed, "anna's secret")->role, auth::v1::ROLE_ADMIN);
  EXPECT_EQ(Find(*parsed, kViewer)->role, auth::v1::ROLE_CONSUMER);
  EXPECT_EQ(Find(*parsed, ""), nullptr);
  EXPECT_EQ(Find(*parsed, "anna's secre"), nullptr);
  // The hash from the file is no token.
  EXPECT_EQ(Find(*parsed, Sha256("anna's secret")), nullptr);
  EXPECT_EQ(Find(*parsed, "sha256:" + Sha256("anna's secret")), nullptr);
}

TEST(Identities, ATokenIsReplacedWhileBothWork) {
  const auto parsed = Identities::Parse("file", std::string("a viewer ") + kViewer + "\na viewer " + kService);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(Find(*parsed, kViewer)->name, "a");
  EXPECT_EQ(Find(*parsed, kService)->name, "a");
}

TEST(Identities, AMistakeNamesItsLineAndTheFixAndNoWordOfIt) {
  const std::string token = kViewer;
  const std::vector<std::pair<std::string, std::string>> mistakes = {
      {"a viewer", "expected \"<name> <role> <token>\""},
      {token, "expected"},
      {"a viewer " + token + " more", "expected"},
      {"a " + token + " viewer",
       "the role, the second word, must be one of viewer, operator, admin, consumer, service"},
      {"a unspecified " + token, "the role"},
      {"a Viewer " + token, "the role"},
      {token + token + " viewer " + token, "the name"},
      {"ä viewer " + token, "the name"},
      {"a viewer short-canary", "20 to 512"},
      {"a viewer " + std::string(513, 'x'), "20 to 512"},
      {"a viewer " + token + "\x01", "ASCII"},
      {"a viewer sha256:" + token, "64 hexadecimal digits"},
      {"a viewer sha256:" + std::string(63, 'a'), "64 hexadecimal digits"},
      {"b viewer " + std::string(kService), "the same token"},
      {"first viewer " + token, "another role"},
  };
  for (const auto& [line, fix] : mistakes) {
    const auto parsed = Identities::Parse("ids", std::string("# x\nfirst service ") + kService + "\n" + line + "\n");
    ASSERT_FALSE(parsed.ok()) << line;
    const std::string message(parsed.status().message());
    EXPECT_THAT(message, HasSubstr("ids:3: ")) << line;
    EXPECT_THAT(message, HasSubstr(fix)) << line;
    for (const std::string& secret : {token, std::string(kService), std::string("canary")}) {
      EXPECT_THAT(message, Not(HasSubstr(secret))) << line;
    }
  }
  EXPECT_THAT(std::string(Identities::Parse("ids", "# nobody\n").status().message()), HasSubstr("ids holds no line"));
}

TEST(Role, PeopleIncludeOneAnotherAndProgramsNothing) {
  std::map<Role, std::string> included;
  for (int held = auth::v1::Role_MIN; held <= auth::v1::Role_MAX; ++held) {
    for (int wanted = auth::v1::Role_MIN; wanted <= auth::v1::Role_MAX; ++wanted) {
      const bool includes = Includes(static_cast<Role>(held), static_cast<Role>(wanted));
      included[static_cast<Role>(held)] += includes ? RoleName(static_cast<Role>(wanted))[0] : '-';
    }
  }
  EXPECT_THAT(included, ElementsAre(Pair(auth::v1::ROLE_UNSPECIFIED, "------"), Pair(auth::v1::ROLE_VIEWER, "-v----"),
                                    Pair(auth::v1::ROLE_OPERATOR, "-vo---"), Pair(auth::v1::ROLE_ADMIN, "-voa--"),
                                    Pair(auth::v1::ROLE_CONSUMER, "----c-"), Pair(auth::v1::ROLE_SERVICE, "-----s")));
}

TEST(MethodRule, IsWhatTheProtoSays) {
  const MethodRule& watch = RuleOf<config::v1::WatchMailboxesRequest>();
  EXPECT_EQ(watch.method, "poststelle.config.v1.MailboxService/WatchMailboxes");
  EXPECT_THAT(watch.served, ElementsAre(auth::v1::ROLE_VIEWER, auth::v1::ROLE_OPERATOR, auth::v1::ROLE_ADMIN,
                                        auth::v1::ROLE_SERVICE));
  EXPECT_THAT(RuleOf<config::v1::GetCredentialsRequest>().served, ElementsAre(auth::v1::ROLE_SERVICE));
}

TEST(MethodRule, AMethodThatSaysNothingServesNobody) {
  // A type that no method takes, and one whose method has no option.
  EXPECT_THAT(RuleOf<config::v1::GetMailboxResponse>().served, IsEmpty());
  google::protobuf::FileDescriptorProto file;
  file.set_name("silent.proto");
  file.set_package("silent");
  file.add_message_type()->set_name("GetRequest");
  auto* service = file.add_service();
  service->set_name("Silent");
  auto* method = service->add_method();
  method->set_name("Get");
  method->set_input_type(".silent.GetRequest");
  method->set_output_type(".silent.GetRequest");
  google::protobuf::DescriptorPool pool;
  const MethodRule rule = MakeMethodRule(*pool.BuildFile(file)->message_type(0));
  EXPECT_EQ(rule.method, "silent.Silent/Get");
  EXPECT_THAT(rule.served, IsEmpty());
  const grpc::Status refused = RoleInsufficient({"anna", auth::v1::ROLE_ADMIN}, rule);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(refused.error_message(), HasSubstr("serves nobody"));

  // Two methods that take one type: which of them is called can't be told, so nobody is served.
  *service->add_method() = *method;
  service->mutable_method(1)->set_name("GetAgain");
  file.set_name("twice.proto");
  file.set_package("twice");
  for (auto& m : *service->mutable_method()) {
    m.set_input_type(".twice.GetRequest");
    m.set_output_type(".twice.GetRequest");
    m.mutable_options()->AddExtension(auth::v1::allow, auth::v1::ROLE_VIEWER);
  }
  EXPECT_THAT(MakeMethodRule(*pool.BuildFile(file)->message_type(0)).served, IsEmpty());
}

TEST(IsLoopback, ByTheAddressOfThePeer) {
  for (const char* peer : {"ipv4:127.0.0.1:50000", "ipv4:127.9.9.9:1", "ipv6:[::1]:50000", "ipv6:%5B::1%5D:50000",
                           "ipv6:%5B::ffff:127.0.0.1%5D:1", "unix:", "unix:/run/x"}) {
    EXPECT_TRUE(IsLoopback(peer)) << peer;
  }
  for (const char* peer : {"ipv4:128.0.0.1:127", "ipv4:10.127.0.0:1", "ipv6:[::1:2]:1", "ipv6:[::12]:1",
                           "ipv6:%5B::1:1%5D:1", "ipv6:[fe80::1]:1", "ipv6:%5B::ffff:10.0.0.1%5D:1", "unknown", ""}) {
    EXPECT_FALSE(IsLoopback(peer)) << peer;
  }
}

// A server whose GetCredentials answers with the name of its caller.
class Credentials : public config::v1::CredentialService::CallbackService {
 public:
  Credentials(const asio::any_io_executor& executor, const Access& access) : gate_(executor, access) { gate_.Open(); }
  grpc::ServerUnaryReactor* GetCredentials(grpc::CallbackServerContext* context,
                                           const config::v1::GetCredentialsRequest* request,
                                           config::v1::GetCredentialsResponse* response) override {
    return Unary(context, gate_, *request, Answer(gate_.CallerOf(*context), *response));
  }

 private:
  static async::Task<grpc::Status> Answer(CallerIdentity caller, config::v1::GetCredentialsResponse& response) {
    response.set_login_name(caller.name);
    co_return grpc::Status::OK;
  }
  Gate gate_;
};

class AccessTest : public ::testing::Test {
 protected:
  AccessTest() {
    std::filesystem::create_directory(directory_);
    std::filesystem::create_symlink("..data/identities", file_);
  }
  ~AccessTest() override {
    if (server_ != nullptr) server_->Shutdown();
    std::filesystem::remove_all(directory_);
  }
  // As Kubernetes does: a folder of the new version, to which a link is moved.
  void Write(const std::string& text) {
    const std::string version = "..version" + std::to_string(++versions_);
    std::filesystem::create_directory(directory_ / version);
    const std::filesystem::path content = directory_ / version / "identities";
    std::ofstream(content) << text;
    ASSERT_EQ(chmod(content.c_str(), 0600), 0);
    std::filesystem::create_symlink(version, directory_ / "..new");
    std::filesystem::rename(directory_ / "..new", directory_ / "..data");
  }
  absl::Status Serve(bool loopback, bool file = true) {
    AccessOptions options;
    if (file) options.identities_file = file_;
    options.allow_unauthenticated_loopback = loopback;
    auto opened = Access::Open(options);
    if (!opened.ok()) return opened.status();
    access_ = *std::move(opened);
    service_ = std::make_unique<Credentials>(runtime_.executor(), *access_);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    stub_ = config::v1::CredentialService::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
    return absl::OkStatus();
  }
  grpc::Status Call(const std::vector<std::string>& authorizations) {
    grpc::ClientContext context;
    for (const std::string& value : authorizations) context.AddMetadata("authorization", value);
    return stub_->GetCredentials(&context, {}, &response_);
  }
  std::string Reason(const std::vector<std::string>& authorizations) { return ReasonOf(Call(authorizations)); }

  const std::filesystem::path directory_ = std::filesystem::temp_directory_path() / ("poststelle-access-" + RandomId());
  const std::string file_ = (directory_ / "identities").string();
  const std::string lines_ =
      std::string("view viewer ") + kViewer + "\nfetcher service sha256:" + Sha256(kService) + "\n";
  const std::string service_token_ = std::string("Bearer ") + kService;
  int versions_ = 0;
  async::Runtime runtime_{2};
  std::unique_ptr<Access> access_;
  std::unique_ptr<Credentials> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<config::v1::CredentialService::Stub> stub_;
  config::v1::GetCredentialsResponse response_;
};

TEST_F(AccessTest, SaysWhoIsServedAndWhy) {
  Write(lines_);
  ASSERT_TRUE(Serve(false).ok());
  EXPECT_TRUE(Call({service_token_}).ok());
  EXPECT_EQ(response_.login_name(), "fetcher");
  EXPECT_TRUE(Call({std::string("bearer ") + kService}).ok());

  EXPECT_EQ(Call({}).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Reason({}), "TOKEN_MISSING");
  for (const std::string& wrong :
       {std::string("Bearer "), std::string("Bearer"), std::string(kService), "Basic " + std::string(kService),
        service_token_ + "x", "Bearer " + Sha256(kService)}) {
    EXPECT_EQ(Call({wrong}).error_code(), grpc::StatusCode::UNAUTHENTICATED);
    EXPECT_EQ(Reason({wrong}), "TOKEN_UNKNOWN") << wrong;
  }
  EXPECT_EQ(Reason({service_token_, service_token_}), "TOKEN_UNKNOWN");

  const grpc::Status refused = Call({std::string("Bearer ") + kViewer});
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(refused.error_message(),
            "view has the role viewer; poststelle.config.v1.CredentialService/GetCredentials serves service");
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(details.ParseFromString(refused.error_details()));
  ASSERT_EQ(details.details_size(), 1);
  ASSERT_TRUE(details.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "ROLE_INSUFFICIENT");
  EXPECT_EQ(info.metadata().at("method"), "poststelle.config.v1.CredentialService/GetCredentials");
  EXPECT_EQ(info.metadata().at("roles"), "service");
}

TEST_F(AccessTest, LoopbackWithoutATokenIsAnAdminOnlyWhereAsked) {
  Write(lines_);
  ASSERT_TRUE(Serve(true).ok());
  const grpc::Status refused = Call({});
  EXPECT_EQ(ReasonOf(refused), "ROLE_INSUFFICIENT");  // an admin, and no service
  EXPECT_THAT(refused.error_message(), HasSubstr("loopback has the role admin"));
  EXPECT_EQ(Reason({"Bearer wrong"}), "TOKEN_UNKNOWN");  // a token that is given counts
  EXPECT_TRUE(Call({service_token_}).ok());
}

TEST_F(AccessTest, WithoutAFileAndLoopbackNothingIsServed) {
  const absl::Status refused = Serve(false, false);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--allow-unauthenticated-loopback"));
  EXPECT_TRUE(Serve(true, false).ok());
  EXPECT_EQ(Reason({service_token_}), "TOKEN_UNKNOWN");
}

TEST_F(AccessTest, AFileThatOthersMayReadOrThatIsMalformedIsRefusedAtTheStart) {
  EXPECT_TRUE(absl::IsNotFound(Serve(false)));
  Write(lines_);
  ASSERT_EQ(chmod(file_.c_str(), 0644), 0);
  EXPECT_THAT(std::string(Serve(false).message()), HasSubstr("chmod 600"));
  Write("a viewer\n");
  EXPECT_THAT(std::string(Serve(false).message()), HasSubstr("identities:1: expected"));
}

TEST_F(AccessTest, AChangeOfTheFileCountsSoonAndAMistakeInItDoesNot) {
  Write(lines_);
  ASSERT_TRUE(Serve(false).ok());
  EXPECT_TRUE(Call({service_token_}).ok());
  const auto await = [&](const std::string& token, bool served) {
    const absl::Time limit = absl::Now() + absl::Seconds(60);
    while (Call({"Bearer " + token}).ok() != served && absl::Now() < limit) absl::SleepFor(absl::Milliseconds(20));
    return Call({"Bearer " + token}).ok() == served;
  };
  const std::string fresh = "a-fresh-token-of-some-length";
  Write(lines_ + "another service " + fresh + "\n");
  EXPECT_TRUE(await(fresh, true));

  testing::internal::CaptureStderr();
  Write("another service\n");
  // Calls go on until the mistake was seen, and after it.
  std::string log;
  const absl::Time limit = absl::Now() + absl::Seconds(60);
  while (log.find("access.identities_kept") == std::string::npos && absl::Now() < limit) {
    EXPECT_TRUE(Call({service_token_}).ok());
    log += testing::internal::GetCapturedStderr();
    testing::internal::CaptureStderr();
  }
  log += testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("identities:1: expected"));
  EXPECT_TRUE(Call({service_token_}).ok());

  Write(std::string("fetcher service ") + fresh + "\n");
  EXPECT_TRUE(await(kService, false));
  EXPECT_TRUE(await(fresh, true));
}

}  // namespace
}  // namespace poststelle::rpc
