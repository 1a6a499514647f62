// Runs the program: exit codes, messages, where --url may stand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include <filesystem>

#include "cli/canned_server.h"
#include "cli/local_program.h"
#include "support/files.h"
#include "support/temp_folder.h"

namespace onestep {
namespace {

using ::testing::HasSubstr;

const std::string kProgram = ONESTEP_PROGRAM;
const std::string kPipeline = std::string(ONESTEP_SOURCE_DIR) + "/configs/digits/smoke/pipeline.json";

// Standard error in the output, which is what a person sees.
ProgramResult onestep(const std::string& arguments, const std::string& environment = "") {
  return run_program({"/bin/sh", "-c", "unset ONESTEP_URL; " + environment + " " + kProgram + " " + arguments + " 2>&1"});
}

TEST(CommandLine, VersionAndHelp) {
  const nlohmann::json version = nlohmann::json::parse(onestep("version --json").output);
  EXPECT_EQ(version.at("version"), "0.1.0");
  EXPECT_TRUE(version.at("commit").is_string());
  const ProgramResult help = onestep("--help");
  EXPECT_EQ(help.exit_status, 0);
  EXPECT_THAT(help.output, HasSubstr("Exit codes: 0 done"));
  for (const char* command : {"up", "submit", "follow", "jobs", "show", "logs", "cancel", "resume", "checkpoint", "export", "sample",
                              "evaluate", "plan", "verify", "inspect", "dataset", "report", "tensorboard", "version", "token", "backup",
                              "init-tls", "completion", "man"}) {
    EXPECT_THAT(help.output, HasSubstr(command));
    const ProgramResult own = onestep(std::string(command) + " --help");
    EXPECT_EQ(own.exit_status, 0) << command;
    EXPECT_THAT(own.output, HasSubstr("Examples:\n  onestep " + std::string(command)));
  }
}

TEST(CommandLine, WrongOnesExitWith2) {
  for (const char* arguments : {"", "nonsense", "jobs --nonsense", "submit", "show", "sample --model x", "jobs --url ftp://x",
                                "sample --model . --out a.png --count 0", "dataset", "dataset pack x", "--url http://x:1 version"}) {
    const ProgramResult run = onestep(arguments);
    EXPECT_EQ(run.exit_status, 2) << arguments;
    EXPECT_THAT(run.output, HasSubstr("onestep: ")) << arguments;
  }
}

TEST(CommandLine, WrongOnesSayWhereToLook) {
  EXPECT_EQ(onestep("cancle x").output, "onestep: unknown command 'cancle' (did you mean 'cancel'?); see 'onestep --help'\n");
  EXPECT_EQ(onestep("xyzzy").output, "onestep: unknown command 'xyzzy'; see 'onestep --help'\n");
  EXPECT_EQ(onestep("logs").output, "onestep: job is required; see 'onestep logs --help'\n");
  EXPECT_THAT(onestep("token add").output, HasSubstr("--role is required; see 'onestep token add --help'"));
  EXPECT_THAT(onestep("jobs --stat x").output, HasSubstr("see 'onestep jobs --help'"));
}

TEST(CommandLine, CompletionsAndManualComeFromTheCommandTable) {
  const TempFolder folder;
  // What bash offers for a line that is being typed.
  const auto offered = [&](const std::string& words, int at) {
    return run_program({"/bin/bash", "-c", "eval \"$(" + kProgram + " completion bash)\"; COMP_WORDS=(" + words +
                                               "); COMP_CWORD=" + std::to_string(at) + "; _onestep; echo ${COMPREPLY[@]}"}).output;
  };
  EXPECT_EQ(offered("onestep sub", 1), "submit\n");
  EXPECT_EQ(offered("onestep submit --fo", 2), "--follow\n");
  EXPECT_EQ(offered("onestep token re", 2), "revoke\n");
  EXPECT_EQ(offered("onestep dataset pack --reso", 3), "--resolution\n");
  EXPECT_EQ(offered("onestep submit /etc/os-rel", 2), "/etc/os-release\n");
  const std::string fish = onestep("completion fish").output, zsh = onestep("completion zsh").output;
  const std::string page = onestep("man").output;
  for (const char* command : {"up", "submit", "follow", "logs", "token", "backup", "init-tls", "inspect", "completion"}) {
    EXPECT_THAT(fish, HasSubstr(std::string(" -a ") + command + " ")) << command;
    EXPECT_THAT(zsh, HasSubstr(std::string("'") + command + ":")) << command;
    std::string name = command;
    if (const std::size_t dash = name.find('-'); dash != std::string::npos) name.insert(dash, "\\");
    EXPECT_THAT(page, HasSubstr(".SS onestep " + name + "\n")) << command;
  }
  EXPECT_THAT(page, HasSubstr(".SS onestep dataset pack\n"));
  EXPECT_THAT(page, HasSubstr("Exit codes: 0 done"));
  EXPECT_EQ(onestep("completion tcsh").exit_status, 2);
  spit(folder / "onestep.1", page);
  if (run_program({"/bin/sh", "-c", "command -v groff"}).exit_status == 0) {
    const ProgramResult typeset = run_program({"/bin/sh", "-c", "groff -man -ww -Tutf8 " + (folder / "onestep.1") + " 2>&1 >/dev/null"});
    EXPECT_EQ(typeset.output, "");
  }
}

TEST(CommandLine, NoColoursWhereNobodyLooks) {
  const std::string answer = http_answer(200, "application/json", R"({"items":[{"id":"a-1","state":"failed"}],"next_page_token":null})");
  CannedServer server({answer, answer, answer});
  EXPECT_THAT(onestep("jobs --url " + server.url(), "TERM=xterm").output, ::testing::Not(HasSubstr("\033")));
  // script gives it a terminal.
  const auto on_terminal = [&](const std::string& environment) {
    return run_program({"/bin/sh", "-c", environment + " TERM=xterm script -qec '" + kProgram + " jobs --url " + server.url() + "' /dev/null"}).output;
  };
  EXPECT_THAT(on_terminal(""), HasSubstr("\033[31mfailed\033[0m"));
  EXPECT_THAT(on_terminal("NO_COLOR=1"), ::testing::Not(HasSubstr("\033[31m")));
}

TEST(CommandLine, NobodyThereExitsWith6) {
  std::string url;
  { url = CannedServer({}).url(); }
  for (const char* command : {"jobs", "show x", "logs x", "cancel x", "resume x", "checkpoint x", "follow x"}) {
    if (std::string(command) == "follow x") continue;  // waits a minute by design
    EXPECT_EQ(onestep(std::string(command) + " --url " + url).exit_status, 6) << command;
  }
  EXPECT_EQ(onestep("submit " + kPipeline + " --url " + url).exit_status, 6);
}

TEST(CommandLine, UrlStandsBeforeOrAfterOrInTheEnvironment) {
  const std::string answer = http_answer(200, "application/json", R"({"items":[],"next_page_token":null})");
  CannedServer server({answer, answer, answer});
  for (const ProgramResult& run : {onestep("--url " + server.url() + " jobs"), onestep("jobs --url " + server.url()),
                                   onestep("jobs", "ONESTEP_URL=" + server.url())}) {
    EXPECT_EQ(run.exit_status, 0) << run.output;
    EXPECT_EQ(run.output, "no jobs\n");
  }
}

TEST(CommandLine, JobsAreListedPageByPage) {
  CannedServer server({http_answer(200, "application/json", R"({"items":[{"id":"a-1"}],"next_page_token":"t/1"})"),
                       http_answer(200, "application/json", R"({"items":[{"id":"b-2"}],"next_page_token":""})")});
  const ProgramResult run = onestep("jobs --json --url " + server.url());
  EXPECT_EQ(nlohmann::json::parse(run.output), nlohmann::json::parse(R"({"items":[{"id":"a-1"},{"id":"b-2"}]})"));
  EXPECT_THAT(server.requests().at(1), HasSubstr("page_token=t%2F1"));
}

TEST(CommandLine, EveryMistakeInAPipelineIsNamedAndNothingIsSent) {
  const ProgramResult run = onestep("submit " + kPipeline + " --url http://127.0.0.1:1 --set distill.ranks=3 --set teacher.bacth=3 " +
                                    "--set pairs.count='\"many\"'");
  EXPECT_EQ(run.exit_status, 3);
  EXPECT_THAT(run.output, HasSubstr("3 problems"));
  EXPECT_THAT(run.output, HasSubstr("ranks 3 can't share"));
  EXPECT_THAT(run.output, HasSubstr("did you mean 'batch'?"));
  EXPECT_THAT(run.output, HasSubstr("/count: expected an integer"));
}

TEST(CommandLine, MissingAndBrokenFilesAreNamed) {
  const TempFolder folder;
  const ProgramResult missing = onestep("submit " + folder / "none.json");
  EXPECT_EQ(missing.exit_status, 4);
  EXPECT_THAT(missing.output, HasSubstr("none.json"));
  spit(folder / "broken.json", "{\"name\": ");
  EXPECT_EQ(onestep("submit " + folder / "broken.json").exit_status, 3);
  EXPECT_EQ(onestep("submit " + kPipeline + " --set nonsense").exit_status, 2);
  EXPECT_EQ(onestep("verify " + folder / "none").exit_status, 4);
  EXPECT_EQ(onestep("inspect " + folder / "none").exit_status, 4);
  EXPECT_EQ(onestep("dataset pack " + folder / "none" + " " + folder / "out.h5").exit_status, 4);
  EXPECT_EQ(onestep("report --out " + folder / "none").exit_status, 4);
  EXPECT_EQ(onestep("sample --model " + folder / "none" + " --out " + folder / "a.png").exit_status, 4);
}

TEST(CommandLine, FollowEndsWithOneJsonObjectAndTheJobsFate) {
  const std::string submitted = http_answer(201, "application/json", R"({"pipeline":{"id":"p-1","name":"p"},"jobs":[]})");
  const auto pipeline = [](const std::string& state) {
    return http_answer(200, "application/json",
                       R"({"last_event_id":"4","jobs":[{"id":"a-1","name":"a","kind":"export","state":")" + state +
                           R"(","attempts":1,"digest":"d","reason":"why","parent":""}]})");
  };
  const std::string events = http_answer(200, "text/event-stream",
                                         "id: 5\nevent: state\ndata: {\"job\":\"a-1\",\"name\":\"a\",\"kind\":\"export\","
                                         "\"state\":\"succeeded\",\"attempts\":1,\"digest\":\"d\"}\n\n");
  CannedServer good({submitted, pipeline("running"), events});
  const ProgramResult succeeded =
      run_program({"/bin/sh", "-c", kProgram + " submit " + kPipeline + " --follow --json --url " + good.url() + " 2>/dev/null"});
  EXPECT_EQ(succeeded.exit_status, 0);
  EXPECT_EQ(succeeded.output, R"({"jobs":[{"name":"a","kind":"export","state":"succeeded","attempts":1,"digest":"d"}]})" "\n");
  EXPECT_THAT(good.requests().at(2), HasSubstr("Last-Event-ID: 4\r\n"));

  CannedServer bad({submitted, pipeline("failed")});
  const ProgramResult failed = onestep("submit " + kPipeline + " --follow --url " + bad.url());
  EXPECT_EQ(failed.exit_status, 7);
  EXPECT_THAT(failed.output, HasSubstr("onestep: a: failed: why"));
}

