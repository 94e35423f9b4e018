// The key file changes whole or not at all, and a vault that has it open follows.
#include "libs/secrets/key_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "libs/base/ids.h"
#include "libs/secrets/vault.h"

namespace poststelle::secrets {
namespace {

namespace fs = std::filesystem;

class KeyFileTest : public ::testing::Test {
 protected:
  KeyFileTest() { fs::create_directory(folder_); }
  ~KeyFileTest() override { fs::remove_all(folder_); }
  std::string Path(const std::string& name = "key") const { return (folder_ / name).string(); }
  // As an editor does: renamed into place.
  void Write(const std::string& content, const std::string& name = "key", mode_t mode = 0600) const {
    std::ofstream(Path("new")) << content;
    ASSERT_EQ(chmod(Path("new").c_str(), mode), 0);
    fs::rename(Path("new"), Path(name));
  }
  std::string Content(const std::string& name = "key") const {
    std::stringstream out;
    out << std::ifstream(Path(name)).rdbuf();
    return out.str();
  }
  static std::string Line(const std::string& id, char digit) {
    return "key " + id + " " + std::string(64, digit) + "\n";
  }
  const fs::path folder_ = fs::temp_directory_path() / ("poststelle-keys-" + RandomId());
};

TEST_F(KeyFileTest, ANewKeyComesFirstAndAllElseStays) {
  Write("# ours\n\n" + Line("a", '1') + "# older\n" + Line("b", '2'), "key", 0400);
  auto editor = KeyFileEditor::Open(Path());
  ASSERT_TRUE(editor.ok()) << editor.status();
  ASSERT_TRUE((*editor)->AddFirst("new").ok());
  EXPECT_EQ((*editor)->ids(), (std::vector<std::string>{"new", "a", "b"}));
  const std::string content = Content();
  EXPECT_EQ(content.substr(0, 16), "# ours\n\nkey new ");
  EXPECT_NE(content.find(Line("a", '1') + "# older\n" + Line("b", '2')), std::string::npos);
  struct stat info{};
  ASSERT_EQ(stat(Path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0400u);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);  // nothing is left behind
}

TEST_F(KeyFileTest, KeysGoByTheirIdAndNeverAllOfThem) {
  Write(Line("a", '1') + "# key b is a comment\n" + Line("b", '2') + "key c " + std::string(64, '3'));  // no line end
  auto editor = KeyFileEditor::Open(Path());
  ASSERT_TRUE(editor.ok());
  EXPECT_FALSE((*editor)->Remove({"a", "b", "c"}).ok());
  ASSERT_TRUE((*editor)->Remove({"c", "b"}).ok());
  EXPECT_EQ(Content(), Line("a", '1') + "# key b is a comment\n");
}

TEST_F(KeyFileTest, OneEditorAtATime) {
  Write(Line("a", '1'));
  auto editor = KeyFileEditor::Open(Path());
  ASSERT_TRUE(editor.ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(KeyFileEditor::Open(Path()).status()));
  editor->reset();
  EXPECT_TRUE(KeyFileEditor::Open(Path()).ok());
}

TEST_F(KeyFileTest, AVaultFollowsTheFile) {
  Write(Line("a", '1'));
  auto vault = Vault::Open(Path());
  ASSERT_TRUE(vault.ok());
  std::vector<std::string> told;
  (*vault)->OnReload([&told](const absl::Status& loaded, const std::string& first) {
    told.push_back((loaded.ok() ? "ok " : "failed ") + first);
  });
  const std::string old = *(*vault)->Seal(SecretString("x"), "r");
  Write(Line("b", '2') + Line("a", '1'));
  EXPECT_EQ(Vault::KeyOf(*(*vault)->Seal(SecretString("x"), "r")), "b");
  EXPECT_TRUE((*vault)->Open(old, "r").ok());
  EXPECT_EQ(told, std::vector<std::string>{"ok b"});
}

TEST_F(KeyFileTest, AnUnknownKeyIsLookedForInTheFileFirst) {
  Write(Line("a", '1'), "one");
  Write(Line("b", '2') + Line("a", '1'), "two");
  auto one = Vault::Open(Path("one"));
  auto two = Vault::Open(Path("two"));
  ASSERT_TRUE(one.ok() && two.ok());
  const std::string sealed = *(*two)->Seal(SecretString("x"), "r");
  const std::string hash = *(*two)->KeyedHash(SecretString("m"), "p");
  EXPECT_TRUE(absl::IsNotFound((*one)->Open(sealed, "r").status()));
  EXPECT_TRUE(absl::IsNotFound((*one)->CheckKeyedHash(hash, SecretString("m"), "p")));
  Write(Line("a", '1') + Line("b", '2'), "one");
  EXPECT_TRUE((*one)->CheckKeyedHash(hash, SecretString("m"), "p").ok());
  EXPECT_TRUE((*one)->Open(sealed, "r").ok());
}

TEST_F(KeyFileTest, AFileThatIsAwayOrMalformedChangesNothing) {
  Write(Line("a", '1'));
  auto vault = Vault::Open(Path());
  ASSERT_TRUE(vault.ok());
  int failures = 0;
  (*vault)->OnReload([&failures](const absl::Status& loaded, const std::string&) { failures += !loaded.ok(); });
  const std::string sealed = *(*vault)->Seal(SecretString("x"), "r");
  fs::remove(Path());
  EXPECT_EQ(Vault::KeyOf(*(*vault)->Seal(SecretString("x"), "r")), "a");
  Write("key half");
  EXPECT_EQ(Vault::KeyOf(*(*vault)->Seal(SecretString("x"), "r")), "a");
  EXPECT_EQ(Vault::KeyOf(*(*vault)->Seal(SecretString("x"), "r")), "a");
  EXPECT_TRUE((*vault)->Open(sealed, "r").ok());
  EXPECT_EQ(failures, 2);  // each state of the file is told once
  Write(Line("b", '2') + Line("a", '1'));
  EXPECT_EQ(Vault::KeyOf(*(*vault)->Seal(SecretString("x"), "r")), "b");
  EXPECT_TRUE(absl::IsNotFound(Vault::Open(Path("nowhere")).status()));
}

TEST_F(KeyFileTest, ASwappedLinkIsFollowed) {
  // As Kubernetes mounts a secret: key -> ..data/key, ..data -> a folder, and ..data is swapped.
  for (const char* version : {"v1", "v2"}) fs::create_directory(folder_ / version);
  Write(Line("a", '1'), "v1/key");
  Write(Line("b", '2') + Line("a", '1'), "v2/key");
  fs::create_directory_symlink("v1", folder_ / "..data");
  fs::create_symlink("..data/key", folder_ / "key");
  auto vault = Vault::Open(Path());
  ASSERT_TRUE(vault.ok());
  EXPECT_EQ((*vault)->FirstKey(), "a");
  fs::create_directory_symlink("v2", folder_ / "..data_tmp");
  fs::rename(folder_ / "..data_tmp", folder_ / "..data");
  EXPECT_EQ((*vault)->FirstKey(), "b");
  // A change goes to the file behind the links, which stay.
  ASSERT_TRUE((*KeyFileEditor::Open(Path()))->AddFirst("c").ok());
  EXPECT_TRUE(fs::is_symlink(folder_ / "key"));
  EXPECT_EQ(Content("v2/key").substr(0, 6), "key c ");
  EXPECT_EQ((*vault)->FirstKey(), "c");
}

}  // namespace
}  // namespace poststelle::secrets
