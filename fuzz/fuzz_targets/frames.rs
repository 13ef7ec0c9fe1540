//! Feeds the oracle of what replicas say to each other with what the fuzzer makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| henge_fuzz::frames(input));
