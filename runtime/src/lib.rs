//! Dormouse: a serverless function runtime for one box.
//!
//! A request is data that walks through rooms in one direction. These are the rooms, in the order in which a request
//! meets them; [`edge`] is the corridor that names them.

pub mod listener;

pub mod edge;

pub mod routing;

pub mod admission;

pub mod catalog;

pub mod tenant;

pub mod database;

pub mod sandbox;

// Beside the corridor.
pub mod backup;
pub mod cli;
pub mod config;
pub mod control;
pub mod manifest;
pub mod node;
pub mod outbound;
pub mod process_sandbox;
pub mod telemetry;
pub mod toolchain;

// The vocabulary that all rooms share.
pub mod disk;
pub mod exceeded;
pub mod fair;
pub mod limits;
pub mod memory;
pub mod name;
pub mod network;
pub mod problem;
pub mod request_id;
pub mod spelling;
pub mod thread;
