#include "libs/testing/temp_postgres.h"

#include <fcntl.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "libs/base/ids.h"

namespace poststelle::testing {
namespace {

constexpr auto kStartLimit = std::chrono::seconds(60);
constexpr auto kPoll = std::chrono::milliseconds(10);

// Debian keeps the server's programs outside of PATH.
std::string Binary(const char* name) {
  for (const char* version : {"15", "16", "17"}) {
    std::string path = std::string("/usr/lib/postgresql/") + version + "/bin/" + name;
    if (access(path.c_str(), X_OK) == 0) return path;
  }
  throw std::runtime_error(std::string("there is no ") + name + "; install the package postgresql");
}

}  // namespace

TempPostgres::TempPostgres(Durability durability)
    : durability_(durability), folder_(std::filesystem::temp_directory_path() / ("poststelle-pg-" + RandomId())) {
  std::filesystem::create_directory(folder_);
  if (geteuid() == 0) {  // PostgreSQL refuses to run as root
    const passwd* user = getpwnam("postgres");
    if (user == nullptr) user = getpwnam("nobody");
    if (user == nullptr) throw std::runtime_error("there is neither a user postgres nor a user nobody");
    uid_ = user->pw_uid;
    gid_ = user->pw_gid;
    if (chown(folder_.c_str(), uid_, gid_) != 0) throw std::runtime_error("can't give the folder away");
  }
  const pid_t child = Spawn({Binary("initdb"), "-D", folder_ / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8",
                             "--no-locale", "--no-sync"});
  int status = 0;
  if (waitpid(child, &status, 0) != child || status != 0) throw std::runtime_error("initdb failed:\n" + Log());
  Start();
}

TempPostgres::~TempPostgres() {
  if (server_ > 0) {
    Resume();
    kill(server_, SIGQUIT);
    waitpid(server_, nullptr, 0);
  }
  std::error_code ignored;  // a temporary folder that stays behind fails nothing
  std::filesystem::remove_all(folder_, ignored);
}

TempPostgres& TempPostgres::Shared() {
  static TempPostgres shared;
  return shared;
}

pid_t TempPostgres::Spawn(const std::vector<std::string>& argv) const {
  std::vector<char*> arguments;
  arguments.reserve(argv.size() + 1);
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const std::string log = folder_ / "log";
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("can't fork");
  if (child > 0) return child;
  // In the child only system calls: other threads of the test held locks when it was made.
  if (uid_ != 0 && (setgroups(0, nullptr) != 0 || setgid(gid_) != 0 || setuid(uid_) != 0)) _exit(126);
  const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  const int in = open("/dev/null", O_RDONLY);
  if (out < 0 || in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) _exit(126);
  if (chdir("/") != 0) _exit(126);
  // After setuid, which clears it. SIGQUIT makes the server take its children along.
  prctl(PR_SET_PDEATHSIG, SIGQUIT);
  if (getppid() != parent) _exit(126);
  execv(arguments[0], arguments.data());
  _exit(127);
}

void TempPostgres::Start() {
  const std::string ping = UrlOf("postgres", folder_);
  const auto limit = std::chrono::steady_clock::now() + kStartLimit;
  const auto spawn = [this] {
    std::vector<std::string> argv{
        Binary("postgres"),   "-D", folder_ / "data",         "-k", folder_, "-c", "listen_addresses=", "-c",
        "max_connections=60", "-c", "restart_after_crash=off"};
    if (durability_ == Durability::kOff) {
      argv.insert(argv.end(), {"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB"});
    }
    server_ = Spawn(argv);
  };
  spawn();
  while (PQping(ping.c_str()) != PQPING_OK) {
    if (waitpid(server_, nullptr, WNOHANG) == server_) {
      // Right after a kill the old processes may still hold the shared memory.
      spawn();
    }
    if (std::chrono::steady_clock::now() > limit) throw std::runtime_error("PostgreSQL does not start:\n" + Log());
    std::this_thread::sleep_for(kPoll);
  }
}

std::string TempPostgres::UrlOf(const std::string& database, const std::filesystem::path& socket_folder) const {
  std::string host;
  for (const char c : socket_folder.string()) host += c == '/' ? std::string("%2F") : std::string(1, c);
  return "postgresql://postgres@" + host + "/" + database;
}

std::string TempPostgres::NewDatabase() {
  const std::string name = "test" + std::to_string(++databases_);
  PGconn* connection = PQconnectdb(UrlOf("postgres", folder_).c_str());
  PGresult* made = PQexec(connection, ("CREATE DATABASE " + name).c_str());
  const bool good = PQresultStatus(made) == PGRES_COMMAND_OK;
  const std::string error = PQerrorMessage(connection);
  PQclear(made);
  PQfinish(connection);
  if (!good) throw std::runtime_error("can't create a database: " + error);
  return UrlOf(name, folder_);
}

std::vector<pid_t> TempPostgres::Processes() const {
  if (server_ <= 0) throw std::logic_error("the server is down");  // -1 would be every process there is
  std::vector<pid_t> out{server_};
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::ifstream file(entry.path() / "stat");
    std::string stat;
    std::getline(file, stat);
    const size_t name_end = stat.rfind(')');
    if (name_end == std::string::npos) continue;
    std::istringstream rest(stat.substr(name_end + 1));
    std::string state;
    pid_t parent = -1;
    rest >> state >> parent;
    if (parent == server_) out.push_back(std::atoi(entry.path().filename().c_str()));
  }
  return out;
}

void TempPostgres::Kill() {
  for (const pid_t process : Processes()) kill(process, SIGKILL);
  waitpid(server_, nullptr, 0);
  server_ = -1;
}

void TempPostgres::Pause() {
  for (const pid_t process : Processes()) kill(process, SIGSTOP);
}

void TempPostgres::Resume() {
  for (const pid_t process : Processes()) kill(process, SIGCONT);
}

std::string TempPostgres::Log() const {
  std::ifstream file(folder_ / "log");
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace poststelle::testing
