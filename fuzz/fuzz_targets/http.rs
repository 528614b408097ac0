#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| loadline_fuzz::http::check(input));
