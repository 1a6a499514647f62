#include "coordinator/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "common/private_ca.h"
#include "common/secret.h"
#include "coordinator/api.h"
#include "support/files.h"
#include "support/idle_launcher.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// An API that wants tokens, on a clock of the test's.
class LockedApi : public testing::Test {
 protected:
  std::string token(Role role, double expires = 0) {
    Store store(folder_ / "data/coordinator.sqlite");
    Store::Transaction transaction = store.begin();
    const NewToken made = make_token(role, "test", now_, expires);
    store.insert_token(made.record);
    transaction.commit();
    return made.text;
  }
  HttpResponse call(const std::string& method, const std::string& target, const std::string& bearer = "",
                    std::map<std::string, std::string> headers = {}, const std::string& body = "") {
    headers.emplace("host", "127.0.0.1:8080");
    if (!bearer.empty()) headers.emplace("authorization", "Bearer " + bearer);
    return api_.handle({method, target, std::move(headers), body});
  }
  HttpResponse add_token(const std::string& bearer, const json& body) {
    return call("POST", "/api/v1/tokens", bearer, {{"content-type", "application/json"}}, body.dump());
  }

  TempFolder folder_;
  double now_ = 1000;
  Coordinator coordinator_{{.data = folder_ / "data", .slots = 1, .clock = [this] { return now_; }, .worker_tokens = true},
                           std::make_unique<IdleLauncher>()};
  Api api_{coordinator_, {.access = {.tokens = true, .tls = false, .hosts = {"head.cluster", "10.0.0.7"}}}};
};

TEST_F(LockedApi, DeniesBeforeItLooksAtThePath) {
  for (const char* target : {"/api/v1/jobs", "/api/v1/no-such-thing", "/api/v1/jobs/x/cancel", "/metrics", "/../etc/passwd"}) {
    const HttpResponse response = call("GET", target);
    EXPECT_EQ(response.status, 401) << target;
    EXPECT_EQ(response.headers.at("WWW-Authenticate"), "Bearer realm=\"onestep\"");
  }
  EXPECT_EQ(call("DELETE", "/api/v1/jobs").status, 401);
  EXPECT_EQ(call("GET", "/").status, 200) << "the page asks for the token itself";
  EXPECT_EQ(call("GET", "/healthz").status, 200);
  EXPECT_EQ(call("GET", "/readyz").status, 200);
}

TEST_F(LockedApi, LetsEachRoleDoItsPart) {
  const std::string read = token(Role::kRead), submit = token(Role::kSubmit), admin = token(Role::kAdmin);
  for (const std::string& any : {read, submit, admin}) EXPECT_EQ(call("GET", "/api/v1/jobs", any).status, 200);
  const HttpResponse refused = call("POST", "/api/v1/jobs/x/cancel", read);
  EXPECT_EQ(refused.status, 403);
  EXPECT_THAT(refused.body, HasSubstr("role submit"));
  EXPECT_EQ(call("POST", "/api/v1/jobs/x/cancel", submit).status, 404);
  EXPECT_EQ(call("POST", "/api/v1/jobs/x/cancel", admin).status, 404);
}

