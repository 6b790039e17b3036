//! What this program carries for new projects: files by their paths, as `build.rs` found them.

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
