//! `henge top` against nodes, as text and on a terminal, which has to be as it was when it ends.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use crate::client::node;

fn henge(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
    command.args(line.split(' ')).env_clear();
    command
}

fn said(line: &str) -> Output {
    let command = &mut henge(line);
    command
        .env("COLUMNS", "90")
        .stdin(Stdio::null())
        .output()
        .expect("it runs")
}

#[test]
fn a_frame_is_printed() {
    let node = node(&[]);
    for more in ["", " --cluster"] {
        let line = format!(
            "top --once --interval 100ms --url http://{}{more}",
            node.local_addr()
        );
        let output = said(&line);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*errors), (Some(0), ""));
        let text = String::from_utf8_lossy(&output.stdout);
        for expected in ["henge top", "ready", "ops/s ", "NAME", " up ", "hot keys"] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert!(
            text.lines().all(|line| line.chars().count() <= 90),
            "{text}"
        );
    }
}

#[test]
fn without_a_terminal_or_a_node_it_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = listener.local_addr().expect("it is bound");
    drop(listener);
    for (more, code, complaint) in [
        ("", 2, "henge: standard output is no terminal"),
        (" --once", 3, "henge: no connection to the node: "),
    ] {
        let output = said(&format!("top --url http://{gone}{more}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.starts_with(complaint), "{errors}");
        assert_eq!(
            (output.status.code(), &*output.stdout),
            (Some(code), &b""[..])
        );
    }
}

/// A terminal: the end of who sits at it, and that of programs.
fn terminal() -> (File, File) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there are terminals");
    grantpt(&person)
        .and_then(|()| unlockpt(&person))
        .expect("it is ours");
    let path = ptsname(&person, Vec::new()).expect("it has a name");
    let path = path.into_string().expect("it is text");
    let program = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("it opens");
    let size = Winsize {
        ws_row: 30,
        ws_col: 100,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&program, size).expect("it has a size");
    (File::from(person), program)
}

/// Reads until something was said.
fn read_until(person: &mut File, expected: &str, heard: &mut String) {
    let mut bytes = [0; 4096];
    while !heard.contains(expected) {
        let length = person.read(&mut bytes).expect("it goes on");
        heard.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
}

#[test]
fn the_terminal_is_given_back() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = listener.local_addr().expect("it is bound");
    drop(listener);
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let (mut person, program) = terminal();
        let before = tcgetattr(&program).expect("it is a terminal");
        let end = || Stdio::from(OwnedFd::from(program.try_clone().expect("a handle")));
        let mut child = henge(&format!("top --interval 100ms --url http://{gone}"))
            .env("TERM", "xterm")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("it runs");
        let mut heard = String::new();
        // All of it is taken, and it goes on though nobody answers.
        read_until(&mut person, "\u{1b}[?1049h", &mut heard);
        read_until(&mut person, "no answer for", &mut heard);
        let taken = tcgetattr(&program).expect("it is a terminal");
        assert_ne!(taken.local_modes, before.local_modes);
        let id = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("an id");
        kill_process(id, signal).expect("it lives");
        read_until(&mut person, "\u{1b}[?1049l", &mut heard);
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
        let after = tcgetattr(&program).expect("it is a terminal");
        assert_eq!(after.local_modes, before.local_modes, "{signal:?}");
    }
}
