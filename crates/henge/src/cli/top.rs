//! `henge top`: what a node or a whole cluster does, drawn anew each second. Here are the grammar and the loop between those who ask, the
//! keyboard and the drawing; each has its file.

mod draw;
mod figures;
mod latency;
mod members;
mod poll;
mod sample;
mod screen;
mod state;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use henge_client::Target;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::poll::{Round, round};
use self::screen::{Input, Screen};
use self::state::State;
use super::colour::{self, Painter, When};
use super::stop_signals::StopSignals;
use super::{EXIT_USAGE, api_key, client, duration, failed, members as others, print};

/// The exit code where nothing could be found out, or nothing be drawn.
const EXIT_FAILED: u8 = 3;
/// The shortest time between two looks: shorter ones would cost the node more than they show.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// How wide a frame as text is when nothing is said.
const TEXT_COLUMNS: u16 = 100;

const HELP: &str = "\
Keys: q quits, c goes from the node to all members and back, s sorts the members by the next column, p pauses, ? helps.

A node that does not answer is said to, and tried on. With --cluster, while the node at URL does not answer, the other members
are asked that it has named. Hot keys and slow requests are shown where the node has them and the API key may see them.

With --once one frame is printed as text after two looks, as wide as COLUMNS says, or 100 columns.

Exit codes:
  0  it was quit, or the frame was printed
  2  the command line cannot be understood, or standard output is no terminal
  3  it failed: the terminal cannot be used, or with --once no answer";

/// What is to be shown, as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Top {
    target: Target,
    timeout: Duration,
    interval: Duration,
    is_cluster: bool,
    is_once: bool,
    colour: When,
}

pub(super) fn command() -> Command {
    Command::new("top")
        .about("Show what a node or a cluster does, drawn anew each second")
        .args([
            client::url().help("The node: http://host:port or https://host:port"),
            client::timeout().default_value("2s"),
            Arg::new("cluster")
                .long("cluster")
                .action(ArgAction::SetTrue)
                .help("Begin with all members of the node's cluster"),
            Arg::new("interval")
                .long("interval")
                .value_name("DURATION")
                .default_value("1s")
                .value_parser(|text: &str| match duration::parse(text) {
                    Ok(interval) if interval < SHORTEST_INTERVAL => {
                        Err("expected a duration of 100ms or longer".to_owned())
                    }
                    parsed => parsed,
                })
                .help("How long it is between two looks"),
            Arg::new("once")
                .long("once")
                .action(ArgAction::SetTrue)
                .help("Print one frame as text, and end"),
            colour::flag(),
        ])
        .after_help(format!("{HELP}\n\n{}", api_key::HELP))
}

/// What the words after `top` ask for.
///
/// # Errors
/// The node cannot be asked by this URL.
pub(super) fn understood(matches: &ArgMatches) -> Option<Result<Top, String>> {
    let (timeout, interval) = (*matches.get_one("timeout")?, *matches.get_one("interval")?);
    let target = client::over_http(matches.get_one("url")?);
    Some(target.map(|target| Top {
        target,
        timeout,
        interval,
        is_cluster: matches.get_flag("cluster"),
        is_once: matches.get_flag("once"),
        colour: When::given(matches),
    }))
}

pub(super) fn run(top: &Top) -> ExitCode {
    if !top.is_once && !io::stdout().is_terminal() {
        let line = "standard output is no terminal; --once prints one frame as text";
        return failed(&line, EXIT_USAGE);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error, EXIT_FAILED),
    };
    if top.is_once {
        return match runtime.block_on(top.once(columns())) {
            Ok(text) => print(&text),
            Err(why) => failed(&why, EXIT_FAILED),
        };
    }
    match runtime.block_on(top.live()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(
            &format!("the terminal cannot be used: {error}"),
            EXIT_FAILED,
        ),
    }
}

/// How wide a frame as text is.
fn columns() -> u16 {
    let columns = std::env::var("COLUMNS").ok();
    let columns = columns.and_then(|columns| columns.parse().ok());
    columns
        .filter(|columns| *columns > 0)
        .unwrap_or(TEXT_COLUMNS)
}

