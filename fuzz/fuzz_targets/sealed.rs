//! Feeds the oracle of datagrams, from the port to the members, with what the fuzzer makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| henge_fuzz::sealed(input));