TEST(CommandLine, AJobIsShownLineByLine) {
  CannedServer server({http_answer(
      200, "application/json",
      R"({"id":"distill-4","name":"distill","kind":"distill","after":["teacher-2","pairs-3"],"state":"succeeded","reason":"attempt 1 succeeded",)"
      R"("created":1000,"started":1010,"ended":1075,"attempts":[{"number":1,"state":"succeeded","reason":"succeeded"}],)"
      R"("result":{"images":1280,"generator_sha256":"0a26","seconds":{"all":3}}})")});
  EXPECT_EQ(onestep("show distill --url " + server.url()).output,
            "id       distill-4\n"
            "name     distill\n"
            "kind     distill\n"
            "after    teacher-2, pairs-3\n"
            "state    succeeded\n"
            "reason   attempt 1 succeeded\n"
            "created  1970-01-01 00:16:40Z\n"
            "started  1970-01-01 00:16:50Z\n"
            "ended    1970-01-01 00:17:55Z, after 1:05\n"
            "attempt 1: succeeded\n"
            "result\n"
            "  generator_sha256  0a26\n"
            "  images            1280\n"
            "  seconds           {\"all\":3}\n");
}

TEST(CommandLine, TokensBesideTheDataFolderNeedOne) {
  const TempFolder folder;
  for (const char* command : {"list", "revoke 1a2b3c4d"}) {
    const ProgramResult run = onestep(std::string("token ") + command + " --data " + (folder / "none"));
    EXPECT_EQ(run.exit_status, 4) << command;
    EXPECT_THAT(run.output, HasSubstr("expected the data folder of a coordinator"));
    EXPECT_FALSE(std::filesystem::exists(folder / "none"));
  }
  EXPECT_EQ(onestep("token add --role read --data " + (folder / "new")).exit_status, 0);
  EXPECT_THAT(onestep("token list --data " + (folder / "new")).output, HasSubstr("  read    valid"));
}

