//! What is said of a run: the verdict, and what it rests on; as text for people and as JSON for programs.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::conduct::Outcome;
use super::faults::{Happened, Kind};
use super::judge::{Findings, Loss};
use super::options::Level;
use super::tally::{Counts, Longest};
use crate::cli::bench::{duration, grouped};
use crate::cli::table::columns;

/// The quantiles that are shown, and what they are called. The last is the longest latency of all.
pub(super) const QUANTILES: [(f64, &str); 5] = [
    (0.5, "p50"),
    (0.9, "p90"),
    (0.99, "p99"),
    (0.999, "p99.9"),
    (1.0, "max"),
];

/// Losses that are told one by one, for people. More of them nobody reads; the JSON has all.
const MOST_TOLD: usize = 20;
/// Faults that are told one by one on a terminal. The page and the JSON have all.
const MOST_FAULTS_TOLD: usize = 60;

/// A time of the run, in microseconds, for people.
pub(super) fn second(us: u64) -> String {
    format!("{:.1} s", us as f64 / 1e6)
}

/// How long something took, in microseconds, for people.
pub(super) fn span(us: u64) -> String {
    duration(Duration::from_micros(us))
}

/// The name of what was going on.
pub(super) fn phase_name(phase: Option<Kind>) -> &'static str {
    phase.map_or("calm", Kind::name)
}

/// A row of the table of latencies: the phase, reads or writes, how many, and the quantiles.
pub(super) struct LatencyRow {
    pub(super) phase: &'static str,
    pub(super) what: &'static str,
    pub(super) count: u64,
    pub(super) quantiles: [u64; QUANTILES.len()],
}

impl LatencyRow {
    pub(super) fn cells(&self) -> [String; 8] {
        let [p50, p90, p99, p999, max] = self.quantiles.map(span);
        let count = grouped(self.count as f64);
        [
            self.phase.to_owned(),
            self.what.to_owned(),
            count,
            p50,
            p90,
            p99,
            p999,
            max,
        ]
    }
}

/// Why a loss is none of the cluster's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Excuse {
    Evicted,
    Forgotten,
    /// It was acknowledged at ONE, and the nodes say that it is lost, or may be.
    Reported,
}

impl Outcome {
    pub(super) fn answered(&self) -> u64 {
        let tally = self.load.tally.borrow();
        tally.reads.answered() + tally.writes.answered()
    }

    fn excuse(&self, loss: &Loss) -> Option<Excuse> {
        if self.evicts() {
            Some(Excuse::Evicted)
        } else if self.memory.excuses(loss.asked, loss.missed) {
            Some(Excuse::Forgotten)
        } else if self.load.plan.level == Level::One && self.is_reported(loss) {
            Some(Excuse::Reported)
        } else {
            None
        }
    }

    /// Whether the nodes say of a loss that there is one, or that there may be.
    fn is_reported(&self, loss: &Loss) -> bool {
        let reported = self.reported.as_ref().zip(loss.version);
        reported.is_some_and(|(reported, version)| reported.may_have(loss.partition, version))
    }

    /// Writes that the nodes say are lost, and that were there when their round was over.
    fn wrongly_reported(&self) -> u64 {
        let survivors = self.findings.survivors.iter();
        let wrong = survivors.filter(|(partition, version)| {
            let reported = self.reported.as_ref();
            reported.is_some_and(|reported| reported.has(*partition, *version))
        });
        wrong.count() as u64
    }

    fn excused(&self, excuse: Excuse) -> u64 {
        let losses = self.findings.losses.iter();
        losses
            .filter(|loss| self.excuse(loss) == Some(excuse))
            .count() as u64
    }

    /// Losses that nothing excuses.
    pub(super) fn lost(&self) -> impl Iterator<Item = &Loss> {
        let losses = self.findings.losses.iter();
        losses.filter(|loss| self.excuse(loss).is_none())
    }

    /// Whether nodes have evicted something, so that what is missing may be that, and come back with a start.
    fn evicts(&self) -> bool {
        self.evictions > 0 || self.load.plan.own().is_some_and(|own| own.evicts)
    }

