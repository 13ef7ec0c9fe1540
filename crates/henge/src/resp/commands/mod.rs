//! The commands, each defined and run in the file of its kind. A type of data has one file, or one for each family of its
//! commands; another type is another file and another line here.

mod bits;
mod connection;
mod counters;
mod many;
mod ranges;
mod set_options;
mod steps;
mod strings;

use super::table::Spec;

/// The definitions of all files.
pub(super) const ALL: [&[Spec]; 6] = [
    strings::COMMANDS,
    counters::COMMANDS,
    ranges::COMMANDS,
    many::COMMANDS,
    bits::COMMANDS,
    connection::COMMANDS,
];
