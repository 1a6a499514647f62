#include "cli/manual.h"

#include <algorithm>
#include <sstream>
#include <vector>

#include "common/error.h"

namespace onestep {
namespace {

// A command with the words that lead to it: {"dataset", "pack"}.
struct Command {
  std::vector<std::string> words;
  const CLI::App* app;
};

std::string joined(const std::vector<std::string>& words, const std::string& separator) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : separator) + word;
  return text;
}

void collect(const CLI::App& app, std::vector<std::string> words, std::vector<Command>& found) {
  found.push_back({words, &app});
  for (const CLI::App* inner : app.get_subcommands([](const CLI::App*) { return true; })) {
    std::vector<std::string> longer = words;
    longer.push_back(inner->get_name());
    collect(*inner, std::move(longer), found);
  }
}

std::vector<Command> commands_of(const CLI::App& app) {
  std::vector<Command> found;
  collect(app, {}, found);
  return found;
}

std::vector<const CLI::Option*> options_of(const CLI::App& app) {
  return app.get_options([](const CLI::Option*) { return true; });
}

std::vector<std::string> long_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : options_of(app)) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> subcommand_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* inner : app.get_subcommands([](const CLI::App*) { return true; })) names.push_back(inner->get_name());
  return names;
}

std::string shell_quoted(const std::string& text) {  // within '...' of a shell
  std::string safe;
  for (const char c : text) {
    if (c == '\'') {
      safe += "'\\''";
    } else {
      safe += c;
    }
  }
  return "'" + safe + "'";
}

std::string bash_script(const CLI::App& app) {
  std::ostringstream out;
  out << "# bash completion of onestep: eval \"$(onestep completion bash)\"\n"
         "_onestep() {\n"
         "  local word=${COMP_WORDS[COMP_CWORD]} command= i names=\n"
         "  for ((i = 1; i < COMP_CWORD; ++i)); do\n"
         "    case $command/${COMP_WORDS[i]} in\n";
  const std::vector<Command> commands = commands_of(app);
  for (const Command& command : commands) {
    if (command.words.empty()) continue;
    const std::vector<std::string> outer(command.words.begin(), command.words.end() - 1);
    out << "      " << shell_quoted(joined(outer, " ") + "/" + command.words.back()) << ") command=" << shell_quoted(joined(command.words, " ")) << " ;;\n";
  }
  out << "    esac\n  done\n  case $command in\n";
  for (const Command& command : commands) {
    out << "    " << shell_quoted(joined(command.words, " ")) << ") names="
        << shell_quoted(joined(subcommand_names(*command.app), " ") + " " + joined(long_names(*command.app), " ")) << " ;;\n";
  }
  out << "  esac\n"
         "  COMPREPLY=($(compgen -W \"$names\" -- \"$word\"))\n"
         "  [[ ${#COMPREPLY[@]} -gt 0 || $word == -* ]] || COMPREPLY=($(compgen -f -- \"$word\"))\n"
         "}\n"
         "complete -o filenames -F _onestep onestep\n";
  return out.str();
}

std::string zsh_script(const CLI::App& app) {
  std::ostringstream out;
  out << "#compdef onestep\n# zsh completion of onestep: a file _onestep in $fpath\n"
         "_onestep() {\n"
         "  local command= i\n  local -a names\n"
         "  for ((i = 2; i < CURRENT; ++i)); do\n"
         "    case $command/${words[i]} in\n";
  const std::vector<Command> commands = commands_of(app);
  for (const Command& command : commands) {
    if (command.words.empty()) continue;
    const std::vector<std::string> outer(command.words.begin(), command.words.end() - 1);
    out << "      " << shell_quoted(joined(outer, " ") + "/" + command.words.back()) << ") command=" << shell_quoted(joined(command.words, " ")) << " ;;\n";
  }
  const auto entry = [](std::string name, const std::string& what) {
    name += ":";
    for (const char c : what) name += c == ':' ? std::string("\\:") : std::string(1, c);
    return shell_quoted(name);
  };
  out << "    esac\n  done\n  case $command in\n";
  for (const Command& command : commands) {
    out << "    " << shell_quoted(joined(command.words, " ")) << ") names=(";
    for (const CLI::App* inner : command.app->get_subcommands([](const CLI::App*) { return true; })) {
      out << entry(inner->get_name(), inner->get_description()) << " ";
    }
    for (const CLI::Option* option : options_of(*command.app)) {
      for (const std::string& name : option->get_lnames()) out << entry("--" + name, option->get_description()) << " ";
    }
    out << ") ;;\n";
  }
  out << "  esac\n  _describe command names\n  [[ ${words[CURRENT]} == -* ]] || _files\n}\n_onestep \"$@\"\n";
  return out.str();
}