/// Whom to ask, and whether to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scope {
    is_cluster: bool,
    is_paused: bool,
}

impl Top {
    /// One frame as text, of two looks, as there are rates.
    async fn once(&self, width: u16) -> Result<String, String> {
        let mut state = State::new(self.target.to_string(), self.is_cluster);
        let (nodes, start) = ([self.target.clone()], Instant::now());
        let mut looks = tokio::time::interval(self.interval);
        for _ in 0..2 {
            looks.tick().await;
            let heard = round(&nodes, self.is_cluster, self.timeout).await;
            if let Err(why) = &heard.status {
                return Err(why.clone());
            }
            state.take(heard, start.elapsed());
        }
        text_of(&state, width)
    }

    /// Draws until it is told to end.
    async fn live(&self) -> io::Result<()> {
        // Ctrl-C is a key here, and a signal only from elsewhere.
        let mut ends = StopSignals::new()?;
        let painter = self.colour.painter();
        let mut state = State::new(self.target.to_string(), self.is_cluster);
        let scope = |state: &State| Scope {
            is_cluster: state.is_cluster,
            is_paused: state.is_paused,
        };
        let mut screen = Screen::take()?;
        let mut inputs = screen::inputs();
        let (scopes, changes) = watch::channel(scope(&state));
        let (heard, mut rounds) = mpsc::channel(1);
        let mut asking = tokio::spawn(ask(self.clone(), changes, heard));
        let start = Instant::now();
        loop {
            screen.draw(|frame| draw::frame(&state, painter, frame))?;
            tokio::select! {
                () = ends.next() => break,
                // It ends when nobody wants to hear; before that only by a panic, which has given the terminal back.
                _ = &mut asking => return Err(io::Error::other("nobody asks the node any more")),
                Some((of, round)) = rounds.recv() => {
                    // One that was under way when a key changed what is asked is of what was before.
                    if of == scope(&state) {
                        state.take(round, start.elapsed());
                    }
                }
                Some(input) = inputs.recv() => match input {
                    Input::Resized => {}
                    Input::Press(press) => {
                        if state.press(press) {
                            break;
                        }
                        scopes.send_if_modified(|known| {
                            let now = scope(&state);
                            std::mem::replace(known, now) != now
                        });
                    }
                },
            }
        }
        asking.abort();
        Ok(())
    }
}

/// Asks again and again, and at once when something else is to be asked; ends when nobody wants to hear.
async fn ask(top: Top, mut scopes: watch::Receiver<Scope>, heard: mpsc::Sender<(Scope, Round)>) {
    let mut known: Vec<Target> = Vec::new();
    loop {
        let scope = *scopes.borrow_and_update();
        let began = Instant::now();
        if !scope.is_paused {
            let mut nodes = vec![top.target.clone()];
            if scope.is_cluster {
                nodes.extend(known.iter().filter(|node| **node != top.target).cloned());
            }
            let round = round(&nodes, scope.is_cluster, top.timeout).await;
            if let Ok(status) = &round.status {
                let members = others::of_status(status, &top.target).into_iter();
                known = members.filter_map(|member| member.target).collect();
            }
            if heard.send((scope, round)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep_until(began + top.interval), if !scope.is_paused => {}
            changed = scopes.changed() => if changed.is_err() {
                return;
            }
        }
    }
}

/// A frame as text, as high as all in it.
fn text_of(state: &State, width: u16) -> Result<String, String> {
    let backend = TestBackend::new(width, draw::height(state, width));
    let mut terminal = Terminal::new(backend).map_err(|error| error.to_string())?;
    let drawn = terminal.draw(|frame| draw::frame(state, Painter::default(), frame));
    drawn.map_err(|error| error.to_string())?;
    Ok(lines(terminal.backend().buffer()))
}

/// The letters of a buffer, a line each.
fn lines(buffer: &Buffer) -> String {
    let mut text = String::new();
    for row in buffer.content().chunks(usize::from(buffer.area.width)) {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
