//! `henge man`: the manual, a page for each command, from the grammar. What a page has beside its options is what the command's own help
//! has beside them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::ValueParser;
use clap::{Arg, ArgMatches, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{EXIT_FAILURE, failed, print};
use crate::config::shown;

const HELP: &str = "\
With DIR each command has a file of its own there, such as henge-cluster-status.1; DIR is made if it is not there. A DIR whose
name is man1, in one of the places that manpath prints, is found by man. Without DIR the page of henge itself is printed:
  henge man | man -l -";

pub(super) fn command() -> Command {
    Command::new("man")
        .about("Print the manual, or write its pages into a directory")
        .arg(
            Arg::new("directory")
                .value_name("DIR")
                .value_parser(ValueParser::path_buf())
                .help("Where the pages are written, such as /usr/local/share/man/man1"),
        )
        .after_help(HELP)
}

/// The directory that is asked for, if one is.
pub(super) fn understood(matches: &ArgMatches) -> Option<PathBuf> {
    matches.get_one("directory").cloned()
}

/// Prints the first page, or writes all.
pub(super) fn run(directory: Option<&Path>, grammar: Command) -> ExitCode {
    let pages = match pages(grammar) {
        Ok(pages) => pages,
        Err(error) => return failed(&error, EXIT_FAILURE),
    };
    let Some(directory) = directory else {
        return print(pages.first().map_or("", |page| &page.text));
    };
    for page in &pages {
        let path = directory.join(&page.name);
        let written = fs::create_dir_all(directory).and_then(|()| fs::write(&path, &page.text));
        if let Err(error) = written {
            let line = format!("{} cannot be written: {error}", shown(&path));
            return failed(&line, EXIT_FAILURE);
        }
    }
    print(&format!("{} pages in {}\n", pages.len(), shown(directory)))
}

/// A page, and the name of its file.
struct Page {
    name: String,
    text: String,
}

/// All pages of a grammar, its own first.
fn pages(grammar: Command) -> io::Result<Vec<Page>> {
    // Which would have a page for each of the others once more.
    let mut grammar = grammar.disable_help_subcommand(true);
    grammar.build();
    let mut pages = Vec::new();
    write_pages(&grammar, None, &mut pages)?;
    Ok(pages)
}

fn write_pages(command: &Command, above: Option<&str>, pages: &mut Vec<Page>) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    pages.push(page(command, name, above)?);
    for deeper in command
        .get_subcommands()
        .filter(|deeper| !deeper.is_hide_set())
    {
        write_pages(deeper, Some(name), pages)?;
    }
    Ok(())
}

fn page(command: &Command, name: &str, above: Option<&str>) -> io::Result<Page> {
    let manual = Man::new(command.clone())
        .source(concat!("henge ", env!("CARGO_PKG_VERSION")))
        .manual("Henge")
        // The library writes nothing at all for an empty one, and the next would take its place.
        .date(" ");
    let mut text = Vec::new();
    manual.render_title(&mut text)?;
    manual.render_name_section(&mut text)?;
    manual.render_synopsis_section(&mut text)?;
    manual.render_description_section(&mut text)?;
    manual.render_options_section(&mut text)?;
    if command.has_subcommands() {
        manual.render_subcommands_section(&mut text)?;
    }
    let mut rest = Roff::new();
    if let Some(notes) = command.get_after_help() {
        write_notes(&notes.to_string(), &mut rest);
    }
    if let Some(above) = above {
        rest.control("SH", ["SEE ALSO"]);
        rest.text([bold(above), roman("(1)")]);
    }
    rest.to_writer(&mut text)?;
    Ok(Page {
        name: format!("{name}.1"),
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}

/// What is below the options in the help: prose is filled, and what is set out by spaces stays as it is.
fn write_notes(notes: &str, page: &mut Roff) {
    page.control("SH", ["NOTES"]);
    for paragraph in notes.split("\n\n") {
        page.control("PP", []);
        let mut is_set_out = false;
        for line in paragraph.lines() {
            if line.starts_with(' ') != is_set_out {
                is_set_out = !is_set_out;
                if is_set_out {
                    // The line before ends where it ends.
                    page.control("nf", []);
                } else {
                    page.control("fi", []);
                }
            }
            page.text([roman(line)]);
        }
        if is_set_out {
            page.control("fi", []);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command as Process, Stdio};

    use super::*;
    use crate::cli::arguments::{grammar, leaves};

    #[test]
    fn each_command_has_a_page() {
        let pages = pages(grammar()).expect("they are written");
        let names: Vec<&str> = pages.iter().map(|page| &*page.name).collect();
        assert_eq!(names[0], "henge.1");
        for group in ["henge-cluster.1", "henge-key.1", "henge-config.1"] {
            assert!(names.contains(&group), "{group}");
        }
        for (words, command) in leaves(&grammar()) {
            let name = format!("henge-{}.1", words.replace(' ', "-"));
            let page = pages.iter().find(|page| page.name == name).expect(&words);
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"SEE ALSO\""] {
                assert!(
                    page.text.contains(&format!("\n.SH {section}\n")),
                    "{name}: {section}"
                );
            }
            for option in command.get_arguments().filter_map(Arg::get_long) {
                let option = format!("\\-\\-{}", option.replace('-', "\\-"));
                assert!(page.text.contains(&option), "{name}: {option}");
            }
        }
    }

    /// By what shows pages, where that is there; elsewhere by what would go wrong: a request that is none.
    #[test]
    fn what_shows_pages_has_no_complaint() {
        const REQUESTS: [&str; 14] = [
            "ie", "el", "TH", "SH", "TP", "PP", "RS", "RE", "IP", "nf", "fi", "br", "sp", "\\\"",
        ];
        for page in pages(grammar()).expect("they are written") {
            for line in page.text.lines().filter(|line| line.starts_with('.')) {
                let request = line[1..].split(' ').next().unwrap_or_default();
                assert!(REQUESTS.contains(&request), "{}: {line}", page.name);
            }
            assert!(!page.text.contains('\u{1b}'), "{}", page.name);
            let groff = Process::new("groff")
                .args(["-man", "-Tutf8", "-ww", "-b", "-z"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn();
            let Ok(mut groff) = groff else { continue };
            let mut stdin = groff.stdin.take().expect("it is piped");
            stdin.write_all(page.text.as_bytes()).expect("it reads");
            drop(stdin);
            let output = groff.wait_with_output().expect("it ends");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{}", page.name);
        }
    }

    #[test]
    fn prose_is_filled_and_lists_are_not() {
        let mut page = Roff::new();
        write_notes("One.\nTwo.\n\nCodes:\n  0  done\n  1  not", &mut page);
        assert_eq!(
            page.to_roff(),
            ".SH NOTES\n.PP\nOne.\nTwo.\n.PP\nCodes:\n.nf\n  0  done\n  1  not\n.fi\n"
        );
    }
}
