//! Whether what a node has acknowledged stays, whatever ends it.
//!
//! [`load`] writes, deploys, makes and deletes tenants, exports and imports databases, and notes what was acknowledged
//! when. [`oracle`] compares a node with it. In between something bad happens: [`crash_loop`] kills the process,
//! [`power_loss`] also forgets what the disk had not been told to keep.

pub mod crash_loop;
mod disk;
mod load;
mod oracle;
pub mod power_loss;
mod trace;
