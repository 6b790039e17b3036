//! The targets: each takes any bytes, calls the server's own code with them, and says what must hold afterwards.

pub mod outbound;
pub mod routing;
pub mod sql_guard;
pub mod upload;
pub mod values;
mod world;
