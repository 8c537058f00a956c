//! `question` of guard-fuzz, fed by libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|case: &[u8]| guard_fuzz::driver::feed("question", case));
