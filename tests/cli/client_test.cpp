#include "cli/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/canned_server.h"
#include "common/error.h"
#include "support/files.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

Client client_of(const CannedServer& server) {
  return Client(parse_server_url(server.url()), {}, std::chrono::seconds(5));
}

TEST(ServerUrl, UnderstandsTheUsualSpellings) {
  EXPECT_EQ(to_string(parse_server_url("http://127.0.0.1:8080")), "http://127.0.0.1:8080");
  EXPECT_EQ(to_string(parse_server_url("http://localhost:9/")), "http://localhost:9");
  EXPECT_EQ(to_string(parse_server_url("localhost:9")), "http://localhost:9");
  EXPECT_EQ(to_string(parse_server_url("http://[::1]:8080")), "http://[::1]:8080");
  EXPECT_EQ(to_string(parse_server_url("http://host")), "http://host:80");
  EXPECT_EQ(to_string(parse_server_url("https://host:8443")), "https://host:8443");
}

TEST(ServerUrl, RefusesTheRest) {
  for (const char* text : {"", "ftp://localhost:1", "https://", "http://", "http://:80", "http://a:b", "http://a:0", "http://a:65536",
                           "http://a:80/api", "http://u@a:80", "http://::1:80", "http://[::1]80", "a b:80"}) {
    const auto error = error_of([&] { parse_server_url(text); });
    ASSERT_TRUE(error) << text;
    EXPECT_EQ(error->code, ErrorCode::kUsage) << text;
  }
}

TEST(Client, GetsJson) {
  CannedServer server({http_answer(200, "application/json", R"({"items":[1,2]})")});
  EXPECT_EQ(client_of(server).get("/api/v1/jobs"), nlohmann::json::parse(R"({"items":[1,2]})"));
  EXPECT_THAT(server.requests().at(0), HasSubstr("GET /api/v1/jobs HTTP/1.1\r\n"));
}

TEST(Client, PostsJsonWithItsTypeAndLength) {
  CannedServer server({http_answer(201, "application/json", "{}", "Location: /x\r\n")});
  client_of(server).post("/api/v1/jobs", {{"a", 1}});
  const std::string request = server.requests().at(0);
  EXPECT_THAT(request, HasSubstr("POST /api/v1/jobs HTTP/1.1\r\n"));
  EXPECT_THAT(request, HasSubstr("Content-Type: application/json\r\n"));
  EXPECT_TRUE(request.ends_with("\r\n\r\n{\"a\":1}"));
}

TEST(Client, HeadersComeInLowerCase) {
  CannedServer server({http_answer(200, "text/plain", "hello", "X-Next-Offset: 5\r\n")});
  const ClientResponse response = client_of(server).request("GET", "/logs");
  EXPECT_EQ(response.body, "hello");
  EXPECT_EQ(response.headers.at("x-next-offset"), "5");
}

TEST(Client, ProblemDocumentsBecomeErrorsOfTheirCode) {
  const auto answer = [](int status, const std::string& name) {
    return http_answer(status, "application/problem+json",
                       R"({"type":"urn:onestep:problem:)" + name + R"(","status":1,"detail":"what it says"})");
  };
  const std::vector<std::tuple<int, std::string, ErrorCode>> cases = {
      {404, "not_found", ErrorCode::kNotFound}, {409, "conflict", ErrorCode::kConflict},
      {422, "mismatch", ErrorCode::kMismatch},  {405, "method_not_allowed", ErrorCode::kUsage},
      {503, "unavailable", ErrorCode::kUnavailable}, {500, "nonsense", ErrorCode::kInternal}};
  for (const auto& [status, name, code] : cases) {
    CannedServer server({answer(status, name)});
    const auto error = error_of([&] { client_of(server).get("/x"); });
    ASSERT_TRUE(error) << name;
    EXPECT_EQ(error->code, code) << name;
    EXPECT_EQ(error->message, "what it says");
  }
}

TEST(Client, EveryViolationOfARefusedSpecIsNamed) {
  CannedServer server({http_answer(422, "application/problem+json",
                                   R"({"type":"urn:onestep:problem:config","detail":"d","errors":[
                                       {"pointer":"/spec/a","detail":"expected 1"},{"pointer":"/spec/b","detail":"expected 2"}]})")});
  const auto error = error_of([&] { client_of(server).get("/x"); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kConfig);
  EXPECT_THAT(error->message, HasSubstr("/spec/a: expected 1"));
  EXPECT_THAT(error->message, HasSubstr("/spec/b: expected 2"));
}

TEST(Client, AnswersThatAreNoneAreUnavailable) {
  for (const std::string& answer : {http_answer(200, "text/html", "<html>"), http_answer(502, "text/html", "<html>"),
                                    std::string("no http at all\r\n\r\n"), std::string()}) {
    CannedServer server({answer});
    const auto error = error_of([&] { client_of(server).get("/x"); });
    ASSERT_TRUE(error) << answer;
    EXPECT_EQ(error->code, ErrorCode::kUnavailable) << answer;
  }
}

TEST(Client, NobodyThereIsUnavailableAndSaysHowToStartOne) {
  std::string url;
  { url = CannedServer({}).url(); }
  const auto error = error_of([&] { Client(parse_server_url(url)).get("/x"); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kUnavailable);
  EXPECT_THAT(error->message, HasSubstr(url));
  EXPECT_THAT(error->message, HasSubstr("onestep up"));
}

TEST(PercentEncode, LeavesOnlyUnreservedCharacters) {
  EXPECT_EQ(percent_encode("distill-4_a.b~"), "distill-4_a.b~");
  EXPECT_EQ(percent_encode("a b/c?&\xc3\xa9"), "a%20b%2Fc%3F%26%C3%A9");
}

}  // namespace
}  // namespace onestep
