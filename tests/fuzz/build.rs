//! Sends the calls that gcc's coverage makes to `src/coverage.rs`: the sanitizers' runtime has a function of that name.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,--wrap=__sanitizer_cov_trace_pc");
}
