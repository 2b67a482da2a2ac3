#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| concordat_fuzz::run("receipt", bytes));
