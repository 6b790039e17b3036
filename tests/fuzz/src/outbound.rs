//! What of the outbound room needs nothing of the others.

#[path = "../../../runtime/src/outbound/address.rs"]
pub mod address;
#[path = "../../../runtime/src/outbound/destination.rs"]
pub mod destination;
