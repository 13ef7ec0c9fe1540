//! The checker as its users see it: histories with known verdicts, histories that a real register gave, and a naive judge.

mod explanations;
mod long;
mod naive;
mod random;
mod recorded;
mod text;
mod verdicts;
