//! `LATENCY`: the seconds in which commands were slow, in figures and for the eye, and how long commands take in all.

use std::fmt::Write as _;
use std::sync::Arc;

use super::aside::aside;
use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::latency::{Event, Latency, Sample, Series};
use crate::resp::pipeline::shown;
use crate::resp::statistics::Statistics;
use crate::resp::table::{COMMANDS as ALL, Group, Keys, Permission, Run, Spec, flag};
use crate::resp::{Server, help};

pub(in crate::resp) const COMMANDS: &[Spec] = &[Spec {
    name: "latency",
    syntax: "",
    arity: -2,
    flags: 0,
    keys: Keys::NONE,
    permission: Permission::Observe,
    group: Group::Server,
    since: "2.8.13",
    complexity: "Depends on the subcommand",
    summary: "Shows when commands were slow",
    run: Run::Family(FAMILY),
}];

const FAMILY: &[Spec] = &[
    Spec {
        name: "latency|latest",
        syntax: "",
        arity: 2,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Observe,
        group: Group::Server,
        since: "2.8.13",
        complexity: "O(1)",
        summary: "Gives the last sample of each event",
        run: Run::Handler(latest),
    },
    Spec {
        name: "latency|history",
        syntax: "event",
        arity: 3,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Observe,
        group: Group::Server,
        since: "2.8.13",
        complexity: "O(1)",
        summary: "Gives the samples of an event",
        run: Run::Handler(history),
    },
    Spec {
        name: "latency|reset",
        syntax: "[event [event ...]]",
        arity: -2,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Server,
        since: "2.8.13",
        complexity: "O(1)",
        summary: "Forgets the samples of events, or of all",
        run: Run::Handler(reset),
    },
    Spec {
        name: "latency|graph",
        syntax: "event",
        arity: 3,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Observe,
        group: Group::Server,
        since: "2.8.13",
        complexity: "O(1)",
        summary: "Draws the samples of an event",
        run: Run::Handler(graph),
    },
    Spec {
        name: "latency|doctor",
        syntax: "",
        arity: 2,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Observe,
        group: Group::Server,
        since: "2.8.13",
        complexity: "O(1)",
        summary: "Says in words what was slow",
        run: Run::Handler(doctor),
    },
    Spec {
        name: "latency|histogram",
        syntax: "[command [command ...]]",
        arity: -2,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Observe,
        group: Group::Server,
        since: "7.0.0",
        complexity: "O(N) where N is the number of commands",
        summary: "Gives how long commands take, as counts below powers of two",
        run: Run::Handler(histogram),
    },
    help::definition("latency|help", Group::Server, "2.8.13"),
];

fn watched<'a>(call: &Call<'a>) -> &'a Latency {
    &call.local.shared.resp.latency
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn latest(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let occurred = occurred(watched(call));
    call.out.array(occurred.len());
    for (event, series) in occurred {
        let last = series.samples.back().copied();
        let last = last.unwrap_or(Sample {
            at_seconds: 0,
            took_ms: 0,
        });
        call.out.array(6);
        call.out.bulk(event.name().as_bytes());
        for figure in [
            last.at_seconds,
            last.took_ms,
            series.worst_ms,
            series.sum_ms,
            series.count,
        ] {
            call.out.integer(number(figure));
        }
    }
    Ok(Flow::Done)
}

fn occurred(latency: &Latency) -> Vec<(Event, Series)> {
    Event::ALL
        .into_iter()
        .filter_map(|event| Some((event, latency.series(event)?)))
        .collect()
}

fn named(call: &Call<'_>, index: usize) -> Option<Series> {
    watched(call).series(Event::named(call.word(index))?)
}

fn history(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let series = named(call, 2).unwrap_or_default();
    call.out.array(series.samples.len());
    for sample in series.samples {
        call.out.array(2);
        call.out.integer(number(sample.at_seconds));
        call.out.integer(number(sample.took_ms));
    }
    Ok(Flow::Done)
}

fn reset(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let latency = watched(call);
    let reset = Event::ALL
        .into_iter()
        .filter(|event| {
            call.words.len() == 2
                || call
                    .words
                    .from(2)
                    .any(|name| Event::named(name) == Some(*event))
        })
        .filter(|event| latency.reset(*event))
        .count();
    call.out.count(reset);
    Ok(Flow::Done)
}

/// The rows of a drawing.
const GRAPH_ROWS: u64 = 4;
/// Its columns: a line of a terminal.
const GRAPH_COLUMNS: usize = 80;

fn graph(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let Some(series) = named(call, 2) else {
        return Err(ErrorReply::new(format!(
            "ERR No samples available for event '{}'",
            shown(call.word(2))
        )));
    };
    let name = String::from_utf8_lossy(call.word(2));
    let drawn = drawn(&name, &series, call.now_ms / 1000);
    call.out.verbatim(&drawn);
    Ok(Flow::Done)
}

