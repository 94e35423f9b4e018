#include "libs/sasl/scram.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace poststelle::sasl {
namespace {

// RFC 7677 §3.
constexpr char kNonce[] = "rOprNGfwEbeRWgbNEkqO";
constexpr char kServerFirst[] =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
constexpr char kServerFinal[] = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

ScramSha256 Exchange() { return ScramSha256("user", SecretString("pencil"), kNonce); }

TEST(Scram, TheExampleOfTheStandard) {
  ScramSha256 scram = Exchange();
  EXPECT_EQ(scram.ClientFirst(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
  const absl::StatusOr<SecretString> final = scram.ClientFinal(kServerFirst);
  ASSERT_TRUE(final.ok()) << final.status();
  EXPECT_EQ(final->Reveal(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
            "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
  EXPECT_FALSE(scram.verified());
  EXPECT_TRUE(scram.Verify(kServerFinal).ok());
  EXPECT_TRUE(scram.verified());
}

TEST(Scram, ALoginNameCanNotAddAttributes) {
  EXPECT_EQ(ScramSha256("a,r=x=", SecretString("p"), "n").ClientFirst(), "n,,n=a=2Cr=3Dx=3D,r=n");
}

TEST(Scram, OnlyWhereSaslprepHasNothingToDo) {
  EXPECT_TRUE(ScramSha256::CanUse("joe@x", SecretString("a b~")));
  for (const char* odd : {"\xC3\xA4", "a\tb", "\x7F"}) {
    EXPECT_FALSE(ScramSha256::CanUse(odd, SecretString("p"))) << odd;
    EXPECT_FALSE(ScramSha256::CanUse("joe", SecretString(odd))) << odd;
  }
}

TEST(Scram, AServersFirstMessageThatIsNone) {
  const std::string nonce = absl::StrCat("r=", kNonce, "more,");
  for (const std::string& first :
       {std::string(), std::string(","), std::string("r=,s=,i="), absl::StrCat("r=", kNonce, ",s=W22Z,i=4096"),
        std::string("r=othernonce%hvYDpWUa2RaTCAfuxF,s=W22Z,i=4096"), nonce + "s=,i=4096", nonce + "s=*,i=4096",
        nonce + "s=W22Z,i=4095", nonce + "s=W22Z,i=200001", nonce + "s=W22Z,i=-1", nonce + "s=W22Z,i=99999999999",
        nonce + "s=W22Z", nonce + "i=4096,s=W22Z", "m=x," + nonce + "s=W22Z,i=4096", std::string("e=other-error")}) {
    EXPECT_FALSE(Exchange().ClientFinal(first).ok()) << first;
  }
  EXPECT_TRUE(Exchange().ClientFinal(nonce + "s=W22Z,i=4096,x=extension").ok());
}

TEST(Scram, AServerThatDoesNotKnowThePassword) {
  EXPECT_FALSE(Exchange().Verify(kServerFinal).ok());  // before it has shown anything
  for (const char* last : {"", "v=", "v=AAAA", "v=*", "x", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G8="}) {
    ScramSha256 scram = Exchange();
    ASSERT_TRUE(scram.ClientFinal(kServerFirst).ok());
    EXPECT_TRUE(absl::IsInvalidArgument(scram.Verify(last))) << last;
    EXPECT_FALSE(scram.verified());
  }
  ScramSha256 scram = Exchange();
  ASSERT_TRUE(scram.ClientFinal(kServerFirst).ok());
  EXPECT_TRUE(absl::IsPermissionDenied(scram.Verify("e=invalid-proof")));
}

}  // namespace
}  // namespace poststelle::sasl