TEST_F(LockedApi, RefusesForgedExpiredAndRevokedTokens) {
  const std::string good = token(Role::kAdmin, 2000);
  EXPECT_EQ(call("GET", "/api/v1/jobs", good).status, 200);
  std::vector<std::string> forged = {good + "0", good.substr(0, good.size() - 1), good.substr(8), "onestep_00000000_" + good.substr(17),
                                     std::string(good.size(), 'a'), "x"};
  for (std::size_t i : {std::size_t{9}, std::size_t{17}, good.size() - 1}) {
    std::string changed = good;
    changed[i] = changed[i] == '0' ? '1' : '0';
    forged.push_back(changed);
  }
  std::string upper = good;
  for (char& c : upper) c = static_cast<char>(std::toupper(c));
  forged.push_back(upper);
  for (const std::string& text : forged) {
    const HttpResponse response = call("GET", "/api/v1/jobs", text);
    EXPECT_EQ(response.status, 401) << text;
    EXPECT_THAT(response.headers.at("WWW-Authenticate"), HasSubstr("invalid_token"));
    EXPECT_THAT(response.body, Not(HasSubstr(good.substr(20))));
  }
  EXPECT_EQ(call("GET", "/api/v1/jobs", "", {{"authorization", good}}).status, 401);
  EXPECT_EQ(call("GET", "/api/v1/jobs", "", {{"authorization", "Basic " + good}}).status, 401);
  EXPECT_EQ(call("GET", "/api/v1/jobs", "", {{"authorization", "Bearer "}}).status, 401);
  EXPECT_EQ(call("GET", "/api/v1/jobs?access_token=" + good).status, 401);

  now_ = 2000;
  EXPECT_THAT(call("GET", "/api/v1/jobs", good).body, HasSubstr("has expired"));
  const std::string other = token(Role::kRead);
  EXPECT_EQ(call("GET", "/api/v1/jobs", other).status, 200);
  Store(folder_ / "data/coordinator.sqlite").revoke_token(other.substr(8, 8), now_);
  EXPECT_THAT(call("GET", "/api/v1/jobs", other).body, HasSubstr("was revoked")) << "at once, by another process";
}

TEST_F(LockedApi, AnAdminMakesListsAndRevokesTokens) {
  const std::string admin = token(Role::kAdmin), submit = token(Role::kSubmit), read = token(Role::kRead);
  for (const std::string& low : {submit, read}) {
    EXPECT_EQ(add_token(low, {{"role", "admin"}}).status, 403);
    EXPECT_EQ(call("GET", "/api/v1/tokens", low).status, 403);
    EXPECT_EQ(call("DELETE", "/api/v1/tokens/" + admin.substr(8, 8), low).status, 403);
  }
  now_ = 1010;
  const HttpResponse made = add_token(admin, {{"role", "submit"}, {"label", "ci"}, {"lifetime_s", 60}});
  ASSERT_EQ(made.status, 201) << made.body;
  const json token = json::parse(made.body);
  EXPECT_EQ(token["role"], "submit");
  EXPECT_EQ(token["expires"], 1070);
  const std::string target = "/api/v1/tokens/" + token["id"].get<std::string>();
  EXPECT_EQ(made.headers.at("Location"), target);
  EXPECT_EQ(call("POST", "/api/v1/jobs/x/cancel", token["token"]).status, 404) << "it opens what its role may";
  EXPECT_EQ(call("GET", "/api/v1/tokens", token["token"]).status, 403);

  const HttpResponse listed = call("GET", "/api/v1/tokens", admin);
  EXPECT_THAT(listed.body, Not(HasSubstr(token["token"].get<std::string>().substr(17)))) << "shown once";
  EXPECT_EQ(json::parse(listed.body)["items"].size(), 4);
  EXPECT_EQ(json::parse(listed.body)["items"][3], (json{{"id", token["id"]}, {"role", "submit"}, {"label", "ci"}, {"state", "valid"},
                                                        {"created", 1010}, {"expires", 1070}}));
  EXPECT_EQ(json::parse(call("GET", "/api/v1/tokens?limit=3", admin).body)["next"], "/api/v1/tokens?page_token=3&limit=3");
  EXPECT_EQ(json::parse(call("GET", "/api/v1/tokens?page_token=3&limit=3", admin).body)["items"].size(), 1);

  for (int again = 0; again < 2; ++again) {
    const HttpResponse revoked = call("DELETE", target, admin);
    EXPECT_EQ(revoked.status, 200);
    EXPECT_EQ(json::parse(revoked.body)["state"], "revoked");
  }
  EXPECT_EQ(call("GET", "/api/v1/jobs", token["token"]).status, 401);
  EXPECT_EQ(call("DELETE", "/api/v1/tokens/none", admin).status, 404);
}