std::string fish_script(const CLI::App& app) {
  std::ostringstream out;
  out << "# fish completion of onestep: onestep completion fish > ~/.config/fish/completions/onestep.fish\n";
  for (const Command& command : commands_of(app)) {
    std::string condition;
    for (const std::string& word : command.words) {
      condition += (condition.empty() ? "" : "; and ") + std::string("__fish_seen_subcommand_from ") + word;
    }
    const std::vector<std::string> inner_names = subcommand_names(*command.app);
    const std::string none_yet = inner_names.empty() ? "" : "not __fish_seen_subcommand_from " + joined(inner_names, " ");
    const std::string before = condition + (condition.empty() || none_yet.empty() ? "" : "; and ") + none_yet;
    for (const CLI::App* inner : command.app->get_subcommands([](const CLI::App*) { return true; })) {
      out << "complete -c onestep -n " << shell_quoted(before) << " -a " << inner->get_name() << " -d " << shell_quoted(inner->get_description()) << "\n";
    }
    for (const CLI::Option* option : options_of(*command.app)) {
      for (const std::string& name : option->get_lnames()) {
        out << "complete -c onestep" << (condition.empty() ? "" : " -n " + shell_quoted(condition)) << " -l " << name
            << (option->get_expected_min() > 0 ? " -r" : "") << " -d " << shell_quoted(option->get_description()) << "\n";
      }
    }
  }
  return out.str();
}

// Text of a page: nothing in it is an instruction to roff.
std::string roff(const std::string& text) {
  std::string safe;
  bool line_start = true;
  for (const char c : text) {
    if (line_start && (c == '.' || c == '\'')) safe += "\\&";
    if (c == '\\') {
      safe += "\\e";
    } else if (c == '-') {
      safe += "\\-";
    } else {
      safe += c;
    }
    line_start = c == '\n';
  }
  return safe;
}

void describe_options(std::ostringstream& out, const CLI::App& app) {
  for (const CLI::Option* option : options_of(app)) {
    std::string names;
    for (const std::string& name : option->get_snames()) names += (names.empty() ? "-" : ", -") + name;
    for (const std::string& name : option->get_lnames()) names += (names.empty() ? "--" : ", --") + name;
    if (names.empty()) names = option->get_name();
    out << ".TP\n.B " << roff(names) << "\n" << roff(option->get_description()) << "\n";
  }
}

}  // namespace

std::string completion_script(const CLI::App& app, const std::string& shell) {
  if (shell == "bash") return bash_script(app);
  if (shell == "zsh") return zsh_script(app);
  if (shell == "fish") return fish_script(app);
  throw Error(ErrorCode::kUsage, "completion: expected bash, zsh or fish, found \"" + shell + "\"");
}

std::string manual_page(const CLI::App& app, const std::string& version) {
  std::ostringstream out;
  out << ".TH ONESTEP 1 \"\" \"onestep " << roff(version) << "\" \"User commands\"\n"
      << ".SH NAME\nonestep \\- " << roff(app.get_description()) << "\n"
      << ".SH SYNOPSIS\n.B onestep\n.I command\n[\\fIoptions\\fR]\n.SH OPTIONS\n";
  describe_options(out, app);
  out << ".SH COMMANDS\n";
  for (const Command& command : commands_of(app)) {
    if (command.words.empty()) continue;
    out << ".SS onestep " << roff(joined(command.words, " ")) << "\n" << roff(command.app->get_description()) << "\n";
    describe_options(out, *command.app);
    if (const std::string& footer = command.app->get_footer(); !footer.empty()) out << ".PP\n.nf\n" << roff(footer) << "\n.fi\n";
  }
  out << ".SH NOTES\n.nf\n" << roff(app.get_footer()) << "\n.fi\n";
  return out.str();
}

}  // namespace onestep
