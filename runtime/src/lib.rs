//! Dormouse.
pub mod database;
pub mod limits;
pub mod name;
pub mod tenant;