TEST_F(LockedApi, ATokenOfRoleAdminIsLeft) {
  const std::string first = token(Role::kAdmin), expiring = token(Role::kAdmin, 2000);
  const std::string target = "/api/v1/tokens/" + first.substr(8, 8);
  now_ = 2000;
  const HttpResponse refused = call("DELETE", target, first);
  EXPECT_EQ(refused.status, 409);
  EXPECT_THAT(refused.body, HasSubstr("the last valid one of role admin"));
  EXPECT_EQ(call("DELETE", "/api/v1/tokens/" + expiring.substr(8, 8), first).status, 200);
  const std::string second = json::parse(add_token(first, {{"role", "admin"}, {"lifetime_s", 0}}).body)["token"];
  EXPECT_EQ(call("DELETE", target, first).status, 200);
  EXPECT_EQ(call("GET", "/api/v1/tokens", first).status, 401);
  EXPECT_EQ(call("GET", "/api/v1/tokens", second).status, 200);
}

TEST_F(LockedApi, NamesEveryWrongFieldOfATokensRequest) {
  const std::string admin = token(Role::kAdmin);
  const auto pointers = [&](const json& body) {
    const HttpResponse response = add_token(admin, body);
    EXPECT_EQ(response.status, 422) << body;
    std::vector<std::string> found;
    const json document = json::parse(response.body);
    for (const json& error : document["errors"]) found.push_back(error["pointer"]);
    return found;
  };
  using testing::UnorderedElementsAre;
  EXPECT_THAT(pointers({{"role", "root"}, {"label", std::string(101, 'x')}, {"lifetime_s", -1}, {"colour", 1}}),
              UnorderedElementsAre("/role", "/label", "/lifetime_s", "/colour"));
  EXPECT_THAT(pointers({{"label", "a\nb"}}), UnorderedElementsAre("/role", "/label"));
  EXPECT_THAT(pointers({{"role", 3}}), UnorderedElementsAre("/role"));
  EXPECT_THAT(pointers(json::array()), UnorderedElementsAre(""));
  EXPECT_EQ(call("POST", "/api/v1/tokens", admin, {{"content-type", "application/json"}}, "{").status, 400);
  EXPECT_EQ(call("POST", "/api/v1/tokens", admin, {{"content-type", "text/plain"}}, "{}").status, 415);
  EXPECT_EQ(json::parse(call("GET", "/api/v1/tokens", admin).body)["items"].size(), 1) << "nothing was made";
}

TEST_F(LockedApi, StoresNoToken) {
  const std::string text = token(Role::kAdmin);
  const std::string database = slurp(folder_ / "data/coordinator.sqlite") + slurp(folder_ / "data/coordinator.sqlite-wal");
  EXPECT_THAT(database, HasSubstr(text.substr(8, 8)));
  EXPECT_THAT(database, Not(HasSubstr(text.substr(17))));
}

TEST_F(LockedApi, RefusesPagesOfOtherSites) {
  const std::string admin = token(Role::kAdmin);
  for (const char* host : {"evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.8", "head.cluster.evil"}) {
    EXPECT_EQ(call("GET", "/api/v1/jobs", admin, {{"host", host}}).status, 403) << host;
    EXPECT_EQ(call("GET", "/", admin, {{"host", host}}).status, 403) << host;
  }
  for (const char* host : {"127.0.0.1", "localhost:8080", "[::1]:8080", "HEAD.cluster:8443", "10.0.0.7:8443"}) {
    EXPECT_EQ(call("GET", "/api/v1/jobs", admin, {{"host", host}}).status, 200) << host;
  }
  EXPECT_EQ(call("GET", "/api/v1/jobs", admin, {{"origin", "http://evil.example"}}).status, 403);
  EXPECT_EQ(call("GET", "/api/v1/jobs", admin, {{"origin", "null"}}).status, 403);
  EXPECT_EQ(call("GET", "/api/v1/jobs", admin, {{"origin", "http://127.0.0.1:8080"}}).status, 200);
  EXPECT_EQ(call("GET", "/api/v1/jobs", admin, {{"sec-fetch-site", "cross-site"}}).status, 403);
  EXPECT_EQ(call("GET", "/", "", {{"sec-fetch-site", "cross-site"}, {"sec-fetch-mode", "navigate"}}).status, 200);
  EXPECT_EQ(call("POST", "/api/v1/jobs/x/cancel", admin, {{"sec-fetch-site", "cross-site"}, {"sec-fetch-mode", "navigate"}}).status, 403);
  // Nothing invites another origin in.
  for (const auto& [name, value] : call("GET", "/api/v1/jobs", admin).headers) EXPECT_THAT(name, Not(HasSubstr("Access-Control")));
}

