#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| staunch_harness::validate::run(octets));
