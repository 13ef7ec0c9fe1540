//! What Henge keeps: pure, with time, seeds and memory figures as arguments, and `&mut self` where others have locks.

pub mod compress;
