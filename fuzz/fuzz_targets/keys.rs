//! Feeds the oracle of what nodes ask each other about keys with what the fuzzer makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| henge_fuzz::keys(input));
