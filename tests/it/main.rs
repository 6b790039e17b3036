//! Black-box tests of Dormouse: each starts the real server, or uses one that is running, and speaks HTTP to it.
//!
//! Most tests share two nodes and keep to tenants of their own. A test that counts what a whole node holds, or stops
//! it, has one of its own.

/// Makes each function a test of its own for the same guest in either world, which it takes the name of.
macro_rules! in_both_worlds {
    ($($test:ident),* $(,)?) => {
        mod p2 {
            $(#[test] fn $test() -> anyhow::Result<()> { super::$test("misbehave") })*
        }
        mod p3 {
            $(#[test] fn $test() -> anyhow::Result<()> { super::$test("misbehave3") })*
        }
    };
}

mod admin;
mod audit;
mod backup;
mod bad_input;
mod cli;
mod commit_log;
mod compile;
mod concurrency;
mod config;
mod connection;
mod crash;
mod database;
mod database_process;
mod dev;
mod disk;
mod door;
mod drain;
mod fair;
mod first_use;
mod guard;
mod headers;
mod hosts;
mod house;
mod idle;
mod inbox;
mod kept_statements;
mod limits;
mod logs;
mod manifest;
mod many_tenants;
mod memory;
mod origin;
mod outbound;
mod packaging;
mod parking;
mod process;
mod project;
mod proxies;
mod qrcards;
mod quota;
mod readme;
mod sdk;
mod sdk_async;
mod small_machine;
mod snapshot;
mod streams;
mod templates;
mod tokens;
mod upload;
mod values;
mod variables;
mod webhook;
mod worlds;

use dormouse_tests::Shared;

/// A node as shipped.
static SHIPPED: Shared = Shared::new(&[]);

/// A node whose bounds are close, for tests that run into one. No other test can be sure to stay within them.
static TIGHT: Shared = Shared::new(&[
    ("--body-bytes-max", "65536"),
    ("--memory-bytes-max", "33554432"),
    ("--cpu-time-max-ms", "200"),
    ("--wall-time-max-ms", "2000"),
    ("--statement-time-max-ms", "200"),
    ("--transaction-held-max-ms", "300"),
    ("--database-bytes-max", "262144"),
    ("--component-bytes-max", "1048576"),
]);
