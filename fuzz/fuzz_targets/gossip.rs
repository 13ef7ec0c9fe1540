//! Feeds the oracle of what members tell each other of who lives with what the fuzzer makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| henge_fuzz::gossip(input));