TEST(CommandLine, LogsGoOnFromTheOffsetTheyReached) {
  const auto text = [](const std::string& body, int next) {
    return http_answer(200, "text/plain", body, "X-Attempt: 2\r\nX-Next-Offset: " + std::to_string(next) + "\r\n");
  };
  CannedServer server({text("one\n", 4), text("two\n", 8), text("", 8)});
  const ProgramResult run = onestep("logs a-1 --rank 1 --attempt 2 --url " + server.url());
  EXPECT_EQ(run.output, "one\ntwo\n");
  EXPECT_THAT(server.requests().at(1), HasSubstr("/api/v1/jobs/a-1/logs?rank=1&offset=4"));
  EXPECT_THAT(server.requests().at(1), HasSubstr("attempt=2"));
}

// A restart begins a new log, which the events bring after the old one's end; a stream that breaks goes on where it ended.
TEST(CommandLine, FollowedLogsGoOnWithTheNextAttemptAndAfterABrokenStream) {
  const std::string job = http_answer(
      200, "application/json", R"({"id":"a-1","state":"running","attempts":[{"number":1}],"last_event_id":"7"})");
  const auto log = [](const std::string& id, int attempt, const std::string& text) {
    const nlohmann::json body = {{"attempt", attempt}, {"text", text}};
    return "id: " + id + "\nevent: log\ndata: " + body.dump() + "\n\n";
  };
  const std::string ended = "id: 9.2.4\nevent: state\ndata: {\"job\":\"a-1\",\"state\":\"succeeded\"}\n\n";
  CannedServer server({job, http_answer(200, "text/event-stream", log("7.1.4", 1, "one\n")),
                       http_answer(200, "text/event-stream",
                                   log("7.1.11", 1, "killed\n") + log("8.2.4", 2, "two\n") + ended)});
  const ProgramResult run = onestep("logs a-1 --follow --url " + server.url());
  EXPECT_EQ(run.output, "one\nkilled\ntwo\n");
  EXPECT_THAT(server.requests().at(1), HasSubstr("Last-Event-ID: 7.1.0\r\n"));
  EXPECT_THAT(server.requests().at(2), HasSubstr("Last-Event-ID: 7.1.4\r\n"));
}

}  // namespace
}  // namespace onestep
