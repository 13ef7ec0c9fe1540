//! Feeds the oracle of how a link begins with what the fuzzer makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| henge_fuzz::greeting(input));