    /// Explanations of what came back, where that is none of what nodes may do.
    pub(super) fn returns(&self) -> &[String] {
        if self.evicts() {
            &[]
        } else {
            &self.findings.returns
        }
    }

    /// Whether nothing is wrong with what was checked.
    pub(super) fn is_good(&self) -> bool {
        let has_returned = self.findings.returned > 0 && !self.evicts();
        self.findings.lie_count == 0
            && !has_returned
            && self.lost().next().is_none()
            && self.wrongly_reported() == 0
            && self.ended.is_empty()
    }

    /// The verdict, a line for each thing that is to be said, and whether that is good.
    pub(super) fn verdict(&self) -> Vec<(bool, String)> {
        let findings = &self.findings;
        let level = self.load.plan.level;
        let mut lines = Vec::new();
        if self.answered() == 0 {
            lines.push((
                false,
                "Nothing was answered, so nothing was checked.".to_owned(),
            ));
            return lines;
        }
        lines.push(verdict_on_answers(findings, level));
        if findings.returned > 0 {
            let keys = grouped(findings.returned as f64);
            let line = if self.evicts() {
                format!(
                    "Keys on which something was there again that had been missing, with nothing newer in between: {keys}. A node that starts may bring back what it had evicted."
                )
            } else {
                format!(
                    "LIES: keys on which something was there again that had been missing, though nothing was evicted: {keys}."
                )
            };
            lines.push((self.evicts(), line));
        }
        if findings.undecided > 0 {
            lines.push((
                true,
                format!(
                    "Keys that could not be decided: {}. More was under way on them at once, or is not known, than the checker has steps for.",
                    grouped(findings.undecided as f64)
                ),
            ));
        }
        if level == Level::One {
            if findings.stale > 0 {
                lines.push((true, format!("At ONE {} keys had answers older than they should be, which ONE does not rule out.", findings.stale)));
            }
            self.verdict_on_reports(&mut lines);
        } else {
            let lost = self.lost().count();
            if lost > 0 {
                lines.push((
                    false,
                    format!(
                        "{} acknowledged writes are lost, which nothing explains.",
                        grouped(lost as f64)
                    ),
                ));
            } else {
                lines.push((
                    true,
                    format!(
                        "No acknowledged {} write is lost that should have been kept.",
                        level.name()
                    ),
                ));
            }
        }
        for (excuse, why) in [
            (
                Excuse::Evicted,
                format!(
                    "where nodes evicted {} items",
                    grouped(self.evictions as f64)
                ),
            ),
            (
                Excuse::Forgotten,
                "when a quorum's memory was lost".to_owned(),
            ),
        ] {
            let count = self.excused(excuse);
            if count > 0 {
                lines.push((
                    true,
                    format!(
                        "{} acknowledged writes were missing {why}, as is to be expected.",
                        grouped(count as f64)
                    ),
                ));
            }
        }
        if findings.losses_dropped > 0 {
            lines.push((
                true,
                format!(
                    "{} more missing writes were not looked at.",
                    findings.losses_dropped
                ),
            ));
        }
        for ended in &self.ended {
            lines.push((false, ended.clone()));
        }
        lines
    }

    /// At ONE: what was lost, and whether the nodes say so.
    fn verdict_on_reports(&self, lines: &mut Vec<(bool, String)>) {
        let told = |count: u64| grouped(count as f64);
        let (lost, reported) = (self.lost().count() as u64, self.excused(Excuse::Reported));
        if reported > 0 {
            let text = "acknowledged ONE writes did not survive, which ONE does not promise; /cluster/losses reports them";
            lines.push((true, format!("{} {text}.", told(reported))));
        }
        let line = match (lost, &self.reported) {
            (0, _) => {
                let text =
                    "No acknowledged ONE write is lost of which /cluster/losses says nothing.";
                (true, text.to_owned())
            }
            (lost, None) => {
                let text = "acknowledged ONE writes are lost, and no node answers /cluster/losses";
                (false, format!("{} {text}.", told(lost)))
            }
            (lost, Some(said)) => {
                let missing = if said.is_complete {
                    ""
                } else {
                    ", nor have all members been heard"
                };
                let text = "acknowledged ONE writes are lost, and /cluster/losses does not say so";
                (false, format!("{} {text}{missing}.", told(lost)))
            }
        };
        lines.push(line);
        let wrong = self.wrongly_reported();
        if wrong > 0 {
            let text =
                "writes that /cluster/losses reports as lost were there when their round was over";
            lines.push((false, format!("{} {text}.", told(wrong))));
        }
    }