TEST_F(LockedApi, WorkersShowTheirAttemptsToken) {
  const json spec = {{"name", "detector"}, {"kind", "train_detector"}, {"dataset", {{"path", "digits.h5"}}}};
  const HttpResponse answer = api_.handle({"POST", "/api/v1/jobs",
                                           {{"host", "localhost"}, {"content-type", "application/json"},
                                            {"authorization", "Bearer " + token(Role::kSubmit)}},
                                           json{{"spec", spec}, {"base", "/specs"}}.dump()});
  ASSERT_EQ(answer.status, 201) << answer.body;
  const std::string id = json::parse(answer.body)["jobs"][0]["id"];
  coordinator_.tick();
  const std::string file = worker_token_file(coordinator_.run_folder(id), 1);
  struct stat status {};
  ASSERT_EQ(::stat(file.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  Hello hello{.job = id, .attempt = 1, .rank = 0, .ranks = 1, .pid = 7, .host = "here", .commit = ""};
  EXPECT_EQ(coordinator_.hello(hello).refusal.value().code, ErrorCode::kMismatch);
  hello.token = std::string(64, '0');
  EXPECT_THAT(coordinator_.hello(hello).refusal.value().reason, HasSubstr("found another"));
  hello.token = read_secret_file(file);
  EXPECT_FALSE(coordinator_.hello(hello).refusal);
}

TEST(Doors, OtherMachinesNeedTlsAndATokenThatOpens) {
  const auto why = [](bool loopback, bool tls, bool tokens, int num_tokens) -> std::string {
    try {
      require_locked_doors("0.0.0.0:8443", loopback, tls, tokens, num_tokens);
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      return error.what();
    }
  };
  EXPECT_EQ(why(true, false, false, 0), "");
  EXPECT_THAT(why(false, false, true, 1), HasSubstr("expected TLS"));
  EXPECT_THAT(why(false, true, false, 1), HasSubstr("expected tokens"));
  EXPECT_THAT(why(false, true, true, 0), HasSubstr("at least one valid token"));
  EXPECT_EQ(why(false, true, true, 1), "");
}

TEST(PrivateCa, MakesCertificatesForItsNamesAndKeepsItsAuthority) {
  const TempFolder folder;
  const PrivateCaOptions options{.folder = folder / "tls", .names = {"Head.cluster", "10.0.0.7", "::1"}};
  write_private_ca(options);
  EXPECT_THAT(certificate_names(folder / "tls/server.crt"), ElementsAre("head.cluster", "10.0.0.7", "::1"));
  for (const char* key : {"tls/ca.key", "tls/server.key"}) {
    struct stat status {};
    ASSERT_EQ(::stat((folder / key).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600U) << key;
  }
  const std::string authority = slurp(folder / "tls/ca.crt"), server = slurp(folder / "tls/server.crt");
  write_private_ca(options);
  EXPECT_EQ(slurp(folder / "tls/ca.crt"), authority);
  EXPECT_NE(slurp(folder / "tls/server.crt"), server);
  std::filesystem::remove(folder / "tls/ca.key");
  EXPECT_THROW(write_private_ca(options), Error);
  EXPECT_THROW(write_private_ca({.folder = folder / "other", .names = {"DNS:x,IP:1.2.3.4"}}), Error);
}

TEST(SecretFile, IsForItsOwnerAlone) {
  const TempFolder folder;
  write_secret_file(folder / "token", "abc\n");
  EXPECT_EQ(read_secret_file(folder / "token"), "abc");
  ::chmod((folder / "token").c_str(), 0644);
  try {
    read_secret_file(folder / "token");
    ADD_FAILURE() << "read a secret that others can read";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("expected mode 0600"));
  }
}

}  // namespace
}  // namespace onestep
