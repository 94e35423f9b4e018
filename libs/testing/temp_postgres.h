// A private PostgreSQL for tests: Debian's binaries, a folder of its own, a Unix socket in it and no port.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace poststelle::testing {

// Made and driven by one thread, which outlives it: the server dies with that thread. As root the server runs as the
// user postgres or nobody. Throws std::runtime_error with the server's log if it can't be started.
class TempPostgres {
 public:
  // kOn: what is committed survives a loss of power, as in production. Tests don't need that and are faster without.
  enum class Durability { kOff, kOn };
  explicit TempPostgres(Durability durability = Durability::kOff);
  ~TempPostgres();
  TempPostgres(const TempPostgres&) = delete;
  TempPostgres& operator=(const TempPostgres&) = delete;

  // One for the whole program, started at the first call and ended at exit.
  static TempPostgres& Shared();

  // URL of a fresh, empty database. `socket_folder`: where to connect to instead, for a proxy.
  std::string NewDatabase();
  std::string UrlOf(const std::string& database, const std::filesystem::path& socket_folder) const;
  const std::filesystem::path& folder() const { return folder_; }
  // The file name of the server's socket in its folder.
  static constexpr const char* kSocketName = ".s.PGSQL.5432";

  void Start();
  // SIGKILL to every process of the server.
  void Kill();
  // SIGSTOP and SIGCONT to every process of the server.
  void Pause();
  void Resume();

 private:
  pid_t Spawn(const std::vector<std::string>& argv) const;
  // The server and its children.
  std::vector<pid_t> Processes() const;
  std::string Log() const;

  const Durability durability_;
  std::filesystem::path folder_;
  uid_t uid_ = 0;
  gid_t gid_ = 0;
  pid_t server_ = -1;
  int databases_ = 0;
};

}  // namespace poststelle::testing