    /// What else is to be known.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = self.remarks.clone();
        if self.unread > 0 {
            notes.push(format!(
                "{} keys could not be read once more when their round was over.",
                self.unread
            ));
        }
        let dropped = self.load.tally.borrow().gaps_dropped;
        if dropped > 0 {
            notes.push(format!("{dropped} gaps were not kept: there are too many."));
        }
        if let Some(reported) = self.reported.as_ref().filter(|said| said.lost_entries > 0) {
            notes.push(format!(
                "/cluster/losses has {} entries that did not survive, whatever was told of them.",
                grouped(reported.lost_entries as f64)
            ));
        }
        if let Some(kept) = &self.kept {
            notes.push(format!("The nodes' logs and data are left in {kept}."));
        }
        notes
    }

    /// The latencies of each phase.
    pub(super) fn latency_rows(&self) -> Vec<LatencyRow> {
        let tally = self.load.tally.borrow();
        let mut rows = Vec::new();
        for (phase, kinds) in &tally.phases {
            for (what, latencies) in ["reads", "writes"].into_iter().zip(kinds) {
                if !latencies.is_empty() {
                    rows.push(LatencyRow {
                        phase: phase_name(*phase),
                        what,
                        count: latencies.len(),
                        quantiles: QUANTILES
                            .map(|(quantile, _)| latencies.value_at_quantile(quantile)),
                    });
                }
            }
        }
        rows
    }

    /// Reads and writes together of each phase.
    pub(super) fn latencies_by_phase(&self) -> Vec<(&'static str, Histogram<u64>)> {
        let tally = self.load.tally.borrow();
        let phases = tally.phases.iter().map(|(phase, [reads, writes])| {
            let mut both = reads.clone();
            both.add(writes)
                .expect("all histograms have the same bounds");
            (phase_name(*phase), both)
        });
        phases.collect()
    }

    /// What came of requests: the name of the outcome, of reads, of writes.
    pub(super) fn count_rows(&self) -> [(&'static str, u64, Option<u64>); 4] {
        let tally = self.load.tally.borrow();
        let (reads, writes) = (tally.reads, tally.writes);
        [
            ("found something; written", reads.done, Some(writes.done)),
            (
                "found nothing; condition did not hold",
                reads.nothing,
                Some(writes.nothing),
            ),
            (
                "not answered; refused, with nothing done",
                reads.refused,
                Some(writes.refused),
            ),
            ("nobody knows", reads.unknown, Some(writes.unknown)),
        ]
    }

    /// The timeline: when, what, how long it lasted, how long until all was well, the longest gap of all keys and of one.
    pub(super) fn fault_row(&self, fault: &Happened) -> [String; 6] {
        let Longest { of_all, of_key } = self.load.tally.borrow().longest_of(fault);
        [
            second(fault.began),
            fault.what(),
            span(fault.ended - fault.began),
            fault.whole.map_or("never".to_owned(), |at| {
                span(at.saturating_sub(fault.ended))
            }),
            gap(of_all),
            gap(of_key),
        ]
    }

    /// The same for the time in which nothing was done to the nodes.
    pub(super) fn calm_row(&self) -> [String; 6] {
        let Longest { of_all, of_key } = self.load.tally.borrow().longest_calm(&self.faults);
        let nothing = || "-".to_owned();
        [
            "else".to_owned(),
            "calm".to_owned(),
            nothing(),
            nothing(),
            gap(of_all),
            gap(of_key),
        ]
    }

    /// All of it, for a terminal.
    pub(super) fn text(&self) -> String {
        let plan = &self.load.plan;
        let mut text = format!(
            "henge verify, seed {}, {}\n{}\n\n",
            plan.seed,
            second(self.lasted),
            plan.summary()
        );
        let mut rows = vec![FAULT_HEAD.map(str::to_owned)];
        rows.extend(
            self.faults
                .iter()
                .take(MOST_FAULTS_TOLD)
                .map(|fault| self.fault_row(fault)),
        );
        rows.push(self.calm_row());
        text.push_str(&columns(&rows, &[0, 2, 3, 4, 5]));
        if let Some(more) = self.faults.len().checked_sub(MOST_FAULTS_TOLD + 1) {
            let _ = writeln!(
                text,
                "({} more faults are in --report and --json)",
                more + 1
            );
        }
        let mut rows = vec![["OUTCOME", "READS", "WRITES"].map(str::to_owned)];
        for (name, reads, writes) in self.count_rows() {
            let writes = writes.map_or(String::new(), |count| grouped(count as f64));
            rows.push([name.to_owned(), grouped(reads as f64), writes]);
        }
        text.push('\n');
        text.push_str(&columns(&rows, &[1, 2]));
        let refusals = self.refusals();
        if !refusals.is_empty() {
            let _ = writeln!(text, "Not done: {refusals}");
        }
        let [p50, p90, p99, p999, max] = QUANTILES.map(|(_, name)| name.to_uppercase());
        let head = ["LATENCY", "", "COUNT"].map(str::to_owned);
        let [latency, what, count] = head;
        let mut rows = vec![[latency, what, count, p50, p90, p99, p999, max]];
        rows.extend(self.latency_rows().iter().map(LatencyRow::cells));
        text.push('\n');
        text.push_str(&columns(&rows, &[2, 3, 4, 5, 6, 7]));
        for lie in self.findings.lies.iter().chain(self.returns()) {
            let _ = write!(
                text,
                "\nA lie. Times are in microseconds of the run.\n{lie}"
            );
        }
        let lost: Vec<&Loss> = self.lost().take(MOST_TOLD).collect();
        if !lost.is_empty() {
            text.push_str("\nLost:\n");
        }
        for loss in lost {
            let _ = writeln!(text, "  {}", loss.line());
        }
        text.push('\n');
        for note in self.notes() {
            let _ = writeln!(text, "{note}");
        }
        for (is_good, line) in self.verdict() {
            let mark = if is_good { "" } else { "!! " };
            let _ = writeln!(text, "{mark}{line}");
        }
        text
    }

    /// Refusals by their codes, in a line.
    pub(super) fn refusals(&self) -> String {
        let tally = self.load.tally.borrow();
        let mut refusals: Vec<(u64, &String)> = tally
            .refusals
            .iter()
            .map(|(code, count)| (*count, code))
            .collect();
        refusals.sort_unstable_by(|a, b| b.cmp(a));
        let refusals: Vec<String> = refusals
            .iter()
            .map(|(count, code)| format!("{code} {}", grouped(*count as f64)))
            .collect();
        refusals.join(", ")
    }

    /// All of it, for programs. Times are in microseconds of the run.
    pub(super) fn json(&self) -> String {
        let plan = &self.load.plan;
        let tally = self.load.tally.borrow();
        let counts = |counts: Counts| {
            json!({
                "done": counts.done,
                "nothing": counts.nothing,
                "refused": counts.refused,
                "unknown": counts.unknown,
            })
        };
        let faults: Vec<Value> = self
            .faults
            .iter()
            .map(|fault| {
                let longest = tally.longest_of(fault);
                json!({
                    "kind": fault.kind.name(),
                    "nodes": fault.nodes.iter().map(|n| format!("node{}", n + 1)).collect::<Vec<_>>(),
                    "led": fault.leader.is_some(),
                    "how": fault.how,
                    "began_us": fault.began,
                    "ended_us": fault.ended,
                    "whole_us": fault.whole,
                    "longest_gap_us": longest.of_all,
                    "longest_gap_of_a_key_us": longest.of_key,
                })
            })
            .collect();
        let latencies: Vec<Value> = self
            .latency_rows()
            .iter()
            .map(|row| {
                let quantiles: serde_json::Map<String, Value> = QUANTILES
                    .iter()
                    .zip(row.quantiles)
                    .map(|((_, name), us)| ((*name).to_owned(), json!(us)))
                    .collect();
                json!({"phase": row.phase, "what": row.what, "count": row.count, "latency_us": quantiles})
            })
            .collect();
        let loss = |loss: &Loss| {
            json!({
                "key": loss.key,
                "line": loss.line(),
                "asked_us": loss.asked,
                "acknowledged_us": loss.acknowledged,
                "missed_us": loss.missed,
            })
        };
        let verdict: Vec<String> = self.verdict().into_iter().map(|(_, line)| line).collect();
        let document = json!({
            "good": self.is_good() && self.answered() > 0,
            "verdict": verdict,
            "seed": plan.seed,
            "summary": plan.summary(),
            "lasted_us": self.lasted,
            "events": self.findings.events,
            "keys": self.findings.keys,
            "lies": {"count": self.findings.lie_count, "first": self.findings.lies},
            "returned": {"count": self.findings.returned, "first": self.findings.returns},
            "undecided_keys": self.findings.undecided,
            "stale_keys": self.findings.stale,
            "lost": self.lost().map(loss).collect::<Vec<_>>(),
            "missing_evicted": self.excused(Excuse::Evicted),
            "missing_forgotten": self.excused(Excuse::Forgotten),
            "evictions": self.evictions,
            "ended_by_themselves": self.ended,
            "reads": counts(tally.reads),
            "writes": counts(tally.writes),
            "refusals": tally.refusals,
            "faults": faults,
            "latencies": latencies,
            "notes": self.notes(),
        });
        format!("{document:#}\n")
    }
}

