//! Frames as bytes and back.
