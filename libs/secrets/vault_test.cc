#include "libs/secrets/vault.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "libs/base/ids.h"

namespace poststelle::secrets {
namespace {

class VaultTest : public ::testing::Test {
 protected:
  VaultTest() { std::filesystem::create_directory(directory_); }
  ~VaultTest() override { std::filesystem::remove_all(directory_); }
  std::string Path(const std::string& name) const { return (directory_ / name).string(); }
  const std::filesystem::path directory_ = std::filesystem::temp_directory_path() / ("poststelle-vault-" + RandomId());
};

TEST_F(VaultTest, WhatWasSealedOpensAfterARestartAndForItsRecordOnly) {
  std::string sealed;
  {
    auto vault = Vault::OpenOrCreate(Path("key"));
    ASSERT_TRUE(vault.ok()) << vault.status();
    auto s = (*vault)->Seal(SecretString("pässword"), "mailboxes/a/password");
    ASSERT_TRUE(s.ok());
    sealed = *s;
    EXPECT_EQ(sealed.find("pässword"), std::string::npos);
  }
  auto vault = Vault::OpenOrCreate(Path("key"));
  ASSERT_TRUE(vault.ok());
  auto open = (*vault)->Open(sealed, "mailboxes/a/password");
  ASSERT_TRUE(open.ok());
  EXPECT_EQ(open->Reveal(), "pässword");
  EXPECT_TRUE(absl::IsDataLoss((*vault)->Open(sealed, "mailboxes/b/password").status()));
}

TEST_F(VaultTest, EveryAlteredByteIsNoticed) {
  auto vault = Vault::OpenOrCreate(Path("key"));
  ASSERT_TRUE(vault.ok());
  const std::string sealed = *(*vault)->Seal(SecretString("secret"), "r");
  for (size_t i = 0; i < sealed.size(); ++i) {
    std::string altered = sealed;
    altered[i] = static_cast<char>(altered[i] ^ 1);
    EXPECT_FALSE((*vault)->Open(altered, "r").ok()) << i;
    EXPECT_FALSE((*vault)->Open(sealed.substr(0, i), "r").ok()) << i;
  }
}

TEST_F(VaultTest, AnotherKeyFileSaysSo) {
  auto one = Vault::OpenOrCreate(Path("one"));
  auto two = Vault::OpenOrCreate(Path("two"));
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_TRUE(absl::IsNotFound((*two)->Open(*(*one)->Seal(SecretString("x"), "r"), "r").status()));
}

TEST_F(VaultTest, AKeyFileThatOthersMayReadIsRefused) {
  ASSERT_TRUE(Vault::OpenOrCreate(Path("key")).ok());
  ASSERT_EQ(chmod(Path("key").c_str(), 0644), 0);
  auto vault = Vault::OpenOrCreate(Path("key"));
  ASSERT_FALSE(vault.ok());
  EXPECT_NE(std::string(vault.status().message()).find("chmod 600"), std::string::npos);
}

TEST_F(VaultTest, AMalformedKeyFileNamesTheLine) {
  std::ofstream(Path("key")) << "key a b\n";
  ASSERT_EQ(chmod(Path("key").c_str(), 0600), 0);
  auto vault = Vault::OpenOrCreate(Path("key"));
  ASSERT_FALSE(vault.ok());
  EXPECT_NE(std::string(vault.status().message()).find("key:1"), std::string::npos);
}

TEST_F(VaultTest, ARepeatedKeyIdIsRefused) {
  std::ofstream(Path("key")) << "key a " << std::string(64, '1') << "\nkey a " << std::string(64, '2') << "\n";
  ASSERT_EQ(chmod(Path("key").c_str(), 0600), 0);
  auto vault = Vault::OpenOrCreate(Path("key"));
  ASSERT_FALSE(vault.ok());
  EXPECT_NE(std::string(vault.status().message()).find("key:2"), std::string::npos);
}

TEST_F(VaultTest, AKeyedHashIsOfItsMessagePurposeAndKeyAlone) {
  std::ofstream(Path("key")) << "key old " << std::string(64, '1') << "\n";
  ASSERT_EQ(chmod(Path("key").c_str(), 0600), 0);
  const std::string made = *(*Vault::OpenOrCreate(Path("key")))->KeyedHash(SecretString("password1"), "create");
  // HMAC-SHA-256(HKDF-SHA-256(11…11, no salt, "create", 32), "password1"), computed independently.
  EXPECT_EQ(made, "old:aa935d3f53413e14ea42dbcc4c2d288bc184ebf093e929cf4397b897317f217e");

  // A new key comes first, the old one still decrypts: what was hashed before is still recognised.
  std::ofstream(Path("key")) << "key new " << std::string(64, '2') << "\nkey old " << std::string(64, '1') << "\n";
  auto rotated = Vault::OpenOrCreate(Path("key"));
  ASSERT_TRUE(rotated.ok());
  EXPECT_EQ((*rotated)->KeyedHash(SecretString("password1"), "create")->substr(0, 4), "new:");
  EXPECT_TRUE((*rotated)->CheckKeyedHash(made, SecretString("password1"), "create").ok());
  EXPECT_TRUE(absl::IsInvalidArgument((*rotated)->CheckKeyedHash(made, SecretString("password2"), "create")));
  EXPECT_TRUE(absl::IsInvalidArgument((*rotated)->CheckKeyedHash(made, SecretString("password1"), "other")));

  std::ofstream(Path("key")) << "key new " << std::string(64, '2') << "\n";
  auto without = Vault::OpenOrCreate(Path("key"));
  ASSERT_TRUE(without.ok());
  EXPECT_TRUE(absl::IsNotFound((*without)->CheckKeyedHash(made, SecretString("password1"), "create")));
  EXPECT_TRUE(absl::IsNotFound((*without)->CheckKeyedHash("", SecretString("password1"), "create")));
}

TEST(SecretString, LeavesNothingBehindWhenMoved) {
  SecretString from(std::string("hunter2"));
  const char* buffer = from.Reveal().data();  // short: inside the object
  const SecretString to(std::move(from));
  EXPECT_EQ(to.Reveal(), "hunter2");
  EXPECT_EQ(std::string_view(buffer, 7).find("unter"), std::string_view::npos);
}

TEST_F(VaultTest, ATokenIsTheWholeOfItsFile) {
  EXPECT_TRUE(absl::IsNotFound(LoadToken(Path("token")).status()));
  std::ofstream(Path("token")) << " a-token-of-28-characters-xyz\n";
  EXPECT_TRUE(absl::IsFailedPrecondition(LoadToken(Path("token")).status()));  // others may read it
  ASSERT_EQ(chmod(Path("token").c_str(), 0600), 0);
  EXPECT_EQ(LoadToken(Path("token"))->Reveal(), "a-token-of-28-characters-xyz");
  std::ofstream(Path("token")) << "short\n";
  EXPECT_TRUE(absl::IsFailedPrecondition(LoadToken(Path("token")).status()));
}

}  // namespace
}  // namespace poststelle::secrets
