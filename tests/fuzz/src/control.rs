//! What of the control room needs nothing of the others.

#[path = "../../../runtime/src/control/upload.rs"]
pub mod upload;
#[path = "../../../runtime/src/control/values.rs"]
pub mod values;
