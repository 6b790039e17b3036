//! Coverage of SQLite, for the fuzzer to follow.
//!
//! gcc calls `__sanitizer_cov_trace_pc` at each block (see `cc.sh`), which libFuzzer does not know. Each address counts
//! in a byte of the section that libFuzzer reads as extra counters.
#![expect(unsafe_code, reason = "a symbol that C code calls")]

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".section __libfuzzer_extra_counters, \"aw\", @progbits",
    "dormouse_counters:",
    ".zero 65536",
    ".text",
    ".globl __wrap___sanitizer_cov_trace_pc",
    "__wrap___sanitizer_cov_trace_pc:",
    "mov rax, [rsp]",
    "lea rcx, [rip + __wrap___sanitizer_cov_trace_pc]",
    "sub rax, rcx",
    // Addresses of blocks differ in their low bits; the higher ones keep distant functions apart.
    "mov rcx, rax",
    "shr rcx, 16",
    "xor rax, rcx",
    "movzx eax, ax",
    "lea rcx, [rip + dormouse_counters]",
    "inc byte ptr [rcx + rax]",
    "ret",
    // Comparisons of floating-point numbers, which libFuzzer has no use for.
    ".globl __sanitizer_cov_trace_cmpd",
    ".globl __sanitizer_cov_trace_cmpf",
    "__sanitizer_cov_trace_cmpd:",
    "__sanitizer_cov_trace_cmpf:",
    "ret",
);