/// What the columns of the timeline are.
pub(super) const FAULT_HEAD: [&str; 6] = [
    "AT",
    "FAULT",
    "LASTED",
    "WHOLE AFTER",
    "GAP",
    "GAP OF A KEY",
];

/// A gap, where there is one.
fn gap(us: u64) -> String {
    if us == 0 { "-".to_owned() } else { span(us) }
}

/// Whether answers are lies, and whether that is good.
fn verdict_on_answers(findings: &Findings, level: Level) -> (bool, String) {
    let answers = format!(
        "{} events on {} keys",
        grouped(findings.events as f64),
        grouped(findings.keys as f64)
    );
    match (findings.lie_count, level) {
        (0, _) if findings.returned > 0 => (
            true,
            format!("No older value in {answers}, and none that nobody wrote."),
        ),
        (0, Level::One) => (
            true,
            format!("No lie in {answers}: all that was shown was written by somebody."),
        ),
        (0, _) => (
            true,
            format!(
                "No lie in {answers}: each answer is one that a register gives which may forget."
            ),
        ),
        (1, _) => (false, format!("A LIE, in {answers}.")),
        (lies, _) => (
            false,
            format!("LIES: {} keys, in {answers}.", grouped(lies as f64)),
        ),
    }
}

/// The verdict on a history of a file.
pub(super) fn file_text(findings: &Findings) -> String {
    let mut text = String::new();
    for lie in findings.lies.iter().chain(&findings.returns) {
        let _ = writeln!(text, "{lie}");
    }
    let _ = writeln!(text, "{}", verdict_on_answers(findings, Level::Quorum).1);
    if findings.returned > 0 {
        let _ = writeln!(
            text,
            "LIES: keys on which something was there again that had been missing, with nothing newer in between: {}. A node may do that which had evicted it and starts again.",
            findings.returned
        );
    }
    if findings.undecided > 0 {
        let _ = writeln!(
            text,
            "Keys that could not be decided: {}.",
            findings.undecided
        );
    }
    if !findings.losses.is_empty() {
        let _ = writeln!(
            text,
            "{} acknowledged writes were missing; a history does not say whether they were evicted.",
            findings.losses.len()
        );
    }
    text
}

/// The same for programs.
pub(super) fn file_json(findings: &Findings) -> String {
    let document = json!({
        "good": findings.lie_count + findings.returned == 0,
        "events": findings.events,
        "keys": findings.keys,
        "lies": {"count": findings.lie_count, "first": findings.lies},
        "returned": {"count": findings.returned, "first": findings.returns},
        "undecided_keys": findings.undecided,
        "missing": findings.losses.iter().map(Loss::line).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}
