//! `henge completions`: what a shell needs to complete the commands and options of this program. It follows from the grammar, and says
//! nothing that the grammar does not.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;

/// The shells, of those that the library knows: those for which a test can be had, or that people have asked for.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

const HELP: &str = "\
Where the shells look for it:
  bash  henge completions bash > ~/.local/share/bash-completion/completions/henge
  zsh   henge completions zsh > DIR/_henge, where DIR is one of $fpath
  fish  henge completions fish > ~/.config/fish/completions/henge.fish

Options are completed with two dashes.";

pub(super) fn command() -> Command {
    let shells = PossibleValuesParser::new(SHELLS)
        .map(|name| name.parse::<Shell>().expect("the library knows these"));
    Command::new("completions")
        .about("Print what a shell completes the commands and options by")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(shells)
                .help("The shell"),
        )
        .after_help(HELP)
}

/// The shell that is asked for.
pub(super) fn understood(matches: &ArgMatches) -> Option<Shell> {
    matches.get_one("shell").copied()
}

/// The script of a shell for a grammar.
pub(super) fn script(shell: Shell, mut grammar: Command) -> String {
    let mut script = Vec::new();
    let name = grammar.get_name().to_owned();
    clap_complete::generate(shell, &mut grammar, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command as Process, Stdio};

    use super::*;
    use crate::cli::arguments::{grammar, leaves};

    #[test]
    fn every_command_and_option_is_completed() {
        for shell in SHELLS {
            let script = script(shell.parse().expect("a shell"), grammar());
            for (words, command) in leaves(&grammar()) {
                let last = words.rsplit(' ').next().unwrap_or_default();
                assert!(script.contains(last), "{shell}: {words}");
                for option in command.get_arguments().filter_map(Arg::get_long) {
                    assert!(script.contains(option), "{shell}: {words} --{option}");
                }
            }
        }
    }

    /// The script of bash, which is everywhere where these tests run; and what it completes.
    #[test]
    fn bash_understands_its_script() {
        let script = script(Shell::Bash, grammar());
        let said = |arguments: &[&str], input: &str| {
            let mut bash = Process::new("bash")
                .args(["--norc", "--noprofile"])
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("bash is there");
            let mut stdin = bash.stdin.take().expect("it is piped");
            stdin.write_all(input.as_bytes()).expect("it reads");
            drop(stdin);
            let output = bash.wait_with_output().expect("it ends");
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!((output.status.code(), &*errors), (Some(0), ""));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        said(&["-n"], &script);
        for (line, expected) in [
            ("henge clu", "cluster"),
            ("henge cluster sta", "status"),
            ("henge cluster status --js", "--json"),
            ("henge cluster status --color al", "always"),
            ("henge key rev", "revoke"),
            ("henge completions z", "zsh"),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let last = words.len() - 1;
            let asked = format!(
                "{script}\nCOMP_WORDS=({line}); COMP_CWORD={last}\n_henge henge {} {}\necho \"${{COMPREPLY[@]}}\"\n",
                words[last],
                words[last - 1]
            );
            assert_eq!(said(&[], &asked).trim(), expected, "{line}");
        }
    }
}
