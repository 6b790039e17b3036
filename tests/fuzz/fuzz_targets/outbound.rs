//! See `dormouse_fuzz::targets::outbound`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dormouse_fuzz::check(dormouse_fuzz::targets::outbound::run(data)));