/// Each second with samples as a column, the newest to the right, and below it how long ago it was.
fn drawn(name: &str, series: &Series, now_seconds: u64) -> String {
    let skipped = series.samples.len().saturating_sub(GRAPH_COLUMNS);
    let shown: Vec<Sample> = series.samples.iter().skip(skipped).copied().collect();
    let took = || shown.iter().map(|sample| sample.took_ms);
    let (high, low) = (took().max().unwrap_or(0), took().min().unwrap_or(0));
    let mut text = format!(
        "{name} - high {high} ms, low {low} ms (all time high {} ms)\n{}\n",
        series.worst_ms,
        "-".repeat(GRAPH_COLUMNS)
    );
    let height = |took_ms: u64| {
        let span = (high - low).max(1);
        (took_ms - low) * (GRAPH_ROWS - 1) / span
    };
    for row in (0..GRAPH_ROWS).rev() {
        let line: String = shown
            .iter()
            .map(|sample| match height(sample.took_ms) {
                top if top > row => '|',
                top if top == row && row == 0 => '_',
                top if top == row => '#',
                _ => ' ',
            })
            .collect();
        text += line.trim_end();
        text.push('\n');
    }
    let ages: Vec<String> = shown
        .iter()
        .map(|sample| age(now_seconds.saturating_sub(sample.at_seconds)))
        .collect();
    let longest = ages.iter().map(String::len).max().unwrap_or(0);
    text.push('\n');
    for place in 0..longest {
        let line: String = ages
            .iter()
            .map(|age| age.chars().nth(place).unwrap_or(' '))
            .collect();
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A time ago in its largest unit.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn doctor(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let shared = &call.local.shared;
    let report = report(&shared.resp, shared.insight.slow_log.threshold_us());
    call.out.verbatim(&report);
    Ok(Flow::Done)
}

fn report(server: &Server, slow_log_us: i64) -> String {
    let threshold_ms = server.latency.threshold_ms();
    let occurred = occurred(&server.latency);
    if occurred.is_empty() {
        return if threshold_ms == 0 {
            "Nothing is watched: CONFIG SET latency-monitor-threshold to the milliseconds from which on a command is slow.\n"
                .to_owned()
        } else {
            format!("No command took {threshold_ms} ms or longer.\n")
        };
    }
    let mut text = String::new();
    for (event, series) in occurred {
        // Each count is at least 1, or the event would not be here.
        let average = series.sum_ms / series.count.max(1);
        let _ = writeln!(
            text,
            "{}: {} slow ones in {} seconds that are kept, {average} ms on average, {} ms at worst.",
            event.name(),
            series.count,
            series.samples.len(),
            series.worst_ms,
        );
    }
    let watched_us = i64::try_from(threshold_ms.saturating_mul(1000)).unwrap_or(i64::MAX);
    if slow_log_us < 0 || slow_log_us > watched_us {
        let _ = writeln!(
            text,
            "Which commands they were the slow log does not say: CONFIG SET slowlog-log-slower-than {watched_us}."
        );
    } else {
        text += "SLOWLOG GET shows which commands they were.\n";
    }
    text
}

fn histogram(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let wanted = wanted(call);
    let admin = Arc::clone(&call.local.admin);
    call.eventually(async move |out| {
        let statistics = aside(move || Statistics::now(&admin.metrics)).await?;
        let shown: Vec<_> = statistics
            .commands
            .iter()
            .filter(|(number, figures)| {
                figures.latency.count() > 0
                    && wanted.get(usize::from(**number)).copied().unwrap_or(false)
            })
            .collect();
        out.map(shown.len());
        for (command, figures) in shown {
            let name = ALL.entries()[usize::from(*command)].spec.name;
            out.bulk(name.as_bytes());
            out.map(2);
            out.bulk(b"calls");
            out.integer(number(figures.latency.count()));
            out.bulk(b"histogram_usec");
            let steps = figures.latency.cumulative();
            out.map(steps.len());
            for (bound_ns, count) in steps {
                out.integer(number((bound_ns + 500) / 1000));
                out.integer(number(count));
            }
        }
        Ok(())
    })
}

/// Whether each command was asked for; a family stands for its own.
fn wanted(call: &Call<'_>) -> Vec<bool> {
    let mut wanted = vec![call.words.len() == 2; ALL.entries().len()];
    for name in call.words.from(2) {
        let entry = match name.iter().position(|&byte| byte == b'|') {
            None => ALL.find(name),
            Some(bar) => ALL
                .find(&name[..bar])
                .and_then(|family| ALL.subcommand(family, &name[bar + 1..])),
        };
        if let Some(entry) = entry {
            let first = usize::from(entry.number);
            let last = first + entry.spec.subcommands().len();
            wanted[first..=last].fill(true);
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_drawn() {
        let latency = Latency::default();
        latency.add(false, 100, 10);
        latency.add(false, 101, 1200);
        latency.add(false, 3800, 600);
        let series = latency.series(Event::Command).expect("it occurred");
        let drawn = drawn("command", &series, 3801);
        let line = "-".repeat(GRAPH_COLUMNS);
        assert_eq!(
            drawn,
            format!(
                "command - high 1200 ms, low 10 ms (all time high 1200 ms)\n{line}\n \
                 #\n |\n |#\n_||\n\n111\nhhs\n"
            )
        );
    }
}
