//! The terminal that frames are shown on, and its keyboard. However it ends, by a key, a signal or a panic, the terminal is as it was before.

use std::io;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, Frame};
use tokio::sync::mpsc;

use super::state::Press;

/// How long the keyboard is waited for before it is looked whether anybody still wants to know.
const LOOK: Duration = Duration::from_millis(200);
/// Keys that wait to be done: more than a person presses while a frame is drawn.
const MOST_WAITING: usize = 16;

/// What came from the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Press(Press),
    /// It has another size.
    Resized,
}

/// A terminal of which all is taken; given back when this goes.
pub(super) struct Screen(DefaultTerminal);

impl Screen {
    pub(super) fn take() -> io::Result<Self> {
        // It has a hook of its own for panics, which gives the terminal back before anything is told.
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                // Half of it may be taken.
                let _ = ratatui::try_restore();
                Err(error)
            }
        }
    }

    pub(super) fn draw(&mut self, frame: impl FnOnce(&mut Frame)) -> io::Result<()> {
        self.0.draw(frame).map(|_| ())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // One that is closed cannot be given back, and nobody sees it.
        let _ = ratatui::try_restore();
    }
}

/// Reads the keyboard on a thread of its own, as reading it waits.
pub(super) fn inputs() -> mpsc::Receiver<Input> {
    let (sender, receiver) = mpsc::channel(MOST_WAITING);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let read = match event::poll(LOOK) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            // Without a keyboard nothing comes any more; signals still do.
            let Ok(read) = read else { return };
            if let Some(input) = meaning(&read)
                && sender.blocking_send(input).is_err()
            {
                return;
            }
        }
    });
    receiver
}

fn meaning(event: &Event) -> Option<Input> {
    match event {
        Event::Resize(..) => Some(Input::Resized),
        Event::Key(key) if key.kind != KeyEventKind::Release => press(*key).map(Input::Press),
        _ => None,
    }
}

fn press(key: KeyEvent) -> Option<Press> {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        // The terminal makes no signals of them while all is taken.
        KeyCode::Char('c' | 'd' | '\\') if is_control => Press::Quit,
        _ if is_control => return None,
        KeyCode::Char('q') | KeyCode::Esc => Press::Quit,
        KeyCode::Char('c') => Press::Cluster,
        KeyCode::Char('s') => Press::Sort,
        KeyCode::Char('p') => Press::Pause,
        KeyCode::Char('?' | 'h') => Press::Help,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_meanings() {
        for (code, modifiers, expected) in [
            ('q', KeyModifiers::NONE, Some(Press::Quit)),
            ('c', KeyModifiers::NONE, Some(Press::Cluster)),
            ('c', KeyModifiers::CONTROL, Some(Press::Quit)),
            ('s', KeyModifiers::NONE, Some(Press::Sort)),
            ('s', KeyModifiers::CONTROL, None),
            ('p', KeyModifiers::NONE, Some(Press::Pause)),
            ('?', KeyModifiers::SHIFT, Some(Press::Help)),
            ('x', KeyModifiers::NONE, None),
        ] {
            let event = Event::Key(KeyEvent::new(KeyCode::Char(code), modifiers));
            assert_eq!(meaning(&event), expected.map(Input::Press), "{code}");
        }
        assert_eq!(meaning(&Event::Resize(1, 1)), Some(Input::Resized));
        assert_eq!(meaning(&Event::FocusGained), None);
    }
}
