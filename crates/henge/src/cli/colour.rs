//! Whether what a command shows is in colour, and what colours there are: few, by what they mean, and the words say the same
//! without them.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches};

/// When there is colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum When {
    #[default]
    Auto,
    Always,
    Never,
}

/// The flag.
pub(super) fn flag() -> Arg {
    Arg::new("color")
        .long("color")
        .value_name("WHEN")
        .default_value("auto")
        .value_parser(PossibleValuesParser::new(["auto", "always", "never"]))
        .hide_possible_values(true)
        .help("auto, always or never; auto is on a terminal only, and asks NO_COLOR and CLICOLOR_FORCE as well")
}

impl When {
    /// What the flag says.
    pub(super) fn given(matches: &ArgMatches) -> Self {
        match matches.get_one::<String>("color").map(String::as_str) {
            Some("always") => Self::Always,
            Some("never") => Self::Never,
            _ => Self::Auto,
        }
    }

    /// What that is for standard output.
    pub(super) fn painter(self) -> Painter {
        let variable = |name: &str| std::env::var_os(name);
        Painter {
            is_on: self.is_on(variable, io::stdout().is_terminal()),
        }
    }

    fn is_on(self, variable: impl Fn(&str) -> Option<OsString>, is_terminal: bool) -> bool {
        let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            // The first is what a person asks for, whatever programs ask for: https://no-color.org and https://bixense.com/clicolors.
            Self::Auto if is_set("NO_COLOR") => false,
            Self::Auto if variable("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
            Self::Auto => is_terminal && variable("TERM").is_none_or(|value| value != "dumb"),
        }
    }
}

/// What a word means to who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Head,
    Good,
    Doubtful,
    Bad,
}

/// Puts words in colour, or leaves them as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Painter {
    pub(super) is_on: bool,
}

impl Painter {
    /// The word in its colour: one of the eight that every terminal has, as the person at it has chosen them.
    pub(super) fn paint(self, word: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Head => "1",
            Tone::Good => "32",
            Tone::Doubtful => "33",
            Tone::Bad => "31",
            Tone::Plain => return word.to_owned(),
        };
        if self.is_on && !word.is_empty() {
            format!("\x1b[{code}m{word}\x1b[0m")
        } else {
            word.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_whether_there_is_colour() {
        use When::{Always, Auto, Never};
        for (when, environment, is_terminal, is_on) in [
            (Auto, "", true, true),
            (Auto, "", false, false),
            (Auto, "TERM=xterm", true, true),
            (Auto, "TERM=dumb", true, false),
            (Auto, "NO_COLOR=1", true, false),
            (Auto, "NO_COLOR=", true, true),
            (Auto, "CLICOLOR_FORCE=1", false, true),
            (Auto, "CLICOLOR_FORCE=0", false, false),
            (Auto, "CLICOLOR_FORCE=1 TERM=dumb", false, true),
            (Auto, "CLICOLOR_FORCE=1 NO_COLOR=1", true, false),
            (Always, "NO_COLOR=1 TERM=dumb", false, true),
            (Never, "CLICOLOR_FORCE=1", true, false),
        ] {
            let variable = |name: &str| {
                let mut all = environment
                    .split(' ')
                    .filter_map(|word| word.split_once('='));
                all.find(|(known, _)| *known == name)
                    .map(|(_, value)| value.into())
            };
            assert_eq!(
                when.is_on(variable, is_terminal),
                is_on,
                "{when:?} {environment} {is_terminal}"
            );
        }
    }
}
